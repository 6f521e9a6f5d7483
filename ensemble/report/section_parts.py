"""What the page and the tables for papers need of sections: each number with the key of evaluation.json that it is from."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from markupsafe import Markup, escape

from ensemble.evaluation.paper_table import PaperTable
from ensemble.evaluation.records import Evaluation, plain_record
from ensemble.evaluation.shown_sections import ShownSection, further_sections, shown_sections
from ensemble.evaluation.views import Cell, Note, SectionTable
from ensemble.outside.names import shown
from ensemble.report.numbers import Numbers


def figure_name(section: ShownSection) -> str:
    """What the files of its figure are called: after it, and told apart from those of our own."""
    return section.name if section.own_place else f"section_{section.name}"


def page_section(section: ShownSection, numbers: Numbers) -> dict[str, Any]:
    """A section as the template needs it."""
    return {
        "title": shown(section.title),
        "lines": section.lines,
        "note": _note(section.note, section.place, numbers),
        "table": None if section.table is None else _table(section.table, section.place, numbers),
        "figure": figure_name(section),
    }


def _note(note: Note, place: str, numbers: Numbers) -> Markup:
    return Markup("").join(_part(part, place, numbers) for part in note)


def _part(part: str | Cell, place: str, numbers: Numbers) -> Markup:
    if isinstance(part, Cell):
        written: Markup = getattr(numbers, part.form)(f"{place}.{part.key}")
        return written
    return escape(part)


def _table(table: SectionTable, place: str, numbers: Numbers) -> dict[str, Any]:
    columns = [(column, "") if isinstance(column, str) else column for column in table.columns]
    rows = [[_part(cell, place, numbers) for cell in row] for row in table.rows]
    return {"title": shown(table.title), "columns": columns, "rows": rows, "note": table.note}


def section_tables(evaluation: Evaluation) -> Iterator[PaperTable]:
    """Those that sections give for papers, and of sections without a place of their own that of the page, as CSV with all digits."""
    for section in shown_sections(evaluation):
        for table in section.paper_tables:
            yield table if section.own_place else replace(table, name=f"{figure_name(section)}-{table.name}")
    for section in further_sections(evaluation):
        if section.table is None:
            continue
        record = plain_record(section.name, evaluation.sections[section.name])
        columns = tuple(column if isinstance(column, str) else column[0] for column in section.table.columns)
        wide = max((len(columns), *(len(row) for row in section.table.rows)))
        columns += ("",) * (wide - len(columns))
        rows = tuple(
            tuple(cell.text(record) if isinstance(cell, Cell) else cell for cell in (*row, *("",) * (wide - len(row))))
            for row in section.table.rows
        )
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in section.table.rows:
            writer.writerow([_exact(cell, record) for cell in row])
        yield PaperTable(figure_name(section), section.table.title or section.title, columns, rows, text.getvalue())


def _exact(cell: str | Cell, record: Any) -> str | float:
    if isinstance(cell, str):
        return cell
    value = cell.value(record)
    return "" if math.isnan(value) else value
