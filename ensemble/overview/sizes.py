"""How much room runs take, and whether what a manifest lists is there with its size, without reading it."""

from __future__ import annotations

import os
from pathlib import Path

from ensemble.errors import StorageError
from ensemble.storage import RunFolder
from ensemble.storage.names import EVENTS


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder; links are not followed, and count as nothing."""
    total, waiting = 0, [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def listed_bytes(folder: RunFolder) -> int:
    """Bytes of the files that the manifest lists, as it says."""
    return sum(folder.listed_sizes(name)[0] for name in folder.files())


def require_listed_sizes(folder: RunFolder) -> None:
    """Raises StorageError for a listed file that is missing or has another size than written; the event log may have grown."""
    for name in folder.files():
        expected = folder.listed_sizes(name)
        try:
            found = (folder.path / name).stat().st_size
        except OSError as error:
            why = "missing" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            raise StorageError(f"{folder.path / name}: {why}; `ensemble check` names all that is damaged") from error
        if not (found in expected or (name == EVENTS and found > expected[0])):
            raise StorageError(
                f"{folder.path / name}: {found:,} bytes, {expected[0]:,} expected; `ensemble check` names all that is damaged"
            )
