"""Fixtures of the training tests; their helpers are in `conftest_training`, importable by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from conftest_training import arrays

__all__ = ["arrays"]
