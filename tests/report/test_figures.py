from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ensemble.report import plots
from ensemble.report.figures import PLOTS, RenderedFigure, plots_of, render_figures, write_figures
from ensemble.report.run_facts import RunFacts, read_run
from ensemble.types import EpochRecord


@pytest.fixture(scope="module")
def run(run_path: Path) -> RunFacts:
    return read_run(run_path)


@pytest.fixture(scope="module")
def figures(run: RunFacts) -> list[RenderedFigure]:
    return render_figures(run)


def drawn(plot: Callable[..., None], run: RunFacts) -> plots.Axes:
    axes = Figure().add_subplot()
    plot(axes, run)
    return axes


def test_every_figure_is_written_as_png_and_svg(figures: list[RenderedFigure], tmp_path: Path) -> None:
    paths = write_figures(figures, tmp_path / "figures")
    of_sets = {"shifted", "unknown"}  # which this run has none of: tests/test_further_sets.py draws them
    names = {plot.name for plot in PLOTS} - of_sets | {"calibration"}
    assert {path.name for path in paths} == {f"{name}{suffix}" for name in names for suffix in (".png", ".svg")}
    for path in paths:
        if path.suffix == ".png":
            pixels = np.asarray(Image.open(path).convert("L"))
            assert min(pixels.shape) > 400
            assert pixels.std() > 3  # not blank
        else:
            assert ET.parse(path).getroot().tag.endswith("svg")


def test_the_same_run_gives_the_same_bytes_and_leaves_no_settings(run: RunFacts, figures: list[RenderedFigure]) -> None:
    before, imported = dict(mpl.rcParams), "matplotlib.pyplot" in sys.modules
    assert [(one.png, one.svg) for one in figures] == [(one.png, one.svg) for one in render_figures(run)]
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == imported, "drawing must not touch pyplot's global state"


def test_inline_figures_take_their_colours_from_the_page_and_share_no_ids(
    run: RunFacts, figures: list[RenderedFigure]
) -> None:
    inline = [one.inline for one in (*figures, *render_figures(run, "another"))]
    for text in inline:
        assert ET.fromstring(text).tag == "svg"
        assert "var(--" in text
        assert not re.search(r"(fill|stroke): #(?!000000)[0-9a-f]{6}", text)
    ids = [found for text in inline for found in set(re.findall(r' id="([^"]+)"', text))]
    assert len(ids) == len(set(ids))


def test_size_curve_draws_the_stored_points(run: RunFacts) -> None:
    axes = drawn(plots.size_curve, run)
    vote, single, _ = axes.lines
    points = run.evaluation.size_curve
    np.testing.assert_allclose(vote.get_xdata(), [point.size for point in points])
    np.testing.assert_allclose(vote.get_ydata(), [100 * point.mean for point in points])
    assert single.get_ydata()[0] == pytest.approx(100 * run.evaluation.verdict.member_error)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(100 * min(point.lower for point in points))
    assert band.max() == pytest.approx(100 * max(point.upper for point in points))


def test_calibration_and_risk_draw_the_stored_points(run: RunFacts) -> None:
    (plot,) = (plot for plot in plots_of(run) if plot.name == "calibration")
    _, curve = drawn(plot.draw, run).lines
    bins = [one for one in run.evaluation.calibration.equal_width if one.count]
    np.testing.assert_allclose(curve.get_ydata(), [100 * one.accuracy for one in bins])
    (risk,) = drawn(plots.risk_coverage, run).lines
    np.testing.assert_allclose(risk.get_ydata(), 100 * np.array(run.evaluation.risk_coverage.error))


def test_class_errors_stand_on_their_intervals(run: RunFacts) -> None:
    container = drawn(plots.class_errors, run).containers[0]
    segments = container[2][0].get_segments()
    for segment, one in zip(segments, run.evaluation.classes, strict=True):
        assert segment[:, 1] == pytest.approx([100 * one.lower, 100 * one.upper], abs=1e-9)


def test_confusion_writes_every_count(run: RunFacts) -> None:
    texts = [text.get_text() for text in drawn(plots.confusion, run).texts]
    assert texts == [str(cell) for row in run.evaluation.confusion for cell in row if cell]


def test_learning_curves_show_members_and_median(run: RunFacts) -> None:
    histories = {m: tuple(EpochRecord(e, 1.0, 1.0, 0.1 * (m + 1), 0.1, 1.0) for e in range(1, 4)) for m in range(3)}
    lines = drawn(plots.learning_error, replace(run, histories=histories)).lines
    levels = sorted(float(line.get_ydata()[0]) for line in lines[:4])
    assert levels == pytest.approx([10, 20, 20, 30])


def test_a_diverged_member_does_not_spoil_the_median(run: RunFacts) -> None:
    nan = float("nan")
    good = tuple(EpochRecord(e, 1.0, 1.0, 0.25, 0.1, 1.0) for e in range(1, 4))
    broken = (EpochRecord(1, 1.0, 1.0, 0.25, 0.1, 1.0), EpochRecord(2, nan, nan, nan, 0.1, 1.0))
    changed = replace(run, histories={0: good, 1: broken})
    for plot in (plots.learning_error, plots.learning_loss):
        median = next(line for line in drawn(plot, changed).lines if line.get_linewidth() > 1.5)
        assert list(median.get_xdata()) == [1, 2, 3]
        assert np.isfinite(median.get_ydata()).all()


def test_many_members_become_a_band(run: RunFacts) -> None:
    history = next(iter(run.histories.values()))
    axes = drawn(plots.learning_loss, replace(run, histories=dict.fromkeys(range(60), history)))
    assert len(axes.lines) == 2
    assert len(axes.collections) == 4


def test_what_a_run_does_not_have_is_left_out(run_of: Callable[..., Path], tmp_path: Path) -> None:
    lone = read_run(run_of(tmp_path, "lone", members=1, images=False, epochs=0))
    names = {figure.plot.name for figure in render_figures(lone)}
    missing = {"learning_loss", "learning_error", "disagreement", "disputed", "shifted", "unknown"}
    assert names == {plot.name for plot in PLOTS} - missing | {"calibration"}
