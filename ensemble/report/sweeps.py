"""A sweep as a table, as CSV and as loss curves."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ensemble.evaluation.written import ALPHA
from ensemble.outside.names import shown
from ensemble.report import plots, wording
from ensemble.report.figures import write_panels
from ensemble.results.sweep import TABLE, Line, SweepResult
from ensemble.storage.atomic import json_bytes, write_bytes

HEADERS = (
    "setting",
    "seeds",
    "val %",
    "95 % int.",
    "test %",
    "95 % int.",
    "train loss",
    "kept epoch",
    "seconds",
    "state",
)
LABEL_SIGNS = 400  # a setting of many axes is long and yet to be read
COLOURS = (plots.VOTE, plots.SINGLE, plots.THIRD, plots.FOURTH, "#8c6d1f", "#56a0d3", "#d98cb3", plots.MUTED)
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1)))


def cells(line: Line) -> tuple[str, ...]:
    """One line of the table, in the order of HEADERS."""
    kept = sorted({trial.kept_epoch for trial in line.finished if trial.kept_epoch})
    return (
        shown(line.setting.label, LABEL_SIGNS),
        str(len(line.trials)),
        wording.percent(line.validation_error),
        wording.percent_interval(*line.validation_interval),
        wording.percent(line.test_error),
        wording.percent_interval(*line.test_interval),
        wording.loss(line.train_loss),
        "-".join(str(epoch) for epoch in sorted({*kept[:1], *kept[-1:]})) or wording.NONE,
        wording.seconds(line.seconds),
        line.state,
    )


def verdict(result: SweepResult) -> str:
    """Who won, and how sure that is."""
    if result.winner is None:
        return "No setting finished with all its seeds."
    best = result.winner
    text = f"Lowest mean validation error: {shown(best.setting.label, LABEL_SIGNS)}, {wording.percent(best.validation_error)} %"
    if result.runner_up is None:
        return text + "."
    second = (
        f"{shown(result.runner_up.setting.label, LABEL_SIGNS)}, {wording.percent(result.runner_up.validation_error)} %"
    )
    if math.isnan(result.p_value):
        return f"{text}; next: {second} ({result.test})."
    sure = "better than" if result.p_value < ALPHA else "not distinguishable from"
    return f"{text}; {sure} {second} ({result.test}, {wording.p_equation(result.p_value)})."


NOTES = (
    "Ranked by the mean validation error of the seeds, equals in the order of the grid. Test errors decide nothing.",
    "Intervals are Student's t over the seeds, from three seeds on, within 0 to 100 %.",
)


def print_sweep(result: SweepResult) -> None:
    """The table on stdout, with the verdict."""
    from rich.table import Table

    from ensemble.tracking.terminal import open_table_console

    console = open_table_console()
    wide = console.width >= 110
    shown = [i for i in range(len(HEADERS)) if wide or i not in (5, 7, 8)]
    table = Table(box=None, header_style="bold")
    for i in shown:
        words = [word for line in result.lines for word in cells(line)[i].split()] if i == 0 else []
        table.add_column(
            HEADERS[i], no_wrap=i not in (0, 9), justify="left" if i in (0, 9) else "right",
            min_width=max(map(len, words), default=0) or None,
        )  # fmt: skip
    for line in result.lines:
        row = cells(line)
        table.add_row(*(row[i] for i in shown))
    console.print(table)
    console.print(verdict(result))
    for note in NOTES:
        console.print(note, style="dim")


def sweep_csv(result: SweepResult) -> str:
    """The same as CSV, all columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["setting", "seeds", "validation %", "validation interval", "test %", "test interval", *HEADERS[6:]]
    )
    writer.writerows((line.setting.label, *cells(line)[1:]) for line in result.lines)
    return text.getvalue()


def write_sweep(result: SweepResult) -> Path:
    """sweep.json, sweep.csv and the figures in the sweep's folder; returns it."""
    write_bytes(result.folder / TABLE, json_bytes(result.to_json()))
    write_bytes(result.folder / "sweep.csv", sweep_csv(result).encode())
    write_panels(
        result.folder / "figures" / "loss_curves",
        lambda axes: draw_curves(axes, result.lines),
        2,
        (10.4, 4.2),
        [line.setting.label for line in result.lines],
    )
    return result.folder


def draw_curves(axes_2: Any, lines: Sequence[Line]) -> None:
    """Training and validation loss by epoch: thin the seeds, bold their median, one colour or dash per setting."""
    ordered = sorted(lines, key=lambda line: list(line.setting.values.values()) and line.setting.label)
    for axes, part in zip(axes_2, ("train", "validation"), strict=True):
        for i, line in enumerate(ordered):
            curves = [trial.curve for trial in line.trials if trial.curve]
            label = shown(line.setting.label, 60) + (
                "" if line.finished else f" ({line.trials[0].failure.partition(':')[0]})"
            )
            dashes = DASHES[i // len(COLOURS) % len(DASHES)]
            plots.curves(axes, curves, f"{part}_loss", COLOURS[i % len(COLOURS)], label, dashes)
        axes.set(xlabel="epoch", ylabel=f"{'training' if part == 'train' else part} loss, nats")
        plots.log_if_wide(axes)
    if axes_2[1].lines:
        axes_2[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
