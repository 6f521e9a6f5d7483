"""Probabilities in a .csv of another program: columns p0,p1,... and, if wanted, label; a line for each test image."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from ensemble.errors import DataError
from ensemble.outside.names import shown
from ensemble.types import DoubleArray

COLUMNS = "the columns p0,p1,... and, if wanted, label"


def read_probabilities(path: Path, content: bytes) -> tuple[DoubleArray, DoubleArray | None]:
    """Probabilities [N, K] and labels [N], or None for these. Raises DataError naming line, column and value."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: found bytes that are no UTF-8 (at byte {error.start:,}); save it as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    lines: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            values = [value.strip() for value in row]
            if any(values) and not (lines and values[0].startswith("#")):
                lines.append((reader.line_num, values))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num:,}: cannot be read as a table: {error}; correct it") from error
    header = lines[0][1] if lines else []
    wanted = [f"p{k}" for k in range(len(header) - ("label" in header))]
    if len(wanted) < 2 or sorted(header) != sorted([*wanted, *(["label"] if "label" in header else [])]):
        raise DataError(
            f"{path}: the first line is {shown(','.join(header), 80)}; expected {COLUMNS}{_separated(header)}"
        )
    if not lines[1:]:
        raise DataError(f"{path}: found no rows below the first line; expected one row of probabilities per test image")
    table = np.array([_numbers(path, number, header, values) for number, values in lines[1:]], np.float64)
    probs = table[:, [header.index(name) for name in wanted]]
    return probs, table[:, header.index("label")] if "label" in header else None


def _separated(header: list[str]) -> str:
    mark = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    return f"; they seem to be separated by {mark!r}: save it with commas" if mark else ""


def _numbers(path: Path, line: int, header: list[str], values: list[str]) -> list[float]:
    if len(values) != len(header):
        raise DataError(
            f"{path}: line {line:,} has {len(values)} values, the first line {len(header)}; expected as many"
        )
    numbers = []
    for name, value in zip(header, values, strict=True):
        try:
            numbers.append(float(value))
        except ValueError as error:
            found = f"found {shown(value)!r}" if value else "found nothing"
            hint = "; write a point for the decimal comma" if value.count(",") == 1 else ""
            raise DataError(f"{path}: line {line:,}, column {name}: {found}; expected a number{hint}") from error
    return numbers
