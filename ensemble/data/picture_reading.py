"""Reads the pictures of a data set by one rule, in threads.

    reader = PictureReader(config)
    reading = reader.read(files)                       # bytes are ready; wider values wait for the rule
    rule = reader.rule(reading.extremes, "flowers")    # chosen from the training pictures, or by data.value_range
    images_NCHW = reader.images(reading, rule)

The range of wider values is known only when all training pictures have been seen, so those are decoded twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ensemble.config.schema import DataConfig
from ensemble.data.account import Remark
from ensemble.data.pictures import Decoded, decode, fitted, plain, quiet_decoding
from ensemble.data.pixel_rule import Extremes, PixelRule, check_floats, whole_range
from ensemble.errors import DataError
from ensemble.outside.long_work import working
from ensemble.types import ByteArray

COLOURS = 3  # channels without data.channels
FEW_LEVELS = 48  # of 256: less than so many say that most of the range is empty

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Reading:
    """Pictures as first read. images: those of all files, whose rows of wide and faulty ones are not filled yet.

    wide: row -> smallest and largest value of a picture with more than 8 bits. faults: row -> what is wrong.
    transparent, several: how many have transparent parts, and how many files hold more than one picture.
    """

    files: Sequence[Path]
    images_NCHW: ByteArray
    wide: dict[int, Extremes]
    faults: dict[int, str]
    transparent: int
    several: int

    @property
    def usable_N(self) -> npt.NDArray[np.bool_]:
        """Which files could be read."""
        usable = np.ones(len(self.files), bool)
        usable[list(self.faults)] = False
        return usable

    @property
    def extremes(self) -> list[Extremes | None]:
        """One per usable file: None of bytes."""
        return [self.wide.get(int(row)) for row in np.flatnonzero(self.usable_N)]

    def usable(self, items: Sequence[T]) -> list[T]:
        """Those of the usable files."""
        return [items[int(row)] for row in np.flatnonzero(self.usable_N)]


class PictureReader:
    """Images of data.image_size pixels with data.channels, by the rule that the configuration and training give."""

    def __init__(self, config: DataConfig) -> None:
        self._channels, self._size = config.channels or COLOURS, config.height_width
        ground, resize = config.ground or "white", config.resize or "crop"
        self._given = PixelRule(value_range=config.value_range, ground=ground, resize=resize)

    def read(self, files: Sequence[Path]) -> Reading:
        """Decode all files; none of them stops the others."""
        images = np.empty((len(files), self._channels, *self._size), np.uint8)

        def first(row: int) -> tuple[Extremes | None, bool, bool] | str:
            try:
                decoded = decode(files[row])
                if decoded.extremes is None:
                    images[row] = self._fitted(decoded, self._given)
                elif decoded.extremes.floats:  # wide ones wait for the rule
                    check_floats(decoded.extremes, self._given.value_range, decoded.name)
                return decoded.extremes, decoded.transparent, decoded.frames > 1
            except DataError as error:
                return str(error)

        found = in_threads(first, range(len(files)), "reading pictures")
        seen = [facts for facts in found if not isinstance(facts, str)]
        return Reading(
            files=files,
            images_NCHW=images,
            wide={n: facts[0] for n, facts in enumerate(found) if not isinstance(facts, str) and facts[0] is not None},
            faults={n: fault for n, fault in enumerate(found) if isinstance(fault, str)},
            transparent=sum(facts[1] for facts in seen),
            several=sum(facts[2] for facts in seen),
        )

    def rule(self, training: Iterable[Extremes | None], where: str) -> PixelRule:
        """The rule for all pictures: as configured, with the range of wide whole numbers that training has."""
        whole = Extremes.over(found for found in training if found is not None and not found.floats)
        if self._given.value_range is not None or whole is None:
            return self._given
        return replace(self._given, wide_range=whole_range(whole, f"{where}: pictures of more than 8 bits"))

    def images(self, reading: Reading, rule: PixelRule) -> ByteArray:
        """All usable images [N, C, H, W]."""
        rows = list(reading.wide)

        def second(row: int) -> None:
            reading.images_NCHW[row] = self._fitted(decode(reading.files[row]), rule)

        in_threads(second, rows, "reading pictures of more than 8 bits")
        return reading.images_NCHW[reading.usable_N] if reading.faults else reading.images_NCHW

    def _fitted(self, decoded: Decoded, rule: PixelRule) -> ByteArray:
        return fitted(plain(decoded, rule), self._channels, self._size, rule)


def in_threads(function: Callable[[T], R], items: Sequence[T], what: str) -> list[R]:
    """The function of every item, in their order. Pillow decodes outside the interpreter's lock. what: is said of it, if it takes long."""
    with quiet_decoding(), working(what, len(items)) as done, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:

        def and_count(item: T) -> R:
            result = function(item)
            done()
            return result

        return list(pool.map(and_count, items))


def pixel_remarks(rule: PixelRule, readings: Sequence[Reading], images: Sequence[ByteArray]) -> list[Remark]:
    """How the values were read, where that is no matter of course. images: the training images first."""
    said = []
    wide = [found for reading in readings for found in reading.wide.values()]
    whole = Extremes.over(found for found in wide if not found.floats)
    if whole is not None:
        said.append(range_remark(f"{len(wide):,} pictures of more than 8 bits (16-bit)", whole, rule, np.uint16))
    if floats := Extremes.over(found for found in wide if found.floats):
        said.append(range_remark("pictures of floating-point values", floats, rule, np.float32))
    if rule.value_range is not None and not wide:
        low, high = rule.value_range
        said.append(Remark(f"values from {low:g} to {high:g} are read as black to white (data.value_range)"))
    if transparent := sum(reading.transparent for reading in readings):
        said.append(
            Remark(
                f"{transparent:,} pictures have transparent parts, which are laid on {rule.ground} (data.ground)", True
            )
        )
    if several := sum(reading.several for reading in readings):
        said.append(Remark(f"{several:,} files hold several pictures, of which the first is read", True))
    return [*said, *level_remarks(images[0])]


def range_remark(what: str, found: Extremes, rule: PixelRule, dtype: npt.DTypeLike) -> Remark:
    """That values were scaled, and how much of their range was used; a warning where some are cut off."""
    low, high = rule.range_of(np.dtype(dtype))
    text = (
        f"{what}: values from {found.low:g} to {found.high:g}, of which {low:g} is read as black and {high:g} as white"
    )
    if rule.exceeded(found, np.dtype(dtype)):
        return Remark(f"{text}; those beyond are cut off: set data.value_range=[LOW,HIGH] to keep them", True)
    return Remark(f"{text} (data.value_range)")


def level_remarks(images: ByteArray) -> list[Remark]:
    """A note when the training images use only a small part of the 256 levels."""
    low, high = int(images.min()), int(images.max())
    if high - low >= FEW_LEVELS:
        return []
    return [
        Remark(
            f"the training images use only the levels {low} to {high} of 0 to 255; if that loses detail, set "
            "data.value_range=[LOW,HIGH], the values that are black and white",
            warning=True,
        )
    ]
