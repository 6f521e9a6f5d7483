"""Arrays of a run in memory that other processes of this machine map, so that they are there once however many processes read them.

    shared = SharedArrays.of(arrays)                  # in the driver
    arrays = mapped(shared.described, descriptor)     # in another process, which was given shared.descriptor: read-only, no copy

Images that lie in a file of this machine already (`data.mapped`) travel as the place where they lie.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.data.mapped import place_of
from ensemble.errors import ComputeError
from ensemble.executors.base import Arrays

_ALIGNED = 64  # bytes, as torch and our kernels like it


@dataclass(frozen=True, slots=True)
class Described:
    """An array in the shared memory, by its place there in bytes."""

    dtype: str
    shape: tuple[int, ...]
    at: int


@dataclass(frozen=True)
class SharedArrays:
    """The descriptor of a file without a name, and what is in it. others: arrays that are sent as they are."""

    descriptor: int
    described: Mapping[str, Described]
    others: Mapping[str, Any]

    @classmethod
    def of(cls, arrays: Arrays) -> SharedArrays:
        """A copy of the arrays. Raises ComputeError where there is no room for it."""
        plain = {
            name: np.asarray(array, order="C")
            for name, array in arrays.items()
            if place_of(array) is None and not array.dtype.hasobject
        }
        described, size = {}, 0
        for name, array in plain.items():
            described[name] = Described(array.dtype.str, array.shape, size)
            size += -(-array.nbytes // _ALIGNED) * _ALIGNED
        descriptor = _file()
        try:
            os.truncate(descriptor, size)
            for name, array in plain.items():
                _write(descriptor, memoryview(array.reshape(-1).view(np.uint8).data), described[name].at)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
                raise
            raise ComputeError(
                f"the images ({size / 2**20:,.0f} MiB) do not fit in the memory that processes share ({error.strerror}); use compute.executor=inline, which needs no copy, or data.storage=mapped"
            ) from error
        return cls(descriptor, described, {name: array for name, array in arrays.items() if name not in plain})

    def close(self) -> None:
        """Let go of the memory; processes that have mapped it keep it."""
        os.close(self.descriptor)


def mapped(described: Mapping[str, Described], descriptor: int) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays in the file, read-only. The descriptor is closed."""
    try:
        size = os.fstat(descriptor).st_size
        memory = mmap.mmap(descriptor, size, prot=mmap.PROT_READ) if size else b""
    finally:
        os.close(descriptor)
    found: dict[str, npt.NDArray[np.generic]] = {}
    for name, one in described.items():
        count = int(np.prod(one.shape))
        flat = np.frombuffer(memory, one.dtype, count, one.at) if count else np.empty(0, one.dtype)
        found[name] = flat.reshape(one.shape)
        found[name].flags.writeable = False
    return found


def _file() -> int:
    """A file without a name: in memory, where the system has such a thing."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ensemble-arrays")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(descriptor: int, content: memoryview, at: int) -> None:
    while len(content):
        written = os.pwrite(descriptor, content, at)
        content, at = content[written:], at + written
