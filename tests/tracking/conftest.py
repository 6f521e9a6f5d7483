"""Puts the contract suites and this folder's own reader where tests can import them."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent / "contracts"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
