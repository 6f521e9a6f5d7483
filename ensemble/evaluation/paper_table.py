"""A table of a judgement for papers and spreadsheets, as data: what it shows, and its records as CSV with all digits.

PaperTable("classes", "Test error by class.", ("class", "error %"), rows, records_csv(ClassResult, classes))
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class PaperTable:
    """A table as LaTeX shows it, and as CSV text. None among the rows is a rule between groups; bold: which rows stand out."""

    name: str
    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...] | None, ...]
    csv: str
    bold: frozenset[int] = frozenset()


def records_csv(
    kind: type[DataclassInstance], records: Sequence[DataclassInstance], more: Mapping[str, Sequence[str]] | None = None
) -> str:
    """A header with the fields of `kind`, then a line for each record; what does not exist is empty. more: further columns."""
    text, names, more = io.StringIO(), [field.name for field in fields(kind)], more or {}
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *more])
    for place, record in enumerate(records):
        values = [getattr(record, name) for name in names]
        plain = ["" if isinstance(value, float) and math.isnan(value) else value for value in values]
        writer.writerow([*plain, *(column[place] for column in more.values())])
    return text.getvalue()
