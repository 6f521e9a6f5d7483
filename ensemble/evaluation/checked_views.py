"""What sections show, looked at before anybody shows it: sentences, notes, tables and figures of a user's may be anything.

Each function gives what it was handed in the form that `views` promises (tuples, visible texts, cells that the record has), or
raises TypeError, ValueError or LookupError with what is wrong with it. plain: the record's JSON form; None for a section of
the package's own, whose cells its tests look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ensemble.evaluation.paper_table import PaperTable
from ensemble.evaluation.views import Cell, Note, SectionFigure, SectionTable
from ensemble.outside.names import shown

LONGEST = 4096  # signs of a line


def checked_sentences(lines: Iterable[Any]) -> tuple[str, ...]:
    """Each on one visible line."""
    return tuple(_visible(str(line)) for line in _several(lines, "sentences"))


def checked_note(note: Note, plain: Any) -> Note:
    """Texts, and cells that the record has."""
    return tuple(_cell(part, plain) for part in _several(note, "texts and cells"))


def checked_table(table: SectionTable | None, plain: Any) -> SectionTable | None:
    """A table of such."""
    if table is None:
        return None
    if not isinstance(table, SectionTable):
        raise TypeError(f"expected a SectionTable, found {type(table).__name__}")
    return replace(
        table,
        columns=tuple(_column(column) for column in _several(table.columns, "columns")),
        rows=tuple(checked_note(row, plain) for row in _several(table.rows, "rows")),
        title=_text(table.title),
        note=_text(table.note),
    )


def checked_paper_tables(tables: Iterable[Any]) -> tuple[PaperTable, ...]:
    """Tables of texts whose names may be those of files, each its own."""
    found = tuple(_paper_table(table) for table in _several(tables, "paper tables"))
    names = [table.name for table in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"paper tables {', '.join(twice)}: two are called so; give each a name of its own")
    return found


def checked_figure(figure: SectionFigure | None) -> SectionFigure | None:
    """A figure of numbers."""
    if figure is not None and not isinstance(figure, SectionFigure):
        raise TypeError(f"expected a SectionFigure, found {type(figure).__name__}")
    for curve in () if figure is None else figure.curves:
        for value in (*curve.x, *curve.y, *curve.upper, *curve.sizes):
            float(value)
    return figure


def _paper_table(table: Any) -> PaperTable:
    if not isinstance(table, PaperTable):
        raise TypeError(f"expected a PaperTable, found {type(table).__name__}")
    if not (isinstance(table.name, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,39}", table.name)):
        raise ValueError(f'paper table {table.name!r}: expected a name such as "by_class"')
    headers = tuple(_text(header) for header in _several(table.headers, "headers"))
    rows = tuple(
        None if row is None else tuple(_text(cell) for cell in _several(row, "cells"))
        for row in _several(table.rows, "rows")
    )
    for number, row in enumerate(rows):
        if row is not None and len(row) != len(headers):
            raise ValueError(
                f"paper table {table.name}: row {number} has {len(row)} cells, expected {len(headers)}, one for each header"
            )
    return replace(
        table, caption=_text(table.caption), headers=headers, rows=rows, csv=_is_text(table.csv), bold=frozenset(map(int, table.bold))
    )  # fmt: skip


def _column(column: Any) -> str | tuple[str, str]:
    if isinstance(column, str):
        return _visible(column)
    name, hint = _several(column, "a heading, or a heading and its hint")
    return _text(name), _text(hint)


def _cell(part: Any, plain: Any) -> str | Cell:
    if not isinstance(part, Cell):
        return _text(part, "a text or a Cell")
    if plain is not None:
        part.text(plain)
    return part


def _several(value: Any, what: str) -> tuple[Any, ...]:
    """All of them; a text is not taken letter by letter."""
    if isinstance(value, str):
        raise TypeError(f"expected {what}, found one text: {value[:40]!r}")
    if not isinstance(value, Iterable):
        raise TypeError(f"expected {what}, found {value!r:.40} ({type(value).__name__})")
    return tuple(value)


def _text(value: Any, what: str = "a text") -> str:
    return _visible(_is_text(value, what))


def _is_text(value: Any, what: str = "a text") -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected {what}, found {value!r:.40} ({type(value).__name__})")
    return value


def _visible(text: str) -> str:
    return shown(text, LONGEST)
