"""Where this program keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

from ensemble.paths import given_path

CACHE_VARIABLE = "ENSEMBLE_CACHE"


def cache_folder() -> Path:
    """$ENSEMBLE_CACHE or ~/.cache/ensemble.

    Raises RuntimeError where there is neither that nor a home folder, ConfigError where the variable holds no path.
    """
    if given := os.environ.get(CACHE_VARIABLE):
        return given_path(given, f"${CACHE_VARIABLE}")
    return Path.home() / ".cache" / "ensemble"
