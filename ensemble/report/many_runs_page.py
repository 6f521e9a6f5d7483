"""The page about many runs: its table, its figures, and what is said below them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ensemble.outside.names import shown
from ensemble.report import many_runs_plots, wording
from ensemble.report.figures import Plot, RenderedFigure, render
from ensemble.report.many_runs import Overview, RunLine
from ensemble.report.numbers import Numbers
from ensemble.storage.identity import flat

KEYS_SHOWN = 4  # columns for keys in which the runs differ
VALUE_SIGNS = 40
# Said once for all runs that agree on them.
_COMMON = ("method.name", "model.name", "data.name", "num_members", "training.epochs")

PLOTS = (
    Plot(
        "keys", "What goes with a low error",
        "A line for each run, from what it was set to, to its validation error; bold: the quarter with the lowest validation error, and equals of the last of them.",
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


def overview_figures(overview: Overview) -> list[RenderedFigure]:
    """The figures that these runs have the facts for."""
    if len(_judged_on(overview)) > 1:
        return []  # a figure would compare what cannot be compared
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
    return shown(many_runs_plots.as_text(value), VALUE_SIGNS)


def _notes(overview: Overview) -> list[str]:
    notes = [shown(line, 400) for line in overview.left_out]
    if rest := list(overview.changed)[KEYS_SHOWN:]:
        notes.append(f"The runs differ in {wording.plural(len(rest), 'further key')}: {shown(', '.join(rest), 600)}.")
    if not overview.changed:
        notes.append("The runs differ in no key of their configurations that says what is trained.")
    if len(judged := _judged_on(overview)) > 1:
        sets = ", ".join(f"{shown(name)} ({rows:,} test images)" for name, rows in judged)
        notes.append(f"These runs are judged on different images: {sets}. Their errors cannot be compared.")
    return notes


def _judged_on(overview: Overview) -> list[tuple[str, int]]:
    """The data sets, each with its number of test images."""
    return sorted({(line.evaluation.dataset, line.evaluation.test_rows) for line in overview.lines})


def _whiskers(lines: Sequence[RunLine]) -> list[tuple[float, float, float]]:
    """Each run's interval and error as positions in [0, 100] on one scale."""
    rows = [(row.lower, row.test_error, row.upper) for row in (line.evaluation.headline for line in lines)]
    low, high = min(min(row) for row in rows), max(max(row) for row in rows)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / span, 1)

    return [(place(lower), place(error), place(upper)) for lower, error, upper in rows]
