"""Files that are either whole or not there.

Write = temporary file in the same folder, flush, fsync, rename, fsync of the folder. An error is never swallowed: a
write that did not reach the disk raises StorageError and leaves the old file as it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.errors import StorageError

TEMPORARY = ".writing"


def write_bytes(path: Path, content: bytes) -> str:
    """Write a file atomically; returns its SHA-256. Raises StorageError naming file and cause."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: could not be written: {error.strerror or error}; free space or check permissions, then start again"
        ) from error
    return hashlib.sha256(content).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def read_npz(content: bytes, where: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz archive. Raises StorageError; never unpickles."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise StorageError(f"{where}: not an .npz archive of plain arrays: {error}") from error
