"""One page about many runs: what each came to, and only that of their configurations in which they differ.

    overview = read_overview([Path("runs/a"), Path("runs/b")])

Reads what a run keeps of its judgement and its configuration, no votes and no events, so 50 runs take seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ensemble.errors import StorageError
from ensemble.evaluation.records import Evaluation
from ensemble.outside.names import shown
from ensemble.report import many_runs_plots, wording
from ensemble.report.figures import Plot, RenderedFigure, render
from ensemble.report.numbers import Numbers
from ensemble.results.differing_keys import differing_settings
from ensemble.results.judging import stored_evaluation
from ensemble.storage import RunFolder
from ensemble.storage.identity import flat

KEYS_SHOWN = 6  # columns for keys in which the runs differ
VALUE_SIGNS = 40
# Said once for all runs that agree on them.
_COMMON = ("method.name", "model.name", "data.name", "num_members", "training.epochs")


@dataclass(frozen=True, eq=False)
class RunLine:
    """A run as one line. record: evaluation.json as it lies on disk, which every number is taken from."""

    name: str
    path: Path
    evaluation: Evaluation
    record: Mapping[str, Any]
    config: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Overview:
    """Several runs, and the keys in which they differ with the values of each. left_out: why others are not here."""

    lines: tuple[RunLine, ...]
    changed: Mapping[str, tuple[Any, ...]]
    left_out: tuple[str, ...] = ()


PLOTS = (
    Plot(
        "keys", "What goes with a low error",
        "A line for each run, from what it was set to, to its validation error; bold: the quarter with the lowest validation error.",
        many_runs_plots.parallel_coordinates, (11.0, 3.6),
    ),
    Plot(
        "runs", "Test error of every run",
        "Dots: the vote with its 95 % interval; diamonds: the run's single model that validation picks.",
        many_runs_plots.intervals, lines=lambda found: found.lines,
    ),
    Plot(
        "seconds", "Error and training time", "A dot for each run: the seconds its members were trained, all together.",
        many_runs_plots.error_by_seconds,
    ),
)  # fmt: skip


def read_line(path: Path) -> RunLine:
    """Read a judged run. Raises StorageError where there is none, it has not been judged yet, or one of these files is damaged."""
    folder = RunFolder.read(path)
    record, evaluation = stored_evaluation(folder)
    config = folder.config()
    return RunLine(str(config.get("name", path.name)), path, evaluation, record, config)


def read_overview(paths: Sequence[Path]) -> Overview:
    """The judged runs among these. Raises StorageError where there is none: what the first is missing."""
    lines: list[RunLine] = []
    errors: list[StorageError] = []
    for path in paths:
        try:
            lines.append(read_line(path))
        except StorageError as error:
            errors.append(error)
    if not lines:
        raise errors[0]
    changed = differing_settings([line.config for line in lines])
    return Overview(tuple(lines), changed, tuple(f"left out: {error}" for error in errors))


def overview_figures(overview: Overview) -> list[RenderedFigure]:
    """The figures that these runs have the facts for."""
    axes = many_runs_plots.drawable_keys(overview.changed)
    plots = [plot for plot in PLOTS if plot.name != "keys" or len(axes) > 1]
    names = [line.name for line in overview.lines]
    return render(plots, overview, "overview", names)


def overview_part(overview: Overview, figures: Sequence[RenderedFigure], links: Sequence[str]) -> dict[str, Any]:
    """What the template needs. links: where each run's own page is, empty where there is none."""
    lines = overview.lines
    keys = list(overview.changed)[:KEYS_SHOWN]
    headlines = [next(i for i, row in enumerate(line.evaluation.leaderboard) if row.headline) for line in lines]
    return {
        "alike": _alike(lines),
        "titles": [shown(key.removeprefix("training.")) for key in keys],
        "several_sizes": len({(len(line.evaluation.members), line.evaluation.degraded) for line in lines}) > 1
        or any(line.evaluation.degraded for line in lines),
        "lines": [
            {
                "name": shown(line.name), "evaluation": line.evaluation, "n": Numbers(line.record), "href": link,
                "headline": f"leaderboard.{headline}", "whisker": whisker,
                "cells": [_cell(overview.changed[key][place]) for key in keys],
            }
            for place, (line, headline, whisker, link) in enumerate(zip(lines, headlines, _whiskers(lines), links, strict=True))
        ],
        "notes": _notes(overview),
        "figures": [{"plot": one.plot, "svg": Markup(one.inline)} for one in figures],  # noqa: S704 - drawn by us
    }  # fmt: skip


def page_links(lines: Sequence[RunLine], folder: Path, page: str) -> list[str]:
    """Where the runs' own pages lie, seen from a page in `folder`; empty for a run that has none yet."""
    return [
        Path(os.path.relpath((line.path / page).resolve(), folder.resolve())).as_posix()
        if (line.path / page).is_file()
        else ""
        for line in lines
    ]


def _alike(lines: Sequence[RunLine]) -> list[tuple[str, str]]:
    configs = [flat(line.config) for line in lines]
    return [
        (key, shown(str(configs[0][key]), VALUE_SIGNS))
        for key in _COMMON
        if configs[0].get(key) is not None and all(config.get(key) == configs[0][key] for config in configs)
    ]


def _cell(value: Any) -> str:
    if value is None:
        return wording.NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    return shown(f"{value:g}" if isinstance(value, float) else str(value), VALUE_SIGNS)


def _notes(overview: Overview) -> list[str]:
    notes = [shown(line, 400) for line in overview.left_out]
    if rest := list(overview.changed)[KEYS_SHOWN:]:
        notes.append(f"The runs differ in {wording.plural(len(rest), 'further key')}: {shown(', '.join(rest), 600)}.")
    if not overview.changed:
        notes.append("The runs differ in no key of their configurations that says what is trained.")
    judged = {(line.evaluation.dataset, line.evaluation.test_rows) for line in overview.lines}
    if len(judged) > 1:
        sets = ", ".join(f"{shown(name)} ({rows:,} test images)" for name, rows in sorted(judged))
        notes.append(f"These runs are judged on different images: {sets}. Their errors cannot be compared.")
    return notes


def _whiskers(lines: Sequence[RunLine]) -> list[tuple[float, float, float]]:
    """Each run's interval and error as positions in [0, 100] on one scale."""
    rows = [(row.lower, row.test_error, row.upper) for row in (line.evaluation.headline for line in lines)]
    low, high = min(min(row) for row in rows), max(max(row) for row in rows)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / span, 1)

    return [(place(lower), place(error), place(upper)) for lower, error, upper in rows]
