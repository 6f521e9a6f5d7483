"""Pictures decoded once and kept on this machine, for every later start and every process: `data.storage: mapped`.

    with prepared(key) as folder:                 # one process at a time; others wait
        if folder.finished() is None:
            part = folder.part("train", shape)         # rows that an earlier start has decoded are there already
            part.images_NCHW[row] = ...
            part.note(facts_of_rows)                   # the next rows are complete
            folder.finish(index)

A folder lies in the cache under a key of the files' names, sizes and times and of how pictures are read. What is noted is on the disk
before the note is, so that a kill costs the rows since the last note and nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.cache import is_own, own_folder
from ensemble.data.mapped import INDEX, keep_json
from ensemble.errors import DataError
from ensemble.outside.long_work import working
from ensemble.types import ByteArray, IntArray

ROOM = "pictures"  # in the cache
LOCK, NOTES, SUFFIX = "lock", ".notes", ".u8"
SHARD_BYTES = 1 << 26  # decoded between two notes
Shape = tuple[int, int, int, int]


class Part:
    """Images that are being decoded. images_NCHW: uint8, on the disk. facts: of the rows that were noted, first row first."""

    def __init__(self, folder: Path, name: str, shape: Shape) -> None:
        """Raises OSError where the disk has no room for it."""
        self.path, self._notes = folder / f"{name}{SUFFIX}", folder / f"{name}{NOTES}"
        size = int(np.prod(shape))
        self.facts: list[Any] = _noted(self._notes) if _size(self.path) == size else []
        if not self.facts:
            self._notes.unlink(missing_ok=True)
            _reserve(self.path, size)  # or a full disk would end the process with a signal
        self.images_NCHW: ByteArray = np.memmap(self.path, np.uint8, "r+", shape=shape)
        self.shard_rows = max(1, SHARD_BYTES // int(np.prod(shape[1:])))
        self._writer = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def note(self, facts: Sequence[Any]) -> None:
        """The next rows are complete; facts: a JSON value of each. Decoding may go on while they are written."""
        self._wait()
        self._pending = self._writer.submit(self._write, list(facts))
        self.facts += facts

    def close(self) -> None:
        """All that was noted is on the disk. Raises OSError where it could not be written."""
        try:
            self._wait()
            self.images_NCHW.flush()  # type: ignore[attr-defined]  # a memmap
        finally:
            self._writer.shutdown()

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, facts: Sequence[Any]) -> None:
        self.images_NCHW.flush()  # type: ignore[attr-defined]  # a memmap
        with self._notes.open("a") as file:
            file.writelines(json.dumps(fact) + "\n" for fact in facts)
            file.flush()
            os.fsync(file.fileno())


class PreparedFolder:
    """One data set as decoded on this machine, while this process alone may write to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def finished(self) -> dict[str, Any] | None:
        """The index of a folder that is complete."""
        path = self.path / INDEX
        try:
            index = json.loads(path.read_bytes()) if is_own(path) else None
            whole = index is not None and all(
                _size(self.path / each["file"]) == int(np.prod(each["shape"])) for each in index["parts"].values()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        return index if whole else None

    def part(self, name: str, shape: Shape) -> Part:
        """Room for the images of a part, with what an earlier start has decoded."""
        return Part(self.path, name, shape)

    def chosen(self, name: str, images: Sequence[ByteArray], source_N: IntArray, row_N: IntArray) -> Path:
        """Write a part anew from rows of others: row row_N[n] of images[source_N[n]] becomes row n."""
        path = self.path / f"{name}-chosen{SUFFIX}"
        each = int(np.prod(images[0].shape[1:]))
        _reserve(path, each * len(row_N))
        with path.open("rb+") as file:
            for source, row in zip(source_N.tolist(), row_N.tolist(), strict=True):
                file.write(images[source][row].tobytes())
            file.flush()
            os.fsync(file.fileno())
        return path

    def finish(self, index: dict[str, Any]) -> None:
        """The folder is complete; files that the index does not name go."""
        keep_json(self.path / INDEX, index)
        named = {INDEX, LOCK, *(each["file"] for each in index["parts"].values())}
        for path in self.path.iterdir():
            if path.name not in named:
                with suppress(OSError):
                    path.unlink()

    def touch(self) -> None:
        """It was used just now."""
        with suppress(OSError):
            os.utime(self.path / LOCK)


@contextmanager
def prepared(key: str) -> Iterator[PreparedFolder]:
    """The folder of a key, for this process alone as long as it is inside.

    Raises OSError or RuntimeError where the cache cannot be written.
    """
    path = own_folder(ROOM) / key
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        if not is_own(path):
            raise PermissionError(f"{path} belongs to another user, or others may write to it")
        with (path / LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with working("waiting for another process, which reads the same pictures"):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            if _same(lock.fileno(), path / LOCK):  # or the folder was removed meanwhile
                yield PreparedFolder(path)
                return


@dataclass(frozen=True, slots=True)
class Kept:
    """One line of `ensemble data ls`. root: the folder of the pictures. used: seconds since 1970. complete: all of it is decoded."""

    key: str
    root: str
    shape: tuple[int, ...]
    bytes_used: int
    used: float
    complete: bool


def kept() -> list[Kept]:
    """What lies in this machine's cache, last used first. Raises DataError where it cannot be looked at."""
    try:
        folders = [path for path in own_folder(ROOM).iterdir() if path.is_dir() and is_own(path)]
        found = [_kept(path) for path in folders]
    except (OSError, RuntimeError) as error:
        raise DataError(f"the prepared pictures cannot be looked at: {error}; set ENSEMBLE_CACHE") from error
    return sorted(found, key=lambda each: -each.used)


def remove(key: str) -> None:
    """Remove a prepared folder. Raises DataError where there is none, or a process is preparing it."""
    if key not in {each.key for each in kept()}:  # and so no way to elsewhere
        raise DataError(f"{key or 'the empty name'}: no prepared pictures of this name; `ensemble data ls` lists them")
    path = own_folder(ROOM) / key
    with (path / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{key}: a process is preparing these pictures; wait for it, or stop it") from error
        shutil.rmtree(path)


def _kept(path: Path) -> Kept:
    index = PreparedFolder(path).finished()
    files = [each.stat() for each in path.iterdir()]
    parts = [] if index is None else list(index["parts"].values())
    rows = sum(part["shape"][0] for part in parts)
    return Kept(
        key=path.name,
        root="" if index is None else str(index["root"]),
        shape=(rows, *parts[0]["shape"][1:]) if parts else (),
        bytes_used=sum(each.st_size for each in files),
        used=(path / LOCK).stat().st_mtime if (path / LOCK).exists() else time.time(),
        complete=index is not None,
    )


def _reserve(path: Path, size: int) -> None:
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _noted(path: Path) -> list[Any]:
    """The JSON values of a file of lines, up to the first that a crash cut; what follows is cut off."""
    found: list[Any] = []
    whole = 0
    with suppress(OSError, ValueError), path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            found.append(json.loads(line))
            whole += len(line)
        file.truncate(whole)
    return found


def _same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if is_own(path) else -1
    except OSError:
        return -1
