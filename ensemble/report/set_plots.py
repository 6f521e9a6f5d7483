"""Figures of further sets: errors on shifted images part by part, and how unknown images are told from known ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.evaluation.set_records import ShiftedSet
from ensemble.outside.names import shown
from ensemble.report.plots import MUTED, SINGLE, VOTE, Axes
from ensemble.report.run_facts import RunFacts
from ensemble.types import DoubleArray, IntArray

PARTS_UP_TO = 40  # more parts than this leave no room for their names
NAME_SIGNS = 28


def shifted(axes: Axes, run: RunFacts) -> None:
    """Error of the vote, with its interval, and of the single model on every part of every shifted set; one line each."""
    rows = [(found, part) for found in run.evaluation.shifted for part in found.parts][:PARTS_UP_TO]
    vote = np.array([100 * part.vote_error for _, part in rows])
    ends = np.array([[100 * part.lower, 100 * part.upper] for _, part in rows]).T
    pairs(axes, vote, ends, [100 * part.member_error for _, part in rows])
    axes.axvline(100 * run.evaluation.headline.test_error, color=MUTED, linestyle=(0, (1, 2)), linewidth=1.2)
    several = len(run.evaluation.shifted) > 1
    axes.set_yticks(places(len(rows)), [_name(found, part.label, several) for found, part in rows])
    axes.set(xlabel="error, %")
    axes.set_xlim(left=0)


def _name(found: ShiftedSet, label: str, several: bool) -> str:
    if len(found.parts) == 1:
        return shown(found.name, NAME_SIGNS)
    return shown(f"{found.name}: {label}" if several else label, NAME_SIGNS)


def unknown(axes: Axes, run: RunFacts) -> None:
    """AUROC of every score on every set of unknown images, with its interval, and that of the single model."""
    rows = [(found, score) for found in run.evaluation.unknown for score in found.scores][:PARTS_UP_TO]
    area = np.array([score.auroc for _, score in rows])
    ends = np.array([[score.lower, score.upper] for _, score in rows]).T
    pairs(axes, area, ends, [score.member_auroc for _, score in rows])
    axes.set_yticks(places(len(rows)), [f"{shown(found.name, NAME_SIGNS)}: {score.score}" for found, score in rows])
    axes.set(xlabel="AUROC")
    axes.set_xlim(right=1)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:.4g}")


def pairs(axes: Axes, vote_R: DoubleArray, ends_2R: DoubleArray, single_R: Sequence[float]) -> None:
    """A line for each value: the vote's with its interval and the single model's."""
    places_R = places(len(vote_R))
    reach_2R = np.nan_to_num(np.maximum(0, [vote_R - ends_2R[0], ends_2R[1] - vote_R]))
    axes.errorbar(
        vote_R, places_R, xerr=reach_2R, fmt="o", color=VOTE, markersize=4, elinewidth=1.2,
        label="vote", clip_on=False, zorder=3,
    )  # fmt: skip
    axes.plot(
        single_R, places_R, "D", color=SINGLE, markersize=4, fillstyle="none",
        label="best member by validation", clip_on=False,
    )  # fmt: skip
    axes.set_ylim(-0.6, len(vote_R) - 0.4)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def places(lines: int) -> IntArray:
    """Heights from the top down."""
    return np.arange(lines)[::-1]


def height(rows: Sequence[object]) -> float:
    """Inches for so many lines."""
    return 1.2 + 0.22 * min(PARTS_UP_TO, max(4, len(rows)))
