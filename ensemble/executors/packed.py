"""Objects as pieces of bytes, with as few copies as pickle allows, since results of large networks pass 100 MB.

Large arrays stay where they are and are sent from there (pickle protocol 5, out of band); large `bytes`, such as a
checkpoint's content, are not copied into the pickle either. Large int64 arrays, such as a member's rows, travel as
int32 where all values fit, and arrive as the int64 arrays they were.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Buffer: TypeAlias = bytes | bytearray | memoryview

_LARGE = 1 << 16  # bytes; smaller arrays are part of the pickle itself
_INT32 = np.iinfo(np.int32)


def pack(value: Any) -> tuple[list[Buffer], list[Buffer]]:
    """The pickle of a value, in pieces to be joined, and the arrays it refers to. Both lists may share its memory."""
    pickled = _Pieces()
    arrays: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _LARGE:
            return True
        arrays.append(raw)
        return False

    _Pickler(pickled, protocol=5, buffer_callback=keep).dump(value)
    return pickled.pieces, arrays


def unpack(pickled: Buffer, arrays: Sequence[Buffer]) -> Any:
    """The value again. Its arrays use the memory of `arrays`; those that were read-only are so again."""
    return pickle.loads(pickled, buffers=arrays)  # noqa: S301 - `sealed` has checked who sent it; `pipes` has a line that nobody else can reach


class _Pieces:
    """A file to which pickle hands large `bytes` objects as they are."""

    def __init__(self) -> None:
        self.pieces: list[Buffer] = []

    def write(self, piece: bytes) -> int:
        self.pieces.append(piece)
        return len(piece)


class _Pickler(pickle.Pickler):
    """Sends large int64 arrays as int32 where that loses nothing."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not np.ndarray or obj.dtype != np.int64 or obj.nbytes < _LARGE or not obj.flags.c_contiguous:
            return NotImplemented
        if obj.min() < _INT32.min or obj.max() > _INT32.max:
            return NotImplemented
        return _widened, (obj.astype(np.int32), obj.flags.writeable)


def _widened(narrow: np.ndarray[Any, np.dtype[np.int32]], writeable: bool) -> np.ndarray[Any, np.dtype[np.int64]]:
    wide = narrow.astype(np.int64)
    wide.flags.writeable = writeable
    return wide
