"""A table of a run for papers and spreadsheets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperTable:
    """A table as LaTeX shows it, and as CSV text. None among the rows is a rule between groups; bold: which rows stand out."""

    name: str
    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...] | None, ...]
    csv: str
    bold: frozenset[int] = frozenset()
