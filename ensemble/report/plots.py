"""What each figure shows, drawn into matplotlib axes. Only `figures.py` renders them, so no pyplot and no global state.

One visual language: votes blue, single members orange, a third series green; colours keep apart for colour-blind
readers (Okabe and Ito 2008), and a dash or marker always says the same as the colour. Colours are the tokens below,
which the page replaces by its own for dark screens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble.data.showing import viewable
from ensemble.events import EpochFinished
from ensemble.outside.names import shown
from ensemble.report.run_facts import RunFacts
from ensemble.types import DoubleArray, EpochRecord, IntArray

Axes = Any  # matplotlib ships no annotations strict enough to check against

INK, MUTED, GRID, SURFACE = "#1b1f24", "#626b76", "#dfe3e8", "#fefefe"
VOTE, SINGLE, THIRD, FOURTH = "#0071b1", "#c85a02", "#018f69", "#a34f8c"
SERIES = (SINGLE, VOTE, THIRD, FOURTH)
LINES_UP_TO = 40  # more members than this are drawn as a band
CELLS_UP_TO = 12  # more classes than this leave no room for numbers in cells
NAMES_UP_TO = 30  # so many classes are named on an axis, of more every second, fifth ...
NAME_SIGNS = 24


def size_curve(axes: Axes, run: RunFacts) -> None:
    """Test error against the number of members, with the band over random orders and the single models beside it."""
    points = run.evaluation.size_curve
    sizes = [point.size for point in points]
    percent = {name: [100 * getattr(point, name) for point in points] for name in ("mean", "lower", "upper")}
    axes.fill_between(sizes, percent["lower"], percent["upper"], color=VOTE, alpha=0.16, linewidth=0)
    axes.plot(sizes, percent["mean"], color=VOTE, marker="o", markersize=3.5, label="vote, mean over random orders")
    rows = {row.kind: row for row in run.evaluation.leaderboard}
    single, mean = 100 * rows["best_member"].test_error, 100 * rows["mean_member"].test_error
    axes.axhline(single, color=SINGLE, linestyle=(0, (5, 3)), linewidth=1.4, label="best member by validation")
    axes.axhline(mean, color=MUTED, linestyle=(0, (1, 2)), linewidth=1.4, label="mean member")
    axes.set(xlabel="members in the vote", ylabel="test error, %")
    if len(sizes) > 1 and sizes[-1] > 16:
        axes.set_xscale("log")
        ticks = [size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if size <= sizes[-1]]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    else:
        axes.set_xticks(sizes)
    axes.legend()


def learning_loss(axes: Axes, run: RunFacts) -> None:
    """Training and validation loss by epoch, members thin, their median bold."""
    curves(axes, list(run.histories.values()), "train_loss", VOTE, "training", "-")
    curves(axes, list(run.histories.values()), "validation_loss", SINGLE, "validation", (0, (4, 2)))
    axes.set(xlabel="epoch", ylabel="loss, nats")
    log_if_wide(axes)
    axes.legend()


def learning_error(axes: Axes, run: RunFacts) -> None:
    """Validation error by epoch of every member, by recipe; a dot marks the epoch whose weights vote."""
    recipes: dict[str, list[int]] = {}
    for member in run.evaluation.members:
        recipes.setdefault(member.recipe, []).append(member.index)
    kept = {member.index: member.kept_epoch for member in run.evaluation.members}
    few = sum(map(len, recipes.values())) <= LINES_UP_TO
    for i, (recipe, indices) in enumerate(recipes.items()):
        colour = SERIES[i % len(SERIES)]
        histories = [run.histories[index] for index in indices if index in run.histories]
        curves(axes, histories, "validation_error", colour, recipe, ("-", (0, (4, 2)))[i // len(SERIES) % 2], 100)
        dots = [
            (record.epoch, 100 * record.validation_error)
            for index in indices
            for record in run.histories.get(index, ())
            if few and record.epoch == kept[index]
        ]
        axes.plot(*np.array(dots).reshape(-1, 2).T, "o", markersize=3, color=colour, alpha=0.8)
    axes.set(xlabel="epoch", ylabel="validation error, %")
    log_if_wide(axes)
    axes.legend()


def risk_coverage(axes: Axes, run: RunFacts) -> None:
    """Error among the most certain test images, for a growing share of them answered."""
    curve, banded = run.evaluation.risk_coverage, run.evaluation.selective
    if banded is not None:
        ends = ([100 * value for value in end] for end in (banded.band_lower, banded.band_upper))
        axes.fill_between([100 * value for value in banded.coverage], *ends, color=VOTE, alpha=0.16, linewidth=0)
    axes.plot([100 * value for value in curve.coverage], [100 * value for value in curve.error], color=VOTE)
    axes.set(xlabel="most certain share answered, %", ylabel="error among them, %", xlim=(0, 101))
    axes.set_ylim(bottom=0)


def class_errors(axes: Axes, run: RunFacts) -> None:
    """Test error of each class with its 95 % interval."""
    classes = run.evaluation.classes
    x = np.arange(len(classes))
    error = 100 * np.array([one.error for one in classes])
    below = error - 100 * np.array([one.lower for one in classes])
    above = 100 * np.array([one.upper for one in classes]) - error
    axes.errorbar(
        x, error, yerr=np.maximum(0, [below, above]), fmt="o", color=VOTE, markersize=4.5, elinewidth=1.3, clip_on=False
    )
    axes.axhline(100 * run.evaluation.headline.test_error, color=MUTED, linestyle=(0, (1, 2)), linewidth=1.2)
    axes.set(ylabel="test error, %", xlim=(-0.6, len(classes) - 0.4))
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")
    _name_ticks(axes, [one.name for one in classes])


def confusion(axes: Axes, run: RunFacts) -> None:
    """True class down, vote across; shade by the share of the class, the diagonal left out of the shading."""
    counts = np.array(run.evaluation.confusion, np.float64)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    np.fill_diagonal(share, 0)
    _matrix(axes, share, SINGLE)
    if len(counts) <= CELLS_UP_TO:
        for i, row in enumerate(counts):
            for j, value in enumerate(row):
                if value:
                    axes.text(
                        j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color=MUTED if i == j else INK
                    )
    names = run.evaluation.class_names
    _name_ticks(axes, names)
    rows = _named(len(names))
    axes.set_yticks(rows, [shown(names[k], NAME_SIGNS) for k in rows])
    axes.set(xlabel="vote", ylabel="true class")


def disagreement(axes: Axes, run: RunFacts) -> None:
    """Share of test images on which two members name different classes."""
    matrix = 100 * np.array(run.evaluation.diversity.disagreement, np.float64)
    indices = [member.index for member in run.evaluation.members][: len(matrix)]
    off_diagonal = matrix[~np.eye(len(matrix), dtype=bool)]
    low = float(np.nanmin(off_diagonal)) if len(off_diagonal) else 0.0
    high = float(np.nanmax(off_diagonal)) if len(off_diagonal) else 0.0
    # The least different pair stays visible, so that only the diagonal is blank.
    shade = 0.15 + 0.85 * (matrix - low) / (high - low) if high > low else np.full_like(matrix, 0.5)
    np.fill_diagonal(shade, 0)
    _matrix(axes, shade, VOTE)
    step = max(1, math.ceil(len(indices) / 12))
    ticks = range(0, len(indices), step)
    axes.set_xticks(ticks, [str(indices[i]) for i in ticks])
    axes.set_yticks(ticks, [str(indices[i]) for i in ticks])
    axes.set(xlabel="member", ylabel="member")
    if len(indices) <= CELLS_UP_TO:
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                if i != j:
                    axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color=INK)
    if len(off_diagonal):
        axes.set_title(f"from {low:.2f} % (light) to {high:.2f} % (dark)", fontsize=9, color=MUTED)


def disputed(axes: Axes, run: RunFacts) -> None:
    """The most disputed test images on one sheet, each with its label and the votes for its classes."""
    pictured = [row for row in run.evaluation.disputed if row.row in run.images][:24]
    axes.set_axis_off()
    across = 6
    deep = max(1, math.ceil(len(pictured) / across))
    axes.set(xlim=(0, across), ylim=(deep, 0))
    figure = axes.get_figure(root=True)
    assert figure is not None
    cell_width, cell_height = figure.get_size_inches() / (across, deep)
    names = [shown(name, NAME_SIGNS) for name in run.evaluation.class_names]
    for i, row in enumerate(pictured):
        left, top = i % across, i // across
        image = viewable(run.images[row.row])
        look = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim == 2 else {}
        height, width = image.shape[:2]
        scale = 0.66 * min(cell_width / width, cell_height / height)  # inches per pixel, the same down and across
        half, down = scale * width / cell_width / 2, scale * height / cell_height
        extent = (left + 0.5 - half, left + 0.5 + half, top + 0.66, top + 0.66 - down)
        axes.imshow(image, extent=extent, interpolation="nearest", aspect="auto", **look)
        ranked = sorted(
            ((votes, k) for k, votes in enumerate(row.votes) if votes), key=lambda pair: (-pair[0], pair[1])
        )
        votes = "  ".join(f"{names[k]}:{count}" for count, k in ranked[:3])
        axes.text(left + 0.5, top + 0.70, f"label {names[row.label]}", ha="center", va="top", fontsize=8, color=INK)
        axes.text(left + 0.5, top + 0.82, votes, ha="center", va="top", fontsize=7.5, color=MUTED)


def curves(
    axes: Axes,
    histories: Sequence[Sequence[EpochRecord | EpochFinished]],
    name: str,
    colour: str,
    label: str,
    dashes: Any,
    scale: float = 1,
) -> None:
    """One thin line per member (a band where there are many) and the median over the members in bold."""
    epochs, values_ME = _aligned([[scale * getattr(record, name) for record in history] for history in histories])
    if not values_ME.size:
        return
    if len(values_ME) <= LINES_UP_TO:
        for values in values_ME:
            axes.plot(epochs, values, color=colour, linewidth=0.8, alpha=0.35, linestyle=dashes)
    else:
        for low, high, alpha in ((0, 100, 0.1), (5, 95, 0.18)):
            band = np.nanpercentile(values_ME, [low, high], axis=0)
            axes.fill_between(epochs, *band, color=colour, alpha=alpha, linewidth=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.plot(epochs, np.nanmedian(values_ME, axis=0), color=colour, linewidth=1.8, label=label, linestyle=dashes)


def _aligned(series: Sequence[Sequence[float]]) -> tuple[IntArray, DoubleArray]:
    """Series of unequal length as one array over their epochs, NaN where a value is missing or not finite."""
    values = np.full((len(series), max(map(len, series), default=0)), np.nan)
    for i, one in enumerate(series):
        values[i, : len(one)] = one
    values[~np.isfinite(values)] = np.nan
    epochs = np.flatnonzero(np.isfinite(values).any(axis=0))  # one that nobody passed in finite shape has no median
    return epochs + 1, values[:, epochs]


def log_if_wide(axes: Axes) -> None:
    """A logarithmic axis where the curves span more than a factor of 20."""
    values = np.concatenate([line.get_ydata() for line in axes.lines] or [np.empty(0)]).astype(np.float64)
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _position: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda _value, _position: "")


def _matrix(axes: Axes, shade_RC: DoubleArray, colour: str) -> None:
    """Cells in one colour whose opacity is their shade in [0, 1], so that they fit a light and a dark page."""
    from matplotlib.colors import to_rgb

    top = float(shade_RC.max()) or 1.0
    cells = np.empty((*shade_RC.shape, 4))
    cells[..., :3] = to_rgb(colour)
    cells[..., 3] = 0.75 * shade_RC / top  # numbers stay readable in the darkest
    axes.imshow(cells, interpolation="none")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _name_ticks(axes: Axes, names: Sequence[str]) -> None:
    columns = _named(len(names))
    short = [shown(names[k], NAME_SIGNS) for k in columns]
    long = max(map(len, short)) * len(short) > 40
    axes.set_xticks(columns, short, rotation=50 if long else 0, ha="right" if long else "center")


def _named(count: int) -> range:
    """The classes named on an axis."""
    return range(0, count, math.ceil(count / NAMES_UP_TO))
