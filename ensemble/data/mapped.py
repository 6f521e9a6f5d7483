"""Images in a file of this machine, mapped into memory: the system reads what is looked at and drops what it has no room for.

    images_NCHW = map_images(place)          # uint8, read-only: an array like any other
    pickle.dumps(images_NCHW)                # its place, some hundred bytes; what is cut from it travels as pixels
    will_need(images_NCHW, rows)             # reading begins, and is not waited for

Where the file is not there, such as on another machine, such a pickle gives an `Absent`: see `arriving`.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ensemble.cache import is_own, keep_json
from ensemble.outside.memory import available_memory
from ensemble.types import ByteArray, IntArray

INDEX = "index.json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where mapped images lie, and how to make them again.

    folder: of this machine. file: in it. shape: (N, C, H, W) of the file; margin: of that the middle is meant, without so many pixels
    on each side. source: the data section that they were made from, as JSON, its
    paths absolute. labelled: False where it was read as one whose labels nobody looks at. part: train or test. sha256: of the pixels of both parts, as `images_digest` gives it.
    """

    folder: str
    file: str
    shape: tuple[int, int, int, int]
    source: str
    part: str
    sha256: str
    margin: int = 0
    labelled: bool = True

    @property
    def path(self) -> Path:
        """The file with the pixels."""
        return Path(self.folder) / self.file


@dataclass(frozen=True, slots=True)
class Absent:
    """Images that are not on this machine yet."""

    place: Place


class MappedImages(np.ndarray[Any, np.dtype[np.uint8]]):
    """Images [N, C, H, W] of a mapped file. place: None for what was cut or computed from them."""

    place: Place | None
    memory: mmap.mmap | None

    def __array_finalize__(self, source: object) -> None:
        self.place, self.memory = None, None

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.place is None:
            return np.asarray(self).__reduce_ex__(protocol)
        return _arrived, (self.place,)


def map_images(place: Place) -> ByteArray:
    """The images of a place. Raises OSError where they are not there, or not all."""
    size = int(np.prod(place.shape))
    if size == 0:  # nothing can be mapped then
        return np.empty(place.shape, np.uint8)
    with place.path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != size:
            raise OSError(f"{place.path}: found {os.fstat(file.fileno()).st_size:,} bytes; expected {size:,}")
        memory = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    images = np.frombuffer(memory, np.uint8).reshape(place.shape).view(MappedImages)
    images.place, images.memory = replace(place, margin=0), memory
    return middle(cast(ByteArray, images), place.margin)


def middle(images_NCHW: ByteArray, margin: int) -> ByteArray:
    """The images without so many pixels on each side, nothing copied; the very array without a margin. Of mapped images it travels as they do."""
    if not margin:
        return images_NCHW
    cut = images_NCHW[:, :, margin:-margin, margin:-margin]
    if isinstance(images_NCHW, MappedImages) and images_NCHW.place is not None:
        assert isinstance(cut, MappedImages), "a view is of the array's own class"
        cut.place = replace(images_NCHW.place, margin=margin)
    return cut


def place_of(images: object) -> Place | None:
    """Where images are mapped from; None of those in memory."""
    return images.place if isinstance(images, MappedImages) else None


def read_at_random(images: npt.NDArray[np.generic]) -> None:
    """Tell the system that rows of mapped images will be read in no order, so that it reads what is looked at and nothing beside it.

    It would else read up to megabytes around every row. Reading then waits for each page, unless it is asked for with `will_need`.
    """
    if isinstance(images, MappedImages) and images.memory is not None:
        images.memory.madvise(mmap.MADV_RANDOM)


def will_need(images: npt.NDArray[np.generic], rows: IntArray) -> None:
    """Let the system read these rows of mapped images while other work goes on; of others nothing needs to be read."""
    if not isinstance(images, MappedImages) or images.memory is None or not len(rows):
        return
    each = images.nbytes // len(images)
    starts = np.unique(rows) * each
    firsts, ends = starts // mmap.PAGESIZE * mmap.PAGESIZE, starts + each
    apart = np.concatenate([[True], firsts[1:] > ends[:-1]])  # neighbours are asked for at once
    last = np.concatenate([apart[1:], [True]])
    for first, end in zip(firsts[apart].tolist(), ends[last].tolist(), strict=True):
        images.memory.madvise(mmap.MADV_WILLNEED, first, end - first)


def stays_in_memory(images: npt.NDArray[np.generic]) -> bool:
    """True when what was read of mapped images is likely to be there still, since twice as much memory is free."""
    free = available_memory()
    return free is not None and 2 * images.nbytes <= free


def remembered(images: ByteArray, name: str, find: Callable[[], T]) -> T:
    """A fact about mapped images that takes reading all of them, kept beside them; of others it is found each time.

    find: gives plain JSON values.
    """
    place = place_of(images)
    if place is None or place.margin:
        return find()
    path = Path(place.folder) / f"{name}.json"
    try:
        return cast(T, json.loads(path.read_bytes())) if is_own(path) else keep_json(path, find())
    except (OSError, ValueError):  # another user's, cut, or in a folder that is full
        return find()


def _arrived(place: Place) -> ByteArray | Absent:
    """What a pickle of mapped images becomes: the same images, if this machine has them."""
    try:
        index = Path(place.folder) / INDEX
        if is_own(Path(place.folder)) and is_own(index) and json.loads(index.read_bytes())["sha256"] == place.sha256:
            return map_images(place)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Absent(place)
