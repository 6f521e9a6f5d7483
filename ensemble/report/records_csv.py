"""Records as CSV, for spreadsheets: every field of every one, rates as fractions with all digits.

records_csv(SizePoint, evaluation.size_curve)
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def records_csv(kind: type[DataclassInstance], records: Sequence[DataclassInstance]) -> str:
    """A header with the fields of `kind`, then a line for each record; what does not exist is empty."""
    text, names = io.StringIO(), [field.name for field in fields(kind)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for record in records:
        values = [getattr(record, name) for name in names]
        writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in values])
    return text.getvalue()
