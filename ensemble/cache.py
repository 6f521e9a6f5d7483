"""Where this program keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "ENSEMBLE_CACHE"


def cache_folder() -> Path:
    """$ENSEMBLE_CACHE or ~/.cache/ensemble. Raises RuntimeError where there is neither that nor a home folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "ensemble")
