"""Figures about several runs: their errors, what they were set to, and what they took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ensemble.evaluation.written import NONE
from ensemble.outside.names import shown
from ensemble.report.many_runs import Overview
from ensemble.report.plots import INK, MUTED, VOTE, Axes
from ensemble.report.set_plots import NAME_SIGNS, PARTS_UP_TO, pairs, places

AXES_UP_TO = 6  # upright axes of the figure of keys, besides that of the error
LOG_FROM = 20  # times the smallest value that the largest must be for a logarithmic axis
NO_VALUE = 0.15  # of the axis, below the numbers, for runs that have none
VALUES_UP_TO = 12  # more different texts than this have no room on an axis


def intervals(axes: Axes, overview: Overview) -> None:
    """Test error of every run's vote with its interval, lowest first, and of its single model."""
    ranked = sorted(overview.lines, key=lambda line: line.evaluation.headline.test_error)[:PARTS_UP_TO]
    rows = [line.evaluation.headline for line in ranked]
    ends_2R = 100 * np.array([[row.lower, row.upper] for row in rows]).T
    vote_R = 100 * np.array([row.test_error for row in rows])
    pairs(axes, vote_R, ends_2R, [100 * line.evaluation.verdict.member_error for line in ranked])
    axes.set_yticks(places(len(rows)), [shown(line.name, NAME_SIGNS) for line in ranked])
    cut = f"; the lowest {PARTS_UP_TO} of {len(overview.lines)}" if len(overview.lines) > PARTS_UP_TO else ""
    axes.set(xlabel=f"test error, %{cut}")


def drawable_keys(changed: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """The keys that get an axis of their own: those whose values are numbers, or few enough texts."""
    return [key for key, values in changed.items() if _numbers(values) or len(set(map(str, values))) <= VALUES_UP_TO][
        :AXES_UP_TO
    ]


def parallel_coordinates(axes: Axes, overview: Overview) -> None:
    """A line for each run over upright axes, one for every key in which the runs differ, the last for its validation error."""
    keys = drawable_keys(overview.changed)
    error_R = [100 * line.evaluation.headline.validation_error for line in overview.lines]
    scales = [_scale(overview.changed[key]) for key in keys] + [_scale(tuple(error_R))]
    height_RA = np.array([heights for heights, _ in scales]).T
    quarter = sorted(error_R)[max(0, math.ceil(len(error_R) / 4) - 1)]
    for heights, error in sorted(zip(height_RA, error_R, strict=True), key=lambda one: -one[1]):
        best = error <= quarter
        axes.plot(heights, color=VOTE if best else MUTED, linewidth=1.8 if best else 0.8, alpha=0.9 if best else 0.55)
    for place, (_, ticks) in enumerate(scales):
        axes.axvline(place, color=MUTED, linewidth=0.8)
        last = place == len(scales) - 1
        for height, text in ticks:
            axes.annotate(
                shown(text, 18), (place, height), xytext=(-4 if last else 4, 0), textcoords="offset points",
                va="center", ha="right" if last else "left", fontsize=8,
                bbox={"boxstyle": "square,pad=0.1", "linewidth": 0, "alpha": 0.75, "color": "#fefefe"},
            )  # fmt: skip
    titles = [key.removeprefix("training.") for key in keys] + ["validation error, %"]
    axes.set_xticks(range(len(titles)), titles)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(-0.1, len(titles) - 0.9), ylim=(-0.08, 1.08))


def error_by_seconds(axes: Axes, overview: Overview) -> None:
    """Test error against the seconds that the members of the vote were trained."""
    rows = [line.evaluation.headline for line in overview.lines]
    x, y = [row.train_seconds for row in rows], [100 * row.test_error for row in rows]
    axes.scatter(x, y, s=26, color=VOTE, alpha=0.8, linewidth=0)
    best = min(range(len(rows)), key=lambda place: y[place])
    axes.annotate(
        shown(overview.lines[best].name, NAME_SIGNS), (x[best], y[best]), xytext=(5, 5), textcoords="offset points",
        fontsize=8, color=INK,
    )  # fmt: skip
    if min(x) > 0 and max(x) / min(x) > LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g}")
    axes.set(xlabel="training time of the members, s", ylabel="test error, %")


def as_text(value: Any) -> str:
    """A value of a configuration as it is written in one; a dash for a key that a run does not have."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _numbers(values: Sequence[Any]) -> bool:
    """Whether all that have a value have a number."""
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)


def _scale(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights in [0, 1] of the values on one axis, and its ticks as heights and texts.

    Numbers stand at their distance, logarithms of them where they are all positive and far apart; other values, and
    keys that a run does not have, at equal distances in their order.
    """
    if _numbers(values):
        known = np.array([value for value in values if value is not None], np.float64)
        logarithmic = known.min() > 0 and known.max() / known.min() > LOG_FROM
        low, high = (np.log(end) if logarithmic else end for end in (known.min(), known.max()))
        foot = NO_VALUE if len(known) < len(values) else 0.0  # below the numbers stand runs without one

        def height(value: float) -> float:
            share = ((math.log(value) if logarithmic else value) - low) / ((high - low) or 1.0)
            return float(foot + (1 - foot) * share)

        different = np.unique(known)
        shown_at = different if len(different) <= 5 else np.quantile(different, [0, 0.5, 1], method="nearest")
        ticks = [(height(value), f"{value:.4g}") for value in shown_at] + ([(0.0, NONE)] if foot else [])
        return [0.0 if value is None else height(value) for value in values], ticks
    texts = [as_text(value) for value in values]
    order = list(dict.fromkeys(texts))
    step = 1 / max(1, len(order) - 1)
    return [order.index(text) * step for text in texts], [(place * step, text) for place, text in enumerate(order)]
