"""Figures of reproduced rows: learning curves, LeNet-5 beside ResNet-50, accuracy by class, confusion, samples, one answer.

    write_seed_figures(results, Path("docs/results/seeds"))

All are drawn from stored histories and votes; the samples also need the data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.data.showing import viewable
from ensemble.report import plots, wording
from ensemble.report.figures import write_panels
from ensemble.report.run_facts import RunFacts, read_run
from ensemble.results.reproduction import Reproduced, class_accuracies
from ensemble.storage import RunFolder
from ensemble.types import ByteArray, DoubleArray, EpochRecord, FloatArray, IntArray

CURVES = (
    ("train", plots.VOTE, "training", "-"),
    ("validation", plots.SINGLE, "validation", (0, (4, 2))),
    ("test", plots.THIRD, "test (to look at only)", (0, (1, 1.5))),
)


def write_seed_figures(results: Sequence[Reproduced], folder: Path) -> list[Path]:
    """Every figure the results have the facts for, as PNG; returns the paths."""
    paths = []
    for result in results:
        histories = _histories(result)
        if not any(histories):
            continue

        def curves(axes_2: Any, result: Reproduced = result, histories: list[Any] = histories) -> None:
            draw_curves(axes_2, histories)
            axes_2[0].figure.suptitle(f"{result.row.system}, {len(histories)} seeds", fontsize=10.5)

        paths.append(_png(folder / f"curves_{result.row.name}.png", curves, 2, (9.2, 3.4)))
        accuracies_SK, names = class_accuracies(result.path)

        def accuracy(axes: Any, accuracies_SK: DoubleArray = accuracies_SK, names: Any = names) -> None:
            draw_class_accuracies(axes[0], accuracies_SK, names)

        paths.append(_png(folder / f"classes_{result.row.name}.png", accuracy, 1, (5.4, 3.2)))
        run = read_run(result.path)

        def confused(axes: Any, run: RunFacts = run) -> None:
            plots.confusion(axes[0], run)
            axes[0].set_title("all seeds' vote", fontsize=9)

        paths.append(_png(folder / f"confusion_{result.row.name}.png", confused, 1, (4.6, 4.4)))
    by_name = {result.row.name: result for result in results}
    if {"lenet5", "resnet50"} <= by_name.keys():
        pair = {by_name[name].row.system: _histories(by_name[name]) for name in ("lenet5", "resnet50")}
        paths.append(_png(folder / "lenet5_and_resnet50.png", lambda axes: draw_beside(axes[0], pair), 1, (6.4, 3.6)))
    return paths


def write_sample_figures(
    folder: Path, images_NCHW: ByteArray, labels_N: IntArray, names: Sequence[str], probs_NK: FloatArray, title: str
) -> list[Path]:
    """Sample images by class, and the first image that the network doubts most beside its class probabilities."""
    picked = [np.flatnonzero(labels_N == k)[:10] for k in range(len(names))]
    doubted = int(np.argmin(probs_NK.max(axis=1)))
    return [
        _png(folder / "samples.png", lambda axes: draw_samples(axes[0], images_NCHW, picked, names), 1, (6.0, 6.0)),
        _png(
            folder / "image_and_probabilities.png",
            lambda axes: draw_answer(axes, images_NCHW[doubted], probs_NK[doubted], int(labels_N[doubted]), names, title),
            2,
            (6.4, 2.6),
        ),
    ]  # fmt: skip


def draw_curves(axes_2: Any, histories: Sequence[Sequence[EpochRecord]]) -> None:
    """Loss and error by epoch on training, validation and (where watched) test rows; thin the seeds, bold their median."""
    for axes, kind, scale, label in ((axes_2[0], "loss", 1, "loss, nats"), (axes_2[1], "error", 100, "error, %")):
        for part, colour, name, dashes in CURVES:
            watched = [h for h in histories if h and getattr(h[0], f"{part}_{kind}") is not None]
            plots.curves(axes, watched, f"{part}_{kind}", colour, name, dashes, scale)
        axes.set(xlabel="epoch", ylabel=label)
        plots.log_if_wide(axes)
        axes.legend()


def draw_beside(axes: Any, systems: Mapping[str, Sequence[Sequence[EpochRecord]]]) -> None:
    """Test error by epoch of several systems."""
    for (name, histories), colour, dashes in zip(systems.items(), plots.SERIES, ("-", (0, (4, 2))), strict=False):
        watched = [h for h in histories if h and h[0].test_error is not None]
        plots.curves(axes, watched, "test_error", colour, name, dashes, 100)
    axes.set(xlabel="epoch", ylabel="test error, % (to look at only)")
    plots.log_if_wide(axes)
    axes.legend()


def draw_class_accuracies(axes: Any, accuracies_SK: DoubleArray, names: Sequence[str]) -> None:
    """Test accuracy by true class: one dot per seed, a bar for their mean."""
    x, mean = np.arange(len(names)), 100 * accuracies_SK.mean(axis=0)
    low = min(99.0, float(100 * accuracies_SK.min()) - 0.3)
    axes.bar(x, mean - low, bottom=low, color=plots.VOTE, alpha=0.35, width=0.7)
    for seed in accuracies_SK:
        axes.plot(x, 100 * seed, "o", color=plots.VOTE, markersize=3, alpha=0.8)
    for position, value in zip(x, mean, strict=True):
        axes.text(
            position, 100.15, wording.percent(value / 100, 1), ha="center", va="bottom", fontsize=7.5, color=plots.MUTED
        )
    axes.set(ylabel="test accuracy, %", xlabel="true class", ylim=(low, 100.1))
    axes.set_xticks(x, names)
    axes.grid(visible=False, axis="x")


def draw_samples(axes: Any, images_NCHW: ByteArray, picked: Sequence[IntArray], names: Sequence[str]) -> None:
    """A row of images per class."""
    axes.set_axis_off()
    axes.set(xlim=(-1, max(map(len, picked))), ylim=(len(picked), 0))
    for k, rows in enumerate(picked):
        axes.text(-0.4, k + 0.5, names[k], ha="center", va="center", fontsize=11, color=plots.INK)
        for i, row in enumerate(rows):
            image = viewable(images_NCHW[row])
            axes.imshow(
                image, extent=(i + 0.05, i + 0.95, k + 0.95, k + 0.05), cmap="gray", vmin=0, vmax=255, aspect="auto"
            )


def draw_answer(
    axes_2: Any, image_CHW: ByteArray, probs_K: FloatArray, label: int, names: Sequence[str], title: str
) -> None:
    """An image beside its class probabilities."""
    axes_2[0].imshow(viewable(image_CHW), cmap="gray", vmin=0, vmax=255)
    axes_2[0].set_axis_off()
    axes_2[0].set_title(f"label {names[label]}", fontsize=9)
    bars = axes_2[1].barh(range(len(names)), 100 * probs_K, color=plots.VOTE, height=0.75)
    axes_2[1].bar_label(bars, [wording.percent(float(p), 1) for p in probs_K], fontsize=7, padding=2)
    axes_2[1].set_yticks(range(len(names)), names)
    axes_2[1].set(xlim=(0, 112), ylim=(len(names) - 0.4, -0.6), xlabel="probability, %")
    axes_2[1].grid(visible=False, axis="y")
    axes_2[1].set_title(f"{title} says {names[int(probs_K.argmax())]}", fontsize=9)


def _histories(result: Reproduced) -> list[Sequence[EpochRecord]]:
    folder = RunFolder.read(result.path)
    return [folder.load_member(index).history for index in sorted(folder.finished())]


def _png(path: Path, draw: Any, panels: int, size: tuple[float, float]) -> Path:
    """The PNG alone: these are looked at in documents."""
    png, svg = write_panels(path.with_suffix(""), draw, panels, size)
    svg.unlink()
    return png
