"""The figures of a run, as PNG and SVG files and as SVG for the page.

    figures = render_figures(read_run(Path("runs/quickstart")))
    write_figures(figures, Path("runs/quickstart/figures"))

matplotlib only draws here: its Figure and canvas objects, no pyplot, no state that outlives a call.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from ensemble.evaluation.shown_sections import further_sections, shown_sections
from ensemble.evaluation.views import SectionFigure
from ensemble.report import plots, set_plots
from ensemble.report.fonts import noting_missing_signs
from ensemble.report.matplotlib_alone import styled
from ensemble.report.run_facts import RunFacts
from ensemble.report.section_parts import figure_name
from ensemble.report.section_plots import draw, texts_of
from ensemble.storage.atomic import write_bytes

log = logging.getLogger(__name__)

DPI = 144
STYLE = {
    "font.family": "sans-serif", "font.size": 9.5,
    "text.color": plots.INK, "axes.labelcolor": plots.INK, "xtick.color": plots.MUTED, "ytick.color": plots.MUTED,
    "xtick.labelcolor": plots.INK, "ytick.labelcolor": plots.INK,
    "axes.edgecolor": plots.MUTED, "axes.linewidth": 0.7, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": plots.GRID, "grid.linewidth": 0.7,
    "axes.facecolor": "none", "figure.facecolor": plots.SURFACE, "savefig.facecolor": plots.SURFACE,
    "lines.linewidth": 1.8, "legend.fontsize": 8.5,
    "legend.facecolor": plots.SURFACE, "legend.edgecolor": "none", "legend.framealpha": 0.8,
    "svg.fonttype": "none", "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a name with two dollar signs is a name
}  # fmt: skip
TOKENS = {
    plots.INK: "ink", plots.MUTED: "muted", plots.GRID: "line", plots.SURFACE: "surface",
    plots.VOTE: "vote", plots.SINGLE: "single", plots.THIRD: "third", plots.FOURTH: "fourth",
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A kind of figure: what it is called, how to read it, and who draws it. size: inches."""

    name: str
    title: str
    caption: str
    draw: Callable[[plots.Axes, Any], None]
    size: tuple[float, float] = (5.2, 3.5)
    lines: Callable[[Any], Sequence[object]] | None = None  # of a figure that is as high as it has lines


@dataclass(frozen=True)
class RenderedFigure:
    """A drawn figure. svg: a whole file; inline: the same for the page, colours as CSS variables.

    missing: signs of names that no font here has.
    """

    plot: Plot
    png: bytes
    svg: bytes
    inline: str
    missing: frozenset[str] = frozenset()


PLOTS = (
    Plot(
        "size_curve", "How many members are enough",
        "The vote of some of the members, in random orders; the band holds 90 % of the orders.", plots.size_curve,
    ),
    Plot(
        "risk_coverage", "Selective prediction",
        "If only the images the vote is most certain of were answered, this share of them would be wrong; with a 95 % band.",
        plots.risk_coverage,
    ),
    Plot(
        "learning_loss", "Loss by epoch",
        "Thin or shaded: the members; bold: their median. Validation rising while training falls is overfitting.",
        plots.learning_loss,
    ),
    Plot(
        "learning_error", "Validation error by epoch",
        "Thin or shaded: the members; bold: their median. Dots mark the epoch whose weights vote.",
        plots.learning_error,
    ),
    Plot(
        "class_errors", "Error by class",
        "Test error of the vote on each true class, with 95 % intervals. Dotted: over all classes.", plots.class_errors,
    ),
    Plot(
        "confusion", "Confusion",
        "Test images by true class and vote. Darker: a larger share of the class went there.", plots.confusion,
        (5.2, 4.6),
    ),
    Plot(
        "disagreement", "How different the members are",
        "Share of test images on which two members name different classes.", plots.disagreement, (5.2, 4.6),
    ),
    Plot(
        "disputed", "Most disputed images",
        "Test images with the most disagreement, with label and votes by class.", plots.disputed, (7.5, 5.6),
    ),
    Plot(
        "shifted", "Errors on shifted images",
        "Dots: the vote with 95 % intervals; diamonds: the single model that validation picks. Dotted: the vote's test error.",
        set_plots.shifted, lines=lambda run: [part for found in run.evaluation.shifted for part in found.parts],
    ),
    Plot(
        "unknown", "Telling unknown images from known ones",
        "AUROC of each score, 1 for a perfect division, 0.5 for none. Dots: the vote with 95 % intervals; diamonds: the single model.",
        set_plots.unknown, lines=lambda run: [score for found in run.evaluation.unknown for score in found.scores],
    ),
)  # fmt: skip


def plots_of(run: RunFacts) -> list[Plot]:
    """Every figure that the run has the facts for: ours, and those that sections describe."""
    return [
        *(plot for plot in PLOTS if _has_facts(plot, run)),
        *(
            Plot(figure_name(section), section.figure.title, section.figure.caption, partial(_draw_section, section.figure))
            for section in shown_sections(run.evaluation)
            if section.figure is not None
        ),
    ]  # fmt: skip


def render_figures(run: RunFacts, salt: str = "run") -> list[RenderedFigure]:
    """Draw every figure the run has the facts for, but those of users' sections that cannot be drawn. salt: keeps the ids of
    several runs on one page apart."""
    sections = [section for section in further_sections(run.evaluation) if section.figure is not None]
    theirs = {figure_name(section) for section in sections}
    ours = [plot for plot in plots_of(run) if plot.name not in theirs]
    drawn = render(ours, run, salt, run.evaluation.class_names)
    for plot in plots_of(run):
        if plot.name in theirs:
            names = [text for one in sections if one.figure is not None for text in texts_of(one.figure)]
            try:
                drawn += render([plot], run, salt, [*run.evaluation.class_names, *names])
            except Exception:  # the section is not ours; the report says that its figure is missing
                log.debug("figure %s", plot.name, exc_info=True)
    return drawn


def _draw_section(figure: SectionFigure, axes: plots.Axes, _run: Any) -> None:
    draw(axes, figure)


def render(plots: Sequence[Plot], facts: Any, salt: str, names: Iterable[str]) -> list[RenderedFigure]:
    """Draw these figures of whatever they are figures of. names: that must have a font."""
    with styled(names, STYLE):
        return [_render(plot, facts, f"{salt}-{plot.name}") for plot in plots]


def write_figures(figures: list[RenderedFigure], folder: Path) -> list[Path]:
    """Write NAME.png and NAME.svg of each; returns the paths."""
    paths = []
    for figure in figures:
        for suffix, content in ((".png", figure.png), (".svg", figure.svg)):
            path = folder / f"{figure.plot.name}{suffix}"
            write_bytes(path, content)
            paths.append(path)
    return paths


def write_panels(
    path: Path, draw: Callable[[Any], None], panels: int, size: tuple[float, float], names: Iterable[str] = ()
) -> list[Path]:
    """Draw into a row of axes, and write it beside `path` as PNG and SVG. size: inches; names: that must have a font."""
    written = []
    with styled(names, {**STYLE, "svg.hashsalt": path.name}), noting_missing_signs(set()):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=size)
        draw(figure.subplots(1, panels, squeeze=False)[0])
        for canvas, kind, metadata in (
            (FigureCanvasAgg, "png", {"Software": None}),
            (FigureCanvasSVG, "svg", {"Date": None, "Creator": None}),
        ):
            content = io.BytesIO()
            canvas(figure).print_figure(content, format=kind, dpi=DPI, metadata=metadata)
            written.append(path.with_name(f"{path.name}.{kind}"))
            write_bytes(written[-1], content.getvalue())
    return written


def _has_facts(plot: Plot, run: RunFacts) -> bool:
    if plot.lines is not None:
        return bool(plot.lines(run))
    needs: Mapping[str, Any] = {
        "learning_loss": any(run.histories.values()),
        "learning_error": any(run.histories.values()),
        "disagreement": len(run.evaluation.members) > 1,
        "disputed": any(row.row in run.images for row in run.evaluation.disputed),
    }
    return bool(needs.get(plot.name, True))


def _render(plot: Plot, run: Any, salt: str) -> RenderedFigure:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    size = plot.size if plot.lines is None else (plot.size[0], set_plots.height(plot.lines(run)))
    figure, missing = Figure(figsize=size), set[str]()
    png, svg = io.BytesIO(), io.BytesIO()
    with noting_missing_signs(missing):
        plot.draw(figure.add_subplot(), run)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once; each canvas would do it again
        # Not by print_figure, which draws everything once more before, for layouts that may have changed.
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        with mpl.rc_context({"svg.hashsalt": salt}):
            # Without a date the same run gives the same bytes.
            figure.set_dpi(mpl.rcParams["figure.dpi"])
            FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    text = _rounded(svg.getvalue().decode())
    return RenderedFigure(plot, png.getvalue(), text.encode(), _inline(text, plot.title), frozenset(missing))


def _rounded(svg: str) -> str:
    """Coordinates with two digits: a hundredth of a point cannot be seen, and the file is half as long. Texts stay as they are."""
    return re.sub(r"<[^>]*>", lambda tag: re.sub(r"(-?\d+\.\d{2})\d+", r"\1", tag[0]), svg)


def _inline(svg: str, title: str) -> str:
    """The figure as an element of a page: no prologue, no ids that could clash, colours and font those of the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", body)  # nothing refers to these; paths and markers have hashes
    body = body.replace("xlink:href", "href").replace("\n", " ")
    for colour, token in TOKENS.items():
        body = body.replace(colour, f"var(--{token})")
    body = re.sub(r"font(-family)?: ?([^;\"]*?)'DejaVu Sans'(, '[^']+')*(, sans-serif)?", r"font\1: \2inherit", body)
    head = re.compile(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>')
    opening = f'<svg viewBox="\\1" role="img" aria-label="{escape(title)}" preserveAspectRatio="xMidYMid meet">'
    return head.sub(opening, body, count=1)
