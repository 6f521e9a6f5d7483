"""The bytes of tar archives, here or in object storage, at any place of them.

    shard = FileShard(Path("train-000.tar"))
    shard.read(1536, 20480)          # 20 KiB from byte 1536 on

In object storage blocks of some MiB are fetched, of which the last ones are kept: pictures that follow each other take one request
for many.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import Any, Protocol

from ensemble.data.bucket import Tree
from ensemble.data.regular_files import open_regular, shown
from ensemble.errors import DataError

BLOCK_BYTES, BLOCKS_KEPT = 1 << 22, 32  # of far shards


class Shard(Protocol):
    """An archive."""

    @property
    def name(self) -> str:
        """Below data.root."""
        ...

    @property
    def where(self) -> str:
        """For messages."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def identity(self) -> str:
        """A text that changes with the content."""
        ...

    def read(self, start: int, count: int) -> bytes:
        """So many bytes, or fewer at the end. Raises DataError where the archive is gone, Unreachable where the storage is."""
        ...


@dataclass(frozen=True, eq=False)
class FileShard:
    """An archive of this machine."""

    root: Path
    name: str
    size: int
    identity: str

    @classmethod
    def at(cls, root: Path, name: str) -> FileShard:
        """Raises DataError for what is no regular file, or cannot be opened."""
        path = root / name
        try:
            with open_regular(path, "a tar archive") as file:
                facts = os.fstat(file.fileno())
        except FileNotFoundError as error:
            raise DataError(f"{shown(path)}: no such file; expected a tar archive") from error
        return cls(root, name, facts.st_size, f"{facts.st_mtime_ns} {facts.st_ino}")

    @property
    def where(self) -> str:
        """See Shard."""
        return shown(self.root / self.name)

    def read(self, start: int, count: int) -> bytes:
        """See Shard."""
        try:
            with (self.root / self.name).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), count, start)
        except OSError as error:
            raise DataError(
                f"{self.where}: cannot be read: {error.strerror}; bring it back, then start again"
            ) from error


class Blocks:
    """The blocks of far shards that were fetched last; each is fetched once, whoever asks."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def block(self, tree: Tree, name: str, number: int) -> bytes:
        """Raises DataError where the object is gone, Unreachable where the storage is."""
        with self._lock:
            known = self._kept.get((name, number))
            mine = known is None
            if known is None:
                known = self._kept[name, number] = Future()
                while len(self._kept) > BLOCKS_KEPT:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end((name, number))
        if mine:
            try:
                known.set_result(_fetched(tree, name, number))
            except BaseException as error:
                with self._lock:
                    self._kept.pop((name, number), None)
                known.set_exception(error)
        return known.result()


def _fetched(tree: Tree, name: str, number: int) -> bytes:
    content = tree.storage.read(name, (number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES))
    if content is None:
        raise DataError(f"{tree.address}/{name}: no such object; expected a tar archive there")
    return content


@dataclass(frozen=True, eq=False)
class FarShard:
    """An archive in object storage."""

    tree: Tree
    name: str
    blocks: Blocks = field(repr=False)

    @property
    def where(self) -> str:
        """See Shard."""
        return f"{self.tree.address}/{self.name}"

    @property
    def size(self) -> int:
        """See Shard."""
        return self.tree.objects[self.name].size

    @property
    def identity(self) -> str:
        """See Shard."""
        return self.tree.objects[self.name].identity

    def read(self, start: int, count: int) -> bytes:
        """See Shard."""
        end = min(start + count, self.size)
        if end <= start:
            return b""
        first, last = start // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        whole = b"".join(self.blocks.block(self.tree, self.name, number) for number in range(first, last + 1))
        return whole[start - first * BLOCK_BYTES : end - first * BLOCK_BYTES]


class ShardFile(RawIOBase):
    """A shard as a file that is read."""

    def __init__(self, shard: Shard) -> None:
        self._shard, self._place = shard, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._place = place + (0, self._place, self._shard.size)[whence]
        return self._place

    def tell(self) -> int:
        """As of any file."""
        return self._place

    def readinto(self, room: Any) -> int:
        """As of any file."""
        content = self._shard.read(self._place, len(room))
        room[: len(content)] = content
        self._place += len(content)
        return len(content)
