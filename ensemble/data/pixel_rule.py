"""How pictures become images of bytes: one rule for a whole data set, whatever a single picture holds.

    rule = PixelRule.chosen(Extremes(19, 2128, floats=False))     # whole numbers of 12 bits
    rule.to_bytes(values)                                         # 0 -> 0, 4095 -> 255

Bytes are taken as they are. Wider whole numbers span 0 to 2**b - 1, with the fewest bits b that hold every training
value; floats span 0 to 1. `data.value_range` says otherwise, for values of every kind. The rule is kept with the run,
so that a picture is read at prediction as one like it was read for training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ensemble.errors import DataError
from ensemble.types import ByteArray

Range = tuple[float, float]
Ground = Literal["white", "black", "contrast"]
Resize = Literal["crop", "pad", "squash"]
RESIZED: dict[Resize, str] = {
    "crop": "scaled until it covers the size, its middle cut out",
    "pad": "scaled until it fits into the size, in the middle, bars of the ground beside it",
    "squash": "height and width scaled each by itself",
}
BYTES: Range = (0.0, 255.0)
UNIT: Range = (0.0, 1.0)
SIXTEEN_BITS: Range = (0.0, 65535.0)  # of a wide picture where the training pictures had none
BITS = (8, 10, 12, 14, 16, 24, 32, 63)


@dataclass(frozen=True, slots=True)
class Extremes:
    """The smallest and the largest value of something. floats: they are fractions, not whole numbers."""

    low: float
    high: float
    floats: bool

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Extremes:
        """Those of an array, which must not be empty."""
        return cls(float(values.min()), float(values.max()), values.dtype.kind == "f")

    @classmethod
    def over(cls, several: Iterable[Extremes]) -> Extremes | None:
        """Those of several together; None of nothing."""
        found = list(several)
        if not found:
            return None
        return cls(min(e.low for e in found), max(e.high for e in found), found[0].floats)


@dataclass(frozen=True, slots=True)
class PixelRule:
    """What black and white are, what stands behind transparent pixels, and how a picture is brought to its size.

    value_range: of values of every kind, as data.value_range gives it; None where each kind has its own. wide_range: of
    whole numbers of more than 8 bits; None where training had none. ground: white, black, or contrast: black around
    light drawings and white around dark ones, for sets of characters, where polarity is found out afterwards. resize:
    as data.resize has it; see `pictures.fitted`. margin: pixels that a picture is larger on each side than the image cut out of its
    middle, as data.margin has it.
    """

    value_range: Range | None = None
    wide_range: Range | None = None
    ground: Ground = "white"
    resize: Resize = "crop"
    margin: int = 0

    def range_of(self, dtype: np.dtype[Any]) -> Range:
        """The values that become 0 and 255."""
        if self.value_range is not None:
            return self.value_range
        if dtype.kind == "f" or dtype.kind == "b":
            return UNIT
        return BYTES if dtype == np.uint8 else self.wide_range or SIXTEEN_BITS

    def to_bytes(self, values: npt.NDArray[Any]) -> ByteArray:
        """The values as uint8 of the same shape: scaled, cut off at the ends of the range, rounded."""
        low, high = self.range_of(values.dtype)
        if values.dtype == np.uint8 and (low, high) == BYTES:
            return values
        if values.dtype.kind == "f" and (low, high) == UNIT:  # in its own precision, as ever
            return (values * 255).round().clip(0, 255).astype(np.uint8)
        unit = (values.astype(np.float64) - low) / (high - low)
        levels: ByteArray = (unit.clip(0, 1) * 255).round().astype(np.uint8)
        return levels

    def exceeded(self, found: Extremes, dtype: np.dtype[Any]) -> bool:
        """True when values lie outside the range and are cut off."""
        low, high = self.range_of(dtype)
        return found.low < low or found.high > high

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_json`. Cropping without a margin is left out, which earlier versions always did."""
        record = {"value_range": self.value_range, "wide_range": self.wide_range, "ground": self.ground}
        more = {"resize": self.resize, "margin": self.margin}
        usual = {"resize": "crop", "margin": 0}
        return {**record, **{key: value for key, value in more.items() if value != usual[key]}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PixelRule:
        """The rule that a run has kept. Raises ValueError for a record that is none."""
        try:
            pair = [record[name] and (float(record[name][0]), float(record[name][1])) for name in _RANGES]
            ground, resize = record["ground"], record.get("resize", "crop")
            margin = int(record.get("margin", 0))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"not a rule of reading pixels: {record!r}") from error
        known = ground in get_args(Ground) and resize in get_args(Resize)
        if not known or margin < 0 or any(given and given[0] >= given[1] for given in pair):
            raise ValueError(f"not a rule of reading pixels: {record!r}")
        return cls(pair[0] or None, pair[1] or None, ground, resize, margin)


_RANGES = ("value_range", "wide_range")


def whole_range(found: Extremes, where: str) -> Range:
    """0 to 2**b - 1 with the fewest usual bits b that hold the values. Raises DataError for negative ones."""
    if found.low < 0:
        raise DataError(
            f"{where}: found whole numbers from {found.low:g} to {found.high:g}; expected none below 0, or "
            "data.value_range=[LOW,HIGH], the values that are black and white"
        )
    return 0.0, float(2 ** next(bits for bits in BITS if found.high < 2**bits) - 1)


def check_floats(found: Extremes, value_range: Range | None, where: str) -> None:
    """Raises DataError for floats outside [0, 1], or not finite, without a data.value_range."""
    finite = np.isfinite(found.low) and np.isfinite(found.high)
    if finite and (value_range is not None or (found.low >= 0 and found.high <= 1)):
        return
    what = f"floats from {found.low:g} to {found.high:g}" if finite else "NaN or infinite values"
    raise DataError(
        f"{where}: found {what}; expected [0, 1], or bytes (uint8) in 0..255"
        + (", or data.value_range=[LOW,HIGH], the values that are black and white" if finite else "")
    )
