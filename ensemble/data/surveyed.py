"""What a first look says of pictures, for a first configuration: their size, whether they are grey, what is odd about them.

look = look_at([partial(decode, file) for file in some])
look.shape             # (3, 64, 64)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ensemble.data.picture_reading import in_threads
from ensemble.data.pictures import Decoded, quiet_decoding
from ensemble.errors import DataError

SAMPLE = 48  # pictures that are opened
SIDES = (64, 48, 32, 28, 24, 16, 8, 4)  # of which the largest is proposed that pictures have
ALIKE = 0.05  # pictures whose proportions differ by no more than this share are of one shape
NEARLY_SQUARE = 1.15  # longer side over shorter one
MOST_PIXELS = 256  # of a longer side that is proposed
UNEVEN = 3  # how many times as many pictures the largest class has when that is told
_GREY_MODES = ("1", "L", "LA", "I", "F")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Survey:
    """data: keys of the data section, as YAML has them. image_shape: (C, H, W). flippable: a mirrored image may keep its class. test_images: None where no test part is given."""

    name: str
    data: dict[str, str | int | list[int]]
    image_shape: tuple[int, int, int]
    num_classes: int
    train_images: int
    test_images: int | None
    flippable: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """shape: (C, H, W) to propose. notes: a sentence each."""

    shape: tuple[int, int, int]
    notes: tuple[str, ...]

    @property
    def keys(self) -> dict[str, int | list[int]]:
        """The same as keys of a data section."""
        channels, height, width = self.shape
        return {"image_size": height if height == width else [height, width], "channels": channels}


def look_at(pictures: Sequence[Callable[[], Decoded]]) -> Look:
    """Open pictures. Raises DataError where none of them can be read."""

    def attempt(picture: Callable[[], Decoded]) -> Decoded | DataError:
        try:
            return picture()
        except DataError as error:
            return error

    with quiet_decoding():
        found = in_threads(attempt, pictures, "looking at pictures")
    good = [each for each in found if isinstance(each, Decoded)]
    bad = [each for each in found if isinstance(each, DataError)]
    if not good:
        raise DataError(
            f"none of {len(found)} pictures looked at could be read; repair or remove them. The first: {bad[0]}"
        )
    notes = []
    if bad:
        notes.append(
            f"{len(bad)} of {len(found)} pictures looked at cannot be read: data.on_bad_image says what happens then"
        )
    height, width = _size(good)
    if not all(_alike(_ratio(each), width / height) for each in good):
        notes.append(
            "of pictures of other proportions the middle is cut out; data.resize: pad keeps all of them between bars, squash distorts them"
        )
    return Look((1 if all(map(_is_grey, good)) else 3, height, width), tuple(notes))


def uneven(counts: Sequence[int]) -> tuple[str, ...]:
    """A note where some classes have many more pictures than others; counts: of the classes."""
    rare, most = min(counts), max(counts)
    told = most >= UNEVEN * max(1, rare)
    return (f"classes are of unequal size: {rare:,} to {most:,} pictures",) if told else ()


def spread(items: Sequence[_T], most: int) -> list[_T]:
    """So many of them at equal distances."""
    if len(items) <= most:
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]


def _size(opened: Sequence[Decoded]) -> tuple[int, int]:
    """Height and width to propose: of pictures that are all of one shape, and no square, theirs; else equal.

    The shorter side is the largest of SIDES that pictures have, the longer one a multiple of 4.
    """
    side = int(statistics.median(min(each.picture.size) for each in opened))
    shorter = next((proposed for proposed in SIDES if proposed <= side), SIDES[-1])
    ratio = statistics.median(map(_ratio, opened))
    if not all(_alike(_ratio(each), ratio) for each in opened) or 1 / NEARLY_SQUARE < ratio < NEARLY_SQUARE:
        return shorter, shorter
    longer = min(round(shorter * max(ratio, 1 / ratio) / 4) * 4, MOST_PIXELS)
    return (shorter, longer) if ratio > 1 else (longer, shorter)


def _ratio(decoded: Decoded) -> float:
    """Width over height."""
    width, height = decoded.picture.size
    return width / height


def _alike(ratio: float, other: float) -> bool:
    return abs(math.log(ratio / other)) <= ALIKE


def _is_grey(decoded: Decoded) -> bool:
    """By its kind of file, or since its three channels are the same."""
    if decoded.picture.mode in _GREY_MODES or decoded.picture.mode.startswith("I;"):
        return True
    values_HWC = np.asarray(decoded.picture.convert("RGB"))
    return bool((values_HWC == values_HWC[..., :1]).all())
