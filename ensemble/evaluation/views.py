"""How a section wants its figures shown, as data: tables and drawings that the report makes in its own looks.

    SectionTable(("class", "margin"), (("cat", Cell("by_class.0", "loss")),))
    SectionFigure("Margins", "margin", "share of test images, %", (Curve(x, y, "vote"),))

A number in a table is named by its place in the section's record, so that the page can show where it is from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ensemble.evaluation import written

Form = Literal["percent", "points", "loss", "p", "count", "one_digit", "short", "seconds"]
# percent of a rate, percentage points of a difference, four digits, a p-value, a count, a mean of counts, four significant digits
FORMS: Mapping[Form, Callable[[float], str]] = {
    "percent": written.percent, "points": written.points, "loss": written.loss, "p": written.p_value, "count": written.count,
    "one_digit": lambda value: written.NONE if math.isnan(value) else f"{value:.1f}",
    "short": lambda value: written.NONE if math.isnan(value) else f"{value:.4g}", "seconds": written.seconds,
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A number of the record. key: its place in the record's JSON form, such as `bins.0.count`; form: how it is written."""

    key: str
    form: Form = "loss"

    def value(self, record: Any) -> float:
        """It, in the JSON form of a record; NaN where it does not exist. Raises KeyError, IndexError, TypeError for no such place."""
        for part in self.key.split("."):
            record = record[int(part)] if isinstance(record, list) else record[part]
        return math.nan if record is None else float(record)

    def text(self, record: Any) -> str:
        """It, as it is written."""
        return FORMS[self.form](self.value(record))


@dataclass(frozen=True)
class SectionTable:
    """A table. columns: headings, none for a table without; one with a hint is a pair of both. rows: the first cell names its row.

    note: what stands below it.
    """

    columns: tuple[str | tuple[str, str], ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """One series of points. kind: a line, dots, bars, a band (y is its lower end, upper the other) or a guide to compare with.

    who: the colour; the vote, single members, or another series. sizes: of dots, areas in points squared; width: of a line, in points.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    label: str = ""
    kind: Literal["line", "dots", "bars", "band", "guide"] = "line"
    who: Literal["vote", "single", "third", "fourth"] = "vote"
    upper: tuple[float, ...] = ()
    sizes: tuple[float, ...] = ()
    width: float | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y), *(len(more) for more in (self.upper, self.sizes) if more)}
        assert len(lengths) == 1, f"curve {self.label!r}: {len(self.x)} x, but {len(self.y)} y"
        assert self.kind != "band" or len(self.upper) == len(self.x), f"band {self.label!r}: needs upper"


@dataclass(frozen=True)
class SectionFigure:
    """A drawing of curves, in their order. x_limits, y_limits: what the axes show, None where the points decide.

    ticks: names for x = 0, 1, 2 ... instead of numbers.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    caption: str = ""
    x_limits: tuple[float | None, float | None] = (None, None)
    y_limits: tuple[float | None, float | None] = (None, None)
    ticks: tuple[str, ...] = ()
    legend: str = "best"


Note = tuple[str | Cell, ...]  # sentences with numbers of the record between the words
