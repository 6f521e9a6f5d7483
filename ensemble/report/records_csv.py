"""Records as CSV, for spreadsheets: every field of every one, rates as fractions with all digits.

records_csv(SizePoint, evaluation.size_curve)
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


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
