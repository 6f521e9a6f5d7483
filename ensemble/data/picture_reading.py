"""Reads the pictures of a data set by one rule, in threads.

    reader = PictureReader(config)
    with threads("reading pictures", len(rows)) as every:
        reading = reader.read(decode, rows, InMemory(shape), every)   # bytes are ready; wider values wait for the rule
    rule = reader.rule(extremes, "flowers")                # chosen from the training pictures, or by data.value_range
    reader.read_wide(decode, reading, rule)

The range of wider values is known only when all training pictures have been seen, so those are decoded twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ensemble.config.data import OwnPictures
from ensemble.data.account import Remark
from ensemble.data.pictures import Decoded, fitted, plain, quiet_decoding
from ensemble.data.pixel_rule import Extremes, PixelRule, check_floats, whole_range
from ensemble.errors import DataError
from ensemble.outside.long_work import working
from ensemble.types import ByteArray

COLOURS = 3  # channels without data.channels
WAITING = 16  # pictures that are fetched at a time
GROUP = 16  # pictures that a thread decodes before it asks for more
LEVEL_ROWS = 64  # images whose levels are looked at a time
FEW_LEVELS = 48  # of 256: less than so many say that most of the range is empty

T = TypeVar("T")
R = TypeVar("R")
# What is noted of a picture: what is wrong with it, or [smallest and largest value where it has more than 8 bits, whether these
# are floats], whether it is transparent, whether its file holds several.
Fact = str | list[Any]


Decode = Callable[[int], Decoded]  # the picture of a row; raises DataError


class Room(Protocol):
    """Where decoded images are kept. facts: of the rows that are there, the first ones. shard_rows: rows at a time."""

    images_NCHW: ByteArray
    facts: list[Any]
    shard_rows: int

    def shard(self, rows: int) -> ByteArray:
        """Where the next rows are decoded to."""
        ...

    def add(self, facts: Sequence[Fact]) -> None:
        """The rows of the shard are complete."""
        ...

    def renew(self, facts: Mapping[int, Fact]) -> None:
        """Rows that were there have been filled anew."""
        ...

    def close(self) -> None:
        """All rows are."""
        ...


class InMemory:
    """Images in memory, for this process."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.images_NCHW: ByteArray = np.empty(shape, np.uint8)
        self.facts: list[Any] = []
        self.shard_rows = max(1, shape[0])

    def shard(self, rows: int) -> ByteArray:
        """See Room."""
        return self.images_NCHW[len(self.facts) : len(self.facts) + rows]

    def add(self, facts: Sequence[Fact]) -> None:
        """See Room."""
        self.facts += facts

    def renew(self, facts: Mapping[int, Fact]) -> None:
        """See Room."""

    def close(self) -> None:
        """See Room."""


@dataclass(frozen=True, eq=False)
class Reading:
    """Pictures as first read. images: those of all `rows` of a listing; places of wide and faulty ones are not filled yet.

    wide: row -> smallest and largest value of a picture with more than 8 bits. faults: row -> what is wrong.
    transparent, several: how many have transparent parts, and how many files hold more than one picture.
    """

    rows: Sequence[int]
    images_NCHW: ByteArray
    wide: dict[int, Extremes]
    faults: dict[int, str]
    transparent: int
    several: int


class PictureReader:
    """Pictures of data.image_size and its data.margin with data.channels, by the rule that the configuration and training give."""

    def __init__(self, config: OwnPictures) -> None:
        self._channels = config.channels or COLOURS
        height, width = config.height_width
        self._size = height + 2 * config.kept_margin, width + 2 * config.kept_margin
        ground, resize = config.ground or "white", config.resize or "crop"
        self._given = PixelRule(config.value_range, ground=ground, resize=resize, margin=config.kept_margin)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image, with its margin."""
        return self._channels, *self._size

    @property
    def told(self) -> list[Any]:
        """All that decides how a picture becomes an image, besides the pixel rule, as JSON values."""
        return [*self.image_shape, self._given.resize]

    def read(self, decode: Decode, rows: Sequence[int], room: Room, every: Every) -> Reading:
        """Decode all pictures that the room does not have yet; none of them stops the others. every: see `threads`."""

        def read_into(images: ByteArray, first: int, place: int) -> Fact:
            try:
                decoded = decode(rows[first + place])
                if decoded.extremes is None:
                    self._fit(decoded, self._given, images[place])
                elif decoded.extremes.floats:  # wide ones wait for the rule
                    check_floats(decoded.extremes, self._given.value_range, decoded.name)
                extremes = decoded.extremes and [decoded.extremes.low, decoded.extremes.high, decoded.extremes.floats]
                return [extremes, decoded.transparent, decoded.frames > 1]
            except DataError as error:
                return str(error)

        known = len(room.facts)
        faulty = [
            place for place, fact in enumerate(room.facts) if isinstance(fact, str)
        ]  # what was wrong may have passed
        if mended := {
            place: fact
            for place in faulty
            if not isinstance(fact := read_into(room.images_NCHW[place : place + 1], place, 0), str)
        }:
            room.renew(mended)
        if known < len(rows):
            try:
                for start in range(known, len(rows), room.shard_rows):
                    count = min(room.shard_rows, len(rows) - start)
                    room.add(every(partial(read_into, room.shard(count), start), range(count)))
            finally:
                room.close()
        seen = [fact for fact in room.facts if not isinstance(fact, str)]
        return Reading(
            rows=rows,
            images_NCHW=room.images_NCHW,
            wide={
                row: Extremes(*fact[0])
                for row, fact in zip(rows, room.facts, strict=True)
                if not isinstance(fact, str) and fact[0]
            },
            faults={row: fact for row, fact in zip(rows, room.facts, strict=True) if isinstance(fact, str)},
            transparent=sum(fact[1] for fact in seen),
            several=sum(fact[2] for fact in seen),
        )

    def rule(self, training: Iterable[Extremes | None], where: str) -> PixelRule:
        """The rule for all pictures: as configured, with the range of wide whole numbers that training has."""
        whole = Extremes.over(found for found in training if found is not None and not found.floats)
        if self._given.value_range is not None or whole is None:
            return self._given
        return replace(self._given, wide_range=whole_range(whole, f"{where}: pictures of more than 8 bits"))

    def read_wide(self, decode: Decode, reading: Reading, rule: PixelRule) -> None:
        """Fill the places that waited for the rule."""

        def second(place: int) -> None:
            self._fit(decode(reading.rows[place]), rule, reading.images_NCHW[place])

        places = [place for place, row in enumerate(reading.rows) if row in reading.wide]
        in_threads(second, places, "reading pictures of more than 8 bits")

    def _fit(self, decoded: Decoded, rule: PixelRule, image_CHW: ByteArray) -> None:
        fitted(plain(decoded, rule), self._channels, self._size, replace(rule, margin=0), out=image_CHW)


class Every(Protocol):
    """A function of every item, in their order."""

    def __call__(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """All results."""
        ...


@contextmanager
def threads(what: str, total: int, waiting: bool = False) -> Iterator[Every]:
    """Inside, a function of every item, in their order. Pillow decodes outside the interpreter's lock.

    what: is said of it, if it takes long. total: items in all. waiting: most of the time of each goes by waiting.
    """
    workers = max(os.cpu_count() or 1, WAITING if waiting else 1)
    with quiet_decoding(), working(what, total) as done, ThreadPoolExecutor(max_workers=workers) as pool:

        def every(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
            def and_count(some: Sequence[T]) -> list[R]:
                results = []
                for item in some:
                    results.append(function(item))
                    done()
                return results

            # Handed out in groups, since a thread costs a small picture's time to be woken; of those waited for one by one.
            group = 1 if waiting else max(1, min(GROUP, len(items) // (4 * workers)))
            groups = [items[start : start + group] for start in range(0, len(items), group)]
            return [result for results in pool.map(and_count, groups) for result in results]

        yield every


def in_threads(function: Callable[[T], R], items: Sequence[T], what: str) -> list[R]:
    """The function of every item, in their order; see `threads`."""
    with threads(what, len(items)) as every:
        return every(function, items)


def pixel_remarks(rule: PixelRule, readings: Sequence[Reading]) -> list[Remark]:
    """How the values were read, where that is no matter of course."""
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
    return said


def range_remark(what: str, found: Extremes, rule: PixelRule, dtype: npt.DTypeLike) -> Remark:
    """That values were scaled, and how much of their range was used; a warning where some are cut off."""
    low, high = rule.range_of(np.dtype(dtype))
    text = (
        f"{what}: values from {found.low:g} to {found.high:g}, of which {low:g} is read as black and {high:g} as white"
    )
    if rule.exceeded(found, np.dtype(dtype)):
        return Remark(f"{text}; those beyond are cut off: set data.value_range=[LOW,HIGH] to keep them", True)
    return Remark(f"{text} (data.value_range)")


def levels_of(images_NCHW: ByteArray) -> tuple[int, int]:
    """The darkest and the brightest level, of as many images as it takes to see that they are not few (FEW_LEVELS), or of all."""
    low, high = 255, 0
    for start in range(0, len(images_NCHW), LEVEL_ROWS):
        block = images_NCHW[start : start + LEVEL_ROWS]
        low, high = min(low, int(block.min())), max(high, int(block.max()))
        if high - low >= FEW_LEVELS:
            break
    return low, high


def level_remarks(low: int, high: int) -> list[Remark]:
    """A note when the training images, from their darkest to their brightest level, use only a small part of the 256."""
    if high - low >= FEW_LEVELS:
        return []
    return [
        Remark(
            f"the images use only the levels {low} to {high} of 0 to 255; if that loses detail, set "
            "data.value_range=[LOW,HIGH], the values that are black and white",
            warning=True,
        )
    ]
