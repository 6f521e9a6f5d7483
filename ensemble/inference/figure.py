"""Draws each picture beside what the networks saw and the class probabilities, as a PNG, SVG or PDF file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.data.showing import viewable
from ensemble.errors import ConfigError
from ensemble.evaluation import written
from ensemble.inference.answers import Answer, percent
from ensemble.outside.names import shown
from ensemble.report.fonts import noting_missing_signs
from ensemble.report.matplotlib_alone import styled
from ensemble.report.plots import INK, MUTED, NAME_SIGNS, SINGLE, VOTE
from ensemble.storage.atomic import write_bytes

MOST_PICTURES = 60
MOST_CLASSES = 12  # more are cut to the most probable ones
FORMATS = ("png", "svg", "pdf")


def check_figure(path: Path, pictures: int) -> None:
    """Raises ConfigError for another file type or too many pictures: before any prediction."""
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise ConfigError(f"--figure {path}: found type {path.suffix or 'none'}; expected .png, .svg or .pdf")
    if pictures > MOST_PICTURES:
        raise ConfigError(f"--figure {path}: found {pictures} pictures; expected at most {MOST_PICTURES} in one figure")


def write_figure(path: Path, answers: Sequence[Answer], class_names: Sequence[str]) -> None:
    """One row per answer. Raises StorageError when the file cannot be written."""
    style: dict[str, Any] = {"svg.fonttype": "none", "font.size": 9, "text.color": INK, "text.parse_math": False}
    names = [*class_names, *(answer.name for answer in answers)]
    with styled(names, style), noting_missing_signs(set()):
        from matplotlib.figure import Figure

        figure: Any = Figure(figsize=(7.2, 1.9 * len(answers) + 0.1), layout="constrained")
        rows = figure.subplots(len(answers), 3, squeeze=False, width_ratios=(1.3, 1, 2.2))
        for row, answer in zip(rows, answers, strict=True):
            _draw_row(row, answer, class_names)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix.lower().lstrip("."), dpi=144)
    write_bytes(path, buffer.getvalue())


def _draw_row(row: Sequence[Any], answer: Answer, class_names: Sequence[str]) -> None:
    assert answer.picture is not None, "pictures are kept where a figure is wanted"
    picture, seen = answer.picture.shown, answer.picture.image_CHW
    for axes, image in ((row[0], picture), (row[1], viewable(seen))):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
    row[0].set_title(shown(Path(answer.name).name), fontsize=8, color=MUTED)
    row[1].set_title("as the networks see it", fontsize=8, color=MUTED)
    classes = np.argsort(-answer.probs_K, kind="stable")[:MOST_CLASSES]
    if len(class_names) <= MOST_CLASSES:
        classes = np.arange(len(class_names))
    heights = 100 * answer.probs_K[classes]
    colours = [VOTE if k == answer.class_number else SINGLE for k in classes]
    bars = row[2].barh(range(len(classes)), heights, color=colours, height=0.75)
    row[2].bar_label(bars, [written.percent(p / 100, 1) if p >= 0.05 else "" for p in heights], fontsize=7, padding=2)
    row[2].set_yticks(range(len(classes)), [shown(class_names[k], NAME_SIGNS) for k in classes], fontsize=7)
    row[2].set(xlim=(0, 112), ylim=(len(classes) - 0.4, -0.6), xticks=(0, 25, 50, 75, 100))
    row[2].tick_params(axis="x", labelsize=7, colors=MUTED)
    row[2].spines[["top", "right"]].set_visible(False)
    title = f"{shown(answer.class_name, NAME_SIGNS)}: {percent(answer.probability)}, {answer.agreeing} of {len(answer.votes)} members agree"
    row[2].set_title(title, fontsize=9, loc="left")
