"""Replacing a file so that it is the old one or the new one, whenever the process or the machine ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

TEMPORARY = ".writing"


def replace_file(path: Path, content: bytes) -> None:
    """Temporary file in the same folder, flush, fsync, rename, fsync of the folder. Raises OSError, with the old file as it was."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
