"""The arrays of an .npz file, here or in object storage: what their headers say, and their rows in blocks.

    with StoredArrays(Path("mine.npz"), whole=False) as stored:
        stored.outlines()["train_images"].shape                  # of an array that takes no memory; labels are read
        for block in stored.blocks("train_images", 100): ...     # 100 images at a time, compressed or not

Nothing is unpickled. Whatever is wrong with the file is a DataError that names it.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from ensemble.data.arrays import NEEDED, Arrays, check_names, is_images
from ensemble.data.bucket import address_of, tree_of_one
from ensemble.data.listing import PictureFiles
from ensemble.data.numpy_file import load_numpy, reason_of
from ensemble.data.regular_files import open_regular, shown
from ensemble.data.shards import Blocks, FarShard, ShardFile
from ensemble.errors import ConfigError, DataError, StorageError
from ensemble.outside.memory import available_memory

EXPECTED = f"an .npz file with {', '.join(NEEDED)}"
BUFFER_BYTES = 1 << 20  # read from the file at a time
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class StoredArrays:
    """An open .npz file."""

    def __init__(self, path: Path, whole: bool) -> None:
        """whole: all of it will be read, so that an object is fetched by one request.

        Raises DataError where there is no such file, or it is none; StorageError where the object storage does not answer.
        """
        self.path = path
        with self._reading():
            self._file, self._identity = _opened(path, whole)
            try:
                self._archive = _archive(self._file, path)
            except BaseException:
                self._file.close()
                raise
            self._members = set(self._archive.zip.namelist())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._archive.close()
        self._file.close()

    @property
    def origin(self) -> str:
        """Where the file lies, whole."""
        return address_of(self.path) or os.path.abspath(self.path)  # noqa: PTH100  # links stay

    def digest(self) -> str:
        """Of what the file is known by without reading it: name, size and time, or what its storage tells contents apart by."""
        return self._identity

    def outlines(self) -> Arrays:
        """Every array by its name: images as arrays of their shape and type that hold no pixels, all others as they are.

        Raises DataError for arrays that are missing, or that nobody would read.
        """
        check_names(self.path, self._archive.files)
        return {name: self._outline(name) if is_images(name) else self.whole(name) for name in self._archive.files}

    def whole(self, name: str) -> npt.NDArray[Any]:
        """An array, read into memory; labels [N, 1], which some write, as [N]."""
        with self._reading():
            array = np.asarray(self._archive[name])
        return array[:, 0] if name.endswith("_labels") and array.ndim == 2 and array.shape[1] == 1 else array

    def blocks(self, name: str, rows: int) -> Iterator[npt.NDArray[Any]]:
        """So many rows of an array at a time, first row first. At the end its checksum has been compared.

        Raises DataError where the values are not all there, are damaged, or lie by columns and do not fit into memory.
        """
        with self._reading():
            stream = self._member(name)
        with stream:
            with self._reading():
                shape, by_columns, dtype = self._header(stream, name)
            if by_columns:
                yield from self._rows_of_columns(name, math.prod(shape) * dtype.itemsize, rows)
                return
            each = math.prod(shape[1:])
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start) * each
                with self._reading():
                    content = stream.read(count * dtype.itemsize)
                    if len(content) < count * dtype.itemsize:
                        raise ValueError(f"EOF: {name} ends before its last value")
                    block = np.frombuffer(content, dtype).reshape(-1, *shape[1:])
                yield block
            with self._reading():
                while stream.read(BUFFER_BYTES):  # what numpy would not look at either
                    pass

    def _rows_of_columns(self, name: str, size: int, rows: int) -> Iterator[npt.NDArray[Any]]:
        """Of an array in Fortran's order, of which no row is complete before the last byte."""
        free = available_memory()
        if free is not None and size > free:
            raise DataError(
                f"{shown(self.path)}: {name} is stored by columns (Fortran's order), which cannot be read in blocks: its "
                f"{size / 2**30:.1f} GiB are more memory than the {free / 2**30:.1f} GiB that are free; write it with numpy.ascontiguousarray(images)"
            )
        whole = self.whole(name)
        for start in range(0, len(whole), rows):
            yield whole[start : start + rows]

    def _outline(self, name: str) -> npt.NDArray[Any]:
        with self._reading(), self._member(name) as stream:
            shape, _, dtype = self._header(stream, name)
            return np.broadcast_to(np.empty((), dtype), shape)

    def _header(self, stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        """Shape, whether it lies by columns, and type. Raises ValueError for what cannot be an array of numbers or of texts."""
        read = _HEADERS.get(npy.read_magic(stream))
        if read is None:
            raise ValueError(f"{name} is of a type with named fields, or written by a newer numpy")
        shape, by_columns, dtype = read(stream)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
        expected = math.prod(shape) * dtype.itemsize
        found = self._archive.zip.getinfo(self._key(name)).file_size - stream.tell()
        if min(shape, default=0) < 0 or found < expected:
            raise ValueError(f"EOF: reading array data of {name}, expected {expected} bytes got {found}")
        return shape, by_columns, dtype

    def _member(self, name: str) -> IO[bytes]:
        member: IO[bytes] = self._archive.zip.open(self._key(name))
        return member

    def _key(self, name: str) -> str:
        return name if name in self._members else f"{name}.npy"

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Inside the file is read, and nothing else done: what is raised is about the file."""
        try:
            yield
        except FileNotFoundError as error:
            raise DataError(f"data.path: no file {shown(self.path)}; expected {EXPECTED}") from error
        except (DataError, ConfigError, StorageError):
            raise
        except Exception as error:  # damaged archives make numpy raise nearly anything, MemoryError among it
            raise DataError(
                f"{shown(self.path)}: cannot be read as .npz of plain arrays: {reason_of(error)}; write it with numpy.savez, without objects"
            ) from error


def _opened(path: Path, whole: bool) -> tuple[IO[bytes], str]:
    """The file, and its identity. Raises FileNotFoundError where there is none."""
    tree = None if whole else tree_of_one(path)
    if tree is None:
        return open_regular(path, EXPECTED), PictureFiles([path]).digest()
    ((name, facts),) = tree.objects.items()
    known = f"{tree.address}/{name}\0{facts.size} {facts.identity}"
    far = ShardFile(FarShard(tree, name, Blocks()))
    return io.BufferedReader(far, BUFFER_BYTES), hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()


def _archive(file: IO[bytes], path: Path) -> Any:
    start = file.read(len(npy.MAGIC_PREFIX))
    file.seek(0)
    if start == npy.MAGIC_PREFIX:
        raise DataError(f"{shown(path)}: found a single array; expected {EXPECTED}")
    return load_numpy(file)
