"""Figures that sections describe as data (`ensemble.evaluation.views`), drawn in the looks of all others."""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemble.evaluation.views import Curve, SectionFigure
from ensemble.outside.names import shown
from ensemble.report.plots import FOURTH, MUTED, NAME_SIGNS, SINGLE, THIRD, VOTE, Axes

COLOURS = {"vote": VOTE, "single": SINGLE, "third": THIRD, "fourth": FOURTH}
DOT = 24.0  # area of a dot in points squared, where no sizes are given


def draw(axes: Axes, figure: SectionFigure) -> None:
    """All its curves, in their order."""
    for curve in figure.curves:
        _draw(axes, curve)
    limits = {"xlim": figure.x_limits, "ylim": figure.y_limits}
    axes.set(
        xlabel=shown(figure.x_label),
        ylabel=shown(figure.y_label),
        **{name: ends for name, ends in limits.items() if ends != (None, None)},
    )
    if figure.ticks:
        axes.set_xticks(range(len(figure.ticks)), [shown(name, NAME_SIGNS) for name in figure.ticks])
        axes.grid(visible=False, axis="x")
    if any(curve.label for curve in figure.curves):
        axes.legend(loc=figure.legend)


def texts_of(figure: SectionFigure) -> tuple[str, ...]:
    """All that is written into it, which must have a font."""
    labels = (curve.label for curve in figure.curves)
    return (figure.x_label, figure.y_label, *figure.ticks, *labels)


def _draw(axes: Axes, curve: Curve) -> None:
    colour, look = COLOURS[curve.who], dict[str, Any]()
    if curve.label:
        look["label"] = shown(curve.label)
    if curve.kind == "band":
        axes.fill_between(curve.x, curve.y, curve.upper, color=colour, alpha=0.16, linewidth=0, **look)
    elif curve.kind == "dots":
        sizes = curve.sizes or DOT
        axes.scatter(curve.x, curve.y, s=sizes, color=colour, alpha=0.75, linewidth=0, zorder=3, **look)
    elif curve.kind == "bars":
        gaps = np.diff(np.sort(np.array(curve.x, np.float64)))
        width = 0.8 * float(gaps.min()) if len(gaps) and gaps.min() > 0 else 0.8
        axes.bar(curve.x, curve.y, width=width, color=colour, alpha=0.75, **look)
    elif curve.kind == "guide":
        axes.plot(curve.x, curve.y, color=MUTED, linestyle=(0, (1, 2)), linewidth=1.2, **look)
    else:
        wide = {} if curve.width is None else {"linewidth": curve.width}
        axes.plot(curve.x, curve.y, color=colour, **wide, **look)
