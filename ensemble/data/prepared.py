"""Pictures decoded once and kept on this machine, for every later start and every process: `data.storage: mapped`.

    with prepared(key) as folder:                 # one process at a time; others wait
        if folder.finished() is None:
            part = folder.part("train", shape)         # rows that an earlier start has decoded are there already
            part.shard(rows)[...] = ...
            part.add(facts_of_rows)                    # the next rows are complete
            folder.finish(index)

A folder lies in the cache under a key of the files' names, sizes and times and of how pictures are read. What is noted is on the disk
before the note is, so that a kill costs the rows since the last note, some seconds of decoding, and nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ensemble.cache import TEMPORARY, is_own, keep_json, own_folder, private
from ensemble.config.data import DataConfig
from ensemble.data.mapped import INDEX, Place, map_images
from ensemble.data.pixels_digest import DigestOnTheWay
from ensemble.errors import DataError
from ensemble.outside.long_work import working
from ensemble.outside.object_storage import is_address
from ensemble.outside.paths import given_path
from ensemble.types import ByteArray, IntArray

ROOM = "pictures"  # in the cache
LOCK, NOTES, SUFFIX = "lock", ".notes", ".u8"
SHARD_BYTES = 1 << 25  # decoded at a time
NOTE_EVERY_S = 5.0  # what a kill may cost
Shape = tuple[int, int, int, int]


class Part:
    """Images that are being decoded. images_NCHW: uint8, on the disk. facts: of the rows that are there, first row first."""

    def __init__(
        self, folder: Path, name: str, shape: Shape, shard_rows: int | None, digest: DigestOnTheWay | None
    ) -> None:
        """shard_rows: at a time, at most; without it some MiB of them. digest: takes in what is written, until `close`; one part after
        the other. Raises OSError where the disk has no room for it.
        """
        self._name, self._digest = name, digest
        self.path, self._notes = folder / f"{name}{SUFFIX}", folder / f"{name}{NOTES}"
        size = int(np.prod(shape))
        self.facts: list[Any] = _noted(self._notes) if _size(self.path) == size else []
        if not self.facts:
            self._notes.unlink(missing_ok=True)
            _reserve(self.path, size)  # or a full disk would end the process with a signal
        self.facts = self.facts[: shape[0]]
        self.images_NCHW: ByteArray = (
            np.memmap(self.path, np.uint8, "r+", shape=shape) if size else np.empty(shape, np.uint8)
        )
        self.shard_rows = shard_rows or max(1, SHARD_BYTES // int(np.prod(shape[1:])))
        self._shape, self._shards = shape[1:], 0
        self._buffers: list[ByteArray] = []
        self._threads: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._digesting: Future[None] | None = None
        self._noting: Future[None] | None = None
        self._unnoted: list[Any] = []  # facts of rows that were written since the last note
        self._noted_at = time.monotonic()

    def shard(self, rows: int) -> ByteArray:
        """Where the next rows are decoded to."""
        if len(self._buffers) < 2:  # one is written while the other is filled
            self._buffers.append(np.empty((self.shard_rows, *self._shape), np.uint8))
        return self._buffers[self._shards % 2][:rows]

    def add(self, facts: Sequence[Any]) -> None:
        """The rows of the shard are complete; facts: a JSON value of each. The next shard may be filled while they are written."""
        filled, first = self.shard(len(facts)), len(self.facts)
        self._threads = self._threads or ThreadPoolExecutor(3, "pictures")
        self._wait_for_shard()
        self._writing = self._threads.submit(self._write, first, filled, list(facts))
        if self._digest is not None:
            shape, earlier = self.images_NCHW.shape, self.images_NCHW[:first]
            self._digesting = self._threads.submit(self._digest.add, self._name, shape, earlier, filled)
        self.facts += facts
        self._shards += 1
        if time.monotonic() - self._noted_at >= NOTE_EVERY_S and (self._noting is None or self._noting.done()):
            self._writing.result()
            self._begin_note(self._threads)

    def renew(self, facts: Mapping[int, Any]) -> None:
        """Rows that were noted and have been filled anew, with their facts. Raises OSError where that cannot be noted."""
        for row, fact in facts.items():
            self.facts[row] = fact
        self.images_NCHW.flush()  # type: ignore[attr-defined]  # a memmap
        temporary = self._notes.with_name(self._notes.name + TEMPORARY)
        with private(temporary, "w") as notes:
            notes.writelines(json.dumps(fact) + "\n" for fact in self.facts)
            notes.flush()
            os.fsync(notes.fileno())
        temporary.replace(self._notes)

    def close(self) -> None:
        """All rows that were added are on the disk. Raises OSError where they could not be written."""
        if self._threads is None:
            return
        try:
            self._wait_for_shard()
            self._begin_note(self._threads)
            if self._noting is not None:
                self._noting.result()
        finally:
            self._threads.shutdown()
            self._buffers.clear()

    def _wait_for_shard(self) -> None:
        """The buffer of the shard before is free again."""
        for under_way in (self._writing, self._digesting):
            if under_way is not None:
                under_way.result()

    def _write(self, first: int, rows: ByteArray, facts: Sequence[Any]) -> None:
        with self.path.open("rb+", buffering=0) as file:
            file.seek(first * rows[0].nbytes)
            left = memoryview(rows.reshape(-1))  # type: ignore[arg-type]  # numpy's arrays are buffers
            while left:
                left = left[file.write(left) :]
        self._unnoted += facts

    def _begin_note(self, threads: ThreadPoolExecutor) -> None:
        """Note what was written, while decoding goes on."""
        if self._noting is not None:
            self._noting.result()
        facts, self._unnoted = self._unnoted, []
        self._noted_at = time.monotonic()
        self._noting = threads.submit(self._note, facts)

    def _note(self, facts: Sequence[Any]) -> None:
        """What was written reaches the disk before the note of it does."""
        with self.path.open("rb+") as file:
            os.fdatasync(file.fileno())
        with private(self._notes, "a") as notes:
            notes.writelines(json.dumps(fact) + "\n" for fact in facts)
            notes.flush()
            os.fsync(notes.fileno())


def file_of(images_NCHW: ByteArray, name: str) -> str:
    """The name of the file that holds a part's images."""
    return Path(str(images_NCHW.filename)).name if isinstance(images_NCHW, np.memmap) else f"{name}{SUFFIX}"


class PreparedFolder:
    """One data set as decoded on this machine, while this process alone may write to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest = DigestOnTheWay()  # of what is written to parts

    def finished(self) -> dict[str, Any] | None:
        """The index of a folder that is complete."""
        path = self.path / INDEX
        try:
            index = json.loads(path.read_bytes()) if is_own(path) else None
            whole = index is not None and all(
                _size(self.path / each["file"]) == int(np.prod(each["shape"]))
                and (self.path / each["file"]).stat().st_mtime_ns == each["written_ns"]
                for each in index["parts"].values()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        return index if whole else None

    def has_notes(self) -> bool:
        """Whether something was decoded that a later start can go on from."""
        return any(_size(path) > 0 for path in self.path.glob(f"*{NOTES}"))

    def part(self, name: str, shape: Shape, shard_rows: int | None = None, in_order: bool = True) -> Part:
        """Room for the images of a part, with what an earlier start has decoded. shard_rows: see Part. in_order: each part is closed
        before rows are added to the next, so that `digest` can be taken on the way.
        """
        return Part(self.path, name, shape, shard_rows, self.digest if in_order else None)

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
        for each in index["parts"].values():
            each["written_ns"] = (self.path / each["file"]).stat().st_mtime_ns
        keep_json(self.path / INDEX, index)
        named = {INDEX, LOCK, *(each["file"] for each in index["parts"].values())}
        for path in self.path.iterdir():
            if path.name not in named:
                with suppress(OSError):
                    path.unlink()

    def images(self, index: Mapping[str, Any], config: DataConfig, labelled: bool = True) -> dict[str, ByteArray]:
        """The images of the parts, mapped. config, labelled: of what and how they were made. Raises OSError where they are not there."""
        values = config.model_dump()
        absolute = {
            key: values[key] if is_address(values[key]) else os.path.abspath(given_path(values[key], f"data.{key}"))  # noqa: PTH100
            for key in config.places(values)
        }
        source = config.model_copy(update={**absolute, "storage": "mapped"}).model_dump_json()
        return {
            name: map_images(
                Place(
                    os.fspath(self.path),
                    part["file"],
                    tuple(part["shape"]),
                    source,
                    name,
                    str(index["sha256"]),
                    labelled=labelled,
                )
            )
            for name, part in index["parts"].items()
        }

    def discard(self) -> None:
        """Remove what is not complete, so that it takes no room; whoever waits for the folder makes a new one."""
        shutil.rmtree(self.path, ignore_errors=True)

    def touch(self) -> None:
        """It was used just now."""
        with suppress(OSError):
            os.utime(self.path / LOCK)


@contextmanager
def prepared(key: str, root: str) -> Iterator[PreparedFolder]:
    """The folder of a key, for this process alone as long as it is inside. root: where the pictures lie, for `kept`.

    Raises OSError or RuntimeError where the cache cannot be written.
    """
    path = own_folder(ROOM) / key
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        if not is_own(path):
            raise PermissionError(f"{path} belongs to another user, or others may write to it")
        with _lock_file(path / LOCK, root) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with working("waiting for another process, which reads the same pictures"):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            if _same(lock.fileno(), path / LOCK):  # or the folder was removed meanwhile
                yield PreparedFolder(path)
                return


def _lock_file(path: Path, root: str) -> IO[Any]:
    """The open lock file, which says whose pictures these are; for reading alone where nothing can be written any more."""
    try:
        lock = private(path, "a")
    except OSError:
        return path.open()
    if lock.tell() == 0:
        lock.write(root)
        lock.flush()
    return lock


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
        root=_root(path / LOCK),
        shape=(rows, *parts[0]["shape"][1:]) if parts else (),
        bytes_used=sum(each.st_size for each in files),
        used=(path / LOCK).stat().st_mtime if (path / LOCK).exists() else time.time(),
        complete=index is not None,
    )


def _root(lock: Path) -> str:
    try:
        return lock.read_text(errors="backslashreplace")
    except OSError:
        return ""


def _reserve(path: Path, size: int) -> None:
    """A new file of that size. What has the name keeps its content for whoever has mapped it."""
    path.unlink(missing_ok=True)
    try:
        with private(path, "wb") as file:
            if size:
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
