"""Files that are either whole or not there.

Write = temporary file in the same folder, flush, fsync, rename, fsync of the folder. An error is never swallowed: a
write that did not reach the disk raises StorageError and leaves the old file as it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.errors import StorageError
from ensemble.outside.whole_file import TEMPORARY, replace_file
from ensemble.storage.remedies import unfit

_written = [0]  # bytes, in this process
_MOST_EXPANSION = 1000  # of an archive that somebody compressed


def write_bytes(path: Path, content: bytes, root: Path | None = None) -> str:
    """Write a file atomically; returns its SHA-256. Raises StorageError naming file and cause.

    root: a folder that must exist; only folders below it are made. Without it all that are missing are.
    """
    try:
        _make_parents(path, root)
        replace_file(path, content)
        _written[0] += len(content)
    except OSError as error:  # the next start removes what may be left
        raise StorageError(
            f"{path}: could not be written: {error.strerror or error}; free space or check permissions, then start again"
        ) from error
    return hashlib.sha256(content).hexdigest()


def written_bytes() -> int:
    """Bytes of all files that this process has written whole."""
    return _written[0]


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed writers left anywhere in a folder. Raises StorageError where it cannot."""
    for path in found_in(folder, f"**/*{TEMPORARY}", plain_files=True):
        if _LEFTOVER.search(path.name):
            remove(path)


def found_in(folder: Path, pattern: str, plain_files: bool = False) -> list[Path]:
    """What a folder has of names that match. Raises StorageError naming the folder where it cannot be looked through."""
    try:
        with os.scandir(folder):  # newer versions of Python pass over what they cannot look through
            found = list(folder.glob(pattern))
        return [path for path in found if path.is_file() and not path.is_symlink()] if plain_files else found
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be looked through: {error.strerror or error}; check permissions"
        ) from error


def remove(path: Path) -> None:
    """Remove a file, which may be gone already. Raises StorageError naming file and cause."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: could not be removed: {error.strerror or error}; check permissions") from error


_LEFTOVER = re.compile(rf"\.\d+{re.escape(TEMPORARY)}\Z")


def _make_parents(path: Path, root: Path | None) -> None:
    if root is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    for part in reversed([parent for parent in path.parents if root in parent.parents]):
        part.mkdir(exist_ok=True)


def json_bytes(value: Any) -> bytes:
    """Readable JSON; NaN is refused, since other readers choke on it."""
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def npz_bytes(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """An .npz archive whose bytes depend on the arrays alone (numpy's own writer stamps the time into it)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue())
    return buffer.getvalue()


def read_npz(content: bytes, where: Path, only: Collection[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz archive, or those of the names in `only` alone. Raises StorageError; never unpickles."""
    try:
        _require_small(content)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files if not only or name in only}
    except Exception as error:  # zipfile, zlib and numpy have a dozen kinds of errors for such bytes
        raise unfit(where, f"not an .npz archive of plain arrays: {error}") from error


def _require_small(content: bytes) -> None:
    """Stored archives are not compressed, so none unpacks to more than it has bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _MOST_EXPANSION * len(content):
        raise ValueError(f"{size:,} bytes packed into {len(content):,}")
