"""Figures of further sets: errors on shifted images part by part, and how unknown images are told from known ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.evaluation.set_records import ShiftedSet
from ensemble.outside.names import shown
from ensemble.report.plots import MUTED, SINGLE, VOTE, Axes
from ensemble.report.run_facts import RunFacts

PARTS_UP_TO = 40  # more parts than this leave no room for their names
NAME_SIGNS = 28


def shifted(axes: Axes, run: RunFacts) -> None:
    """Error of the vote, with its interval, and of the single model on every part of every shifted set; one line each."""
    rows = [(found, part) for found in run.evaluation.shifted for part in found.parts][:PARTS_UP_TO]
    places = np.arange(len(rows))[::-1]
    vote = np.array([100 * part.vote_error for _, part in rows])
    ends = np.array([[100 * part.lower, 100 * part.upper] for _, part in rows]).T
    axes.errorbar(
        vote, places, xerr=np.maximum(0, [vote - ends[0], ends[1] - vote]), fmt="o", color=VOTE, markersize=4, elinewidth=1.2,
        label="vote", clip_on=False, zorder=3,
    )  # fmt: skip
    single = [100 * part.member_error for _, part in rows]
    axes.plot(
        single,
        places,
        "D",
        color=SINGLE,
        markersize=4,
        fillstyle="none",
        label="best member by validation",
        clip_on=False,
    )
    axes.axvline(100 * run.evaluation.headline.test_error, color=MUTED, linestyle=(0, (1, 2)), linewidth=1.2)
    several = len(run.evaluation.shifted) > 1
    axes.set_yticks(places, [_name(found, part.label, several) for found, part in rows])
    axes.set(xlabel="error, %", ylim=(-0.6, len(rows) - 0.4))
    axes.set_xlim(left=0)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _name(found: ShiftedSet, label: str, several: bool) -> str:
    if len(found.parts) == 1:
        return shown(found.name, NAME_SIGNS)
    return shown(f"{found.name}: {label}" if several else label, NAME_SIGNS)


def unknown(axes: Axes, run: RunFacts) -> None:
    """AUROC of every score on every set of unknown images, with its interval, and that of the single model."""
    rows = [(found, score) for found in run.evaluation.unknown for score in found.scores][:PARTS_UP_TO]
    places = np.arange(len(rows))[::-1]
    area = np.array([score.auroc for _, score in rows])
    ends = np.array([[score.lower, score.upper] for _, score in rows]).T
    axes.errorbar(
        area, places, xerr=np.nan_to_num(np.maximum(0, [area - ends[0], ends[1] - area])), fmt="o", color=VOTE, markersize=4,
        elinewidth=1.2, label="vote", clip_on=False, zorder=3,
    )  # fmt: skip
    single = [score.member_auroc for _, score in rows]
    axes.plot(
        single,
        places,
        "D",
        color=SINGLE,
        markersize=4,
        fillstyle="none",
        label="best member by validation",
        clip_on=False,
    )
    axes.set_yticks(places, [f"{shown(found.name, NAME_SIGNS)}: {score.score}" for found, score in rows])
    axes.set(xlabel="AUROC", ylim=(-0.6, len(rows) - 0.4))
    axes.set_xlim(right=1)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:.4g}")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def height(rows: Sequence[object]) -> float:
    """Inches for so many lines."""
    return 1.2 + 0.22 * min(PARTS_UP_TO, max(4, len(rows)))
