"""What every section of a judgement has to say, for terminal, page, card and dashboards alike.

    for section in shown_sections(evaluation):
        section.lines, section.table, section.numbers, ...

What a user's section cannot show is named in `problems`, and the rest is shown all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ensemble.evaluation.checked_views import (
    checked_figure,
    checked_note,
    checked_paper_tables,
    checked_sentences,
    checked_table,
)
from ensemble.evaluation.paper_table import PaperTable
from ensemble.evaluation.records import OWN_PLACES, REMEDY, Evaluation, plain_record
from ensemble.evaluation.section import About, EvaluationSection, section_named, sections_there
from ensemble.evaluation.views import Note, SectionFigure, SectionTable
from ensemble.outside.names import shown


@dataclass(frozen=True)
class ShownSection:
    """A section of one judgement. place: of its record in evaluation.json, dotted. own_place: it is shown where the page has room for it."""

    name: str
    title: str
    place: str
    own_place: bool
    lines: tuple[str, ...] = ()
    short_lines: tuple[str, ...] = ()
    note: Note = ()
    numbers: tuple[tuple[str, float], ...] = ()
    table: SectionTable | None = None
    paper_tables: tuple[PaperTable, ...] = ()
    figure: SectionFigure | None = None
    card_rows: tuple[tuple[str, str], ...] = ()
    limits: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def shown_sections(evaluation: Evaluation) -> tuple[ShownSection, ...]:
    """Those that the judgement has figures of, in their order."""
    names = [*sections_there()[0], *evaluation.sections]
    found = {name: evaluation.section(name) for name in dict.fromkeys(names)}
    return tuple(_shown(name, record, evaluation) for name, record in found.items() if record is not None)


def further_sections(evaluation: Evaluation) -> list[ShownSection]:
    """Those that have no place of their own: what the page shows together, and what is told to dashboards by their names."""
    return [one for one in shown_sections(evaluation) if not one.own_place]


def section_problems(evaluation: Evaluation) -> list[str]:
    """What of the sections cannot be shown here, in words."""
    return [problem for section in further_sections(evaluation) for problem in section.problems]


def section_lines(evaluation: Evaluation) -> list[str]:
    """What they say, one sentence each."""
    return [line for section in shown_sections(evaluation) for line in section.lines]


def short_section_lines(evaluation: Evaluation) -> list[str]:
    """What they say even in the shortest answer."""
    return [line for section in shown_sections(evaluation) for line in section.short_lines]


def section_numbers(evaluation: Evaluation) -> dict[str, float]:
    """The figures of sections without a place of their own, as dashboards call them; those that do not exist are left out."""
    return {
        f"{section.name}/{key}": value
        for section in further_sections(evaluation)
        for key, value in section.numbers
        if math.isfinite(value)
    }


def _shown(name: str, record: Any, evaluation: Evaluation) -> ShownSection:
    section, own = section_named(name), name in OWN_PLACES
    place = name if own else f"sections.{name}"
    if section is None:
        problem = f"section {name} is not registered here: its figures are in evaluation.json, and not shown"
        return ShownSection(name, name, place, own, problems=(problem,))
    if not own and isinstance(record, dict | list):
        problem = f"section {name}: what the run keeps of it does not fit its record here and is not shown; {REMEDY}"
        return ShownSection(name, section.title or name, place, own, problems=(problem,))
    about = About(len(evaluation.members), evaluation.test_rows, evaluation.class_names)
    asked = _Asked(section)
    plain = None if own else plain_record(name, record)
    return ShownSection(
        name,
        section.title or name,
        place,
        own,
        lines=asked.of("lines", lambda: checked_sentences(section.lines(record, about))),
        short_lines=asked.of("short_lines", lambda: checked_sentences(section.short_lines(record, about))),
        note=asked.of("note", lambda: checked_note(section.note(record), plain)),
        numbers=asked.of("numbers", lambda: tuple((str(k), float(v)) for k, v in section.numbers(record).items())),
        table=asked.of("table", lambda: checked_table(section.table(record), plain), None),
        paper_tables=asked.of("paper_tables", lambda: checked_paper_tables(section.paper_tables(record))),
        figure=asked.of("figure", lambda: checked_figure(section.figure(record)), None),
        card_rows=asked.of("card_rows", lambda: tuple((str(a), str(b)) for a, b in section.card_rows(record))),
        limits=asked.of("limits", lambda: checked_sentences(section.limits(record))),
        problems=tuple(asked.problems),
    )


class _Asked:
    """Asks a section, and remembers what it fails to answer. Errors of the package's own are raised."""

    def __init__(self, section: EvaluationSection[Any]) -> None:
        self._section, self.problems = section, list[str]()

    def of(self, what: str, ask: Callable[[], Any], nothing: Any = ()) -> Any:
        """Its answer, or nothing."""
        try:
            return ask()
        except Exception as error:
            if EvaluationSection.registry.is_own(self._section.name):
                raise
            why = shown(f"{type(error).__name__}: {error}", 300)
            self.problems.append(f"section {self._section.name}: its {what} cannot be shown: {why}")
            return nothing
