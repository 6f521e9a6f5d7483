"""The page to send to a colleague: one HTML file that needs nothing else, no network and no script to be read.

    write_report([Path("runs/quickstart")], None)        # runs/quickstart/report.html and figures/
    write_report(paths)                                  # runs/report.html, an overview of several runs

Every number on it is taken from evaluation.json by its key and stands as <data value="exact" data-key="where">shown</data>.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ensemble.data.showing import how_shown
from ensemble.errors import ConfigError
from ensemble.evaluation.records import DisputedRow, LeaderboardRow
from ensemble.evaluation.shown_sections import further_sections, shown_sections
from ensemble.outside.long_work import working
from ensemble.outside.names import shown
from ensemble.report import wording
from ensemble.report.class_tables import (
    CLASSES_SHOWN,
    CONFUSIONS_SHOWN,
    MATRIX_UP_TO,
    cut_classes,
    largest_confusions,
    worst_classes,
)
from ensemble.report.figures import RenderedFigure, render_figures, write_figures
from ensemble.report.fonts import missing_note
from ensemble.report.keeping import mark_of, marks_of_all, refuse_other
from ensemble.report.many_runs import Overview, read_overview
from ensemble.report.many_runs_page import overview_figures, overview_part, page_links
from ensemble.report.numbers import Numbers
from ensemble.report.paper_tables import TABLES, write_tables
from ensemble.report.run_facts import RunFacts, read_run
from ensemble.report.section_parts import figure_name, page_section
from ensemble.report.tables import cost_sentence
from ensemble.report.thumbnails import BothPictures, RunPictures
from ensemble.results.predictions import surest_mistakes
from ensemble.storage.atomic import write_bytes

REPORT, FIGURES = "report.html", "figures"
WRONG_SHOWN, PICTURES_OF_WRONG = 100, 40
INLINE_ELSEWHERE = ("confusion", "disputed")  # the page has these as a table and as real images
DECISIONS = {"drop": "left out", "retry": "tried again", "stop": "stopped the run"}


def write_report(
    paths: Sequence[Path],
    out: Path | None = None,
    tell: Callable[[str], None] = lambda _line: None,
    whole: bool = False,
) -> Path:
    """Write the report of one or several runs; returns the page's path.

    One run: all about it. Several: an overview of them, and with `whole` all about each below it.
    out: the file to write, and nothing else; without it report.html in the run's folder, for several runs in the folder
    above the first, and figures/ and tables/ in the folder of each run that is told of as a whole. tell: takes a line about whatever
    the page or the figures had to leave out. Raises StorageError for a path that is no judged run, ConfigError for no run at all,
    the same one twice, or a file that is there and is not this report.
    """
    if not paths or len({path.resolve() for path in paths}) != len(paths):
        raise ConfigError("report: give the folders of one or more different runs, such as runs/NAME")
    beside, several = out is None, len(paths) > 1
    if out is None:
        out = (paths[0].resolve().parent if several else paths[0]) / REPORT
    names = sorted(path.resolve().name for path in paths)
    mark = marks_of_all("report", names) if several else mark_of("report", names)
    overview = read_overview(paths) if several else None
    if not beside or several:
        refuse_other(out, mark, "the report of other runs")
    told = [line.path for line in overview.lines] if overview else paths
    runs = [read_run(path) for path in told] if whole or not several else []
    figures = []
    with working("drawing the figures of runs", len(runs)) as done:
        for i, run in enumerate(runs):
            figures.append(render_figures(run, f"run{i}"))
            done()
    if overview is None:
        page = render_page(runs, figures, mark)
    else:
        links = [f"#run{i}" for i in range(len(runs))] or page_links(overview.lines, out.parent, REPORT)
        page = render_overview(overview, links, runs, figures, mark)
    if beside:
        for run, drawn in zip(runs, figures, strict=True):
            write_figures(drawn, run.path / FIGURES)
            write_tables(run.evaluation, run.path / TABLES, run.costs)
    write_bytes(out, page.encode())
    for line in overview.left_out if overview else ():
        tell(line)
    for run, drawn in zip(runs, figures, strict=True):
        for line in notices(run, drawn):
            tell(f"{shown(run.name)}: {line}")
    return out


def notices(run: RunFacts, figures: Sequence[RenderedFigure]) -> list[str]:
    """What the page and the figures of a run do not show."""
    missing: set[str] = set().union(*(figure.missing for figure in figures))
    drawn = {figure.plot.name for figure in figures}
    undrawn = [
        f"section {one.name}: its figure cannot be drawn"
        for one in further_sections(run.evaluation)
        if one.figure is not None and figure_name(one) not in drawn
    ]
    return [line for line in (cut_classes(run.evaluation), missing_note(missing), *undrawn) if line]


def render_page(runs: Sequence[RunFacts], figures: Sequence[Sequence[RenderedFigure]], mark: str = "") -> str:
    """All about each run, as the text of a page. mark: by which it is known again, see `keeping`."""
    parts = [_run_part(i, run, drawn) for i, (run, drawn) in enumerate(zip(runs, figures, strict=True))]
    return _environment().get_template("template.html").render(runs=parts, mark=mark)


def render_overview(
    overview: Overview,
    links: Sequence[str],
    runs: Sequence[RunFacts] = (),
    figures: Sequence[Sequence[RenderedFigure]] = (),
    mark: str = "",
) -> str:
    """The overview of several runs, and all about `runs` below it, as the text of a page. links: see `overview_part`."""
    parts = [_run_part(i, run, drawn) for i, (run, drawn) in enumerate(zip(runs, figures, strict=True))]
    found = overview_part(overview, overview_figures(overview), links)
    return _environment().get_template("many_runs.html").render(**found, runs=parts, mark=mark)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ensemble.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment


def _run_part(position: int, run: RunFacts, figures: Sequence[RenderedFigure]) -> dict[str, Any]:
    """What the template needs of one run."""
    evaluation, pictures, numbers = run.evaluation, RunPictures(run), Numbers(run.record)
    whole = len(evaluation.class_names) <= MATRIX_UP_TO
    gains = {one.member: f"contributions.{i}.gain" for i, one in enumerate(evaluation.contributions)}
    return {
        "position": position,
        "run": run,
        "evaluation": evaluation,
        "names": [shown(name) for name in evaluation.class_names],
        "n": numbers,
        "sections": {one.name: page_section(one, numbers) for one in shown_sections(evaluation) if one.own_place},
        "further": [page_section(one, numbers) for one in further_sections(evaluation)],
        "best_member": next(
            f"leaderboard.{i}" for i, row in enumerate(evaluation.leaderboard) if row.kind == "best_member"
        ),
        "baseline": next(
            (f"leaderboard.{i}" for i, row in enumerate(evaluation.leaderboard) if row.kind == "baseline"), ""
        ),
        "controls": {
            row.kind: {"name": wording.short_name(row, True), "place": f"leaderboard.{i}"}
            for i, row in enumerate(evaluation.leaderboard)
            if row.kind in ("longer", "wider")
        },
        "headline": next(f"leaderboard.{i}" for i, row in enumerate(evaluation.leaderboard) if row.headline),
        "gains": gains if len(evaluation.members) > 1 else {},
        "unequal": wording.unequal(evaluation),
        "whiskers": _whiskers(evaluation.leaderboard),
        "figures": {
            one.plot.name: {"plot": one.plot, "svg": Markup(one.inline)}  # noqa: S704 - drawn by us
            for one in figures
            if one.plot.name not in INLINE_ELSEWHERE
        },
        "disputed": [_disputed_part(run, i, row, pictures) for i, row in enumerate(evaluation.disputed)],
        "confusion_shades": _confusion_shades(evaluation.confusion) if whole else [],
        "largest": [] if whole else largest_confusions(evaluation)[:CONFUSIONS_SHOWN],
        "worst": [] if whole else worst_classes(evaluation)[:CLASSES_SHOWN],
        **_wrong_part(run, pictures),
        "cut": cut_classes(evaluation),
        "how_shown": how_shown(len(next(iter(run.images.values())))) if run.images else "",
        "failed": wording.plural(len(run.failures), "member"),
        "cautions": wording.cautions(evaluation),
        "outlook": wording.outlook(evaluation),
        "decisions": DECISIONS,
        "recipes": list(dict.fromkeys(member.recipe for member in evaluation.members)),
        "seconds": wording.seconds,
        "milliseconds": wording.milliseconds,
        "row_costs": [None if run.costs is None else run.costs.of(row) for row in evaluation.leaderboard],
        "cost_sentence": "" if run.costs is None else cost_sentence(evaluation, run.costs),
        "percent": wording.percent,
    }


def _whiskers(rows: Sequence[LeaderboardRow]) -> list[tuple[float, float, float] | None]:
    """Each line's interval and error as positions in [0, 100] on one scale; None where there is no interval."""
    ends = [end for row in rows for end in (row.lower, row.upper, row.test_error) if not math.isnan(end)]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / span, 1)

    return [
        None if math.isnan(row.lower) else (place(row.lower), place(row.test_error), place(row.upper)) for row in rows
    ]


def _wrong_part(run: RunFacts, pictures: RunPictures) -> dict[str, Any]:
    """The test images that the vote gets wrong, the surest first, and the file of every disputed one."""
    test = [one for one in run.predictions if one.part == "test"]
    wrong = surest_mistakes(test)
    files = {one.row: one.file for one in test if one.file}
    both = [pictures.of(one.row) for one in wrong[:PICTURES_OF_WRONG]]
    nothing = BothPictures(None, None)
    told = [*(row.row for row in run.evaluation.disputed), *(one.row for one in wrong[:WRONG_SHOWN])]
    return {
        "links": {row: pictures.link(row) for row in told},
        "wrong": [
            (one, both[place] if place < len(both) else nothing) for place, one in enumerate(wrong[:WRONG_SHOWN])
        ],
        "wrong_pictures": any(one.seen or one.original for one in both),
        "wrong_count": len(wrong),
        "files": files,
        "kept_predictions": bool(test),
    }


def _confusion_shades(confusion: Sequence[Sequence[int]]) -> list[list[int]]:
    """How dark each cell is, in percent of the darkest: its share of the true class, the diagonal left out."""
    shares = [
        [0.0 if i == j else cell / max(1, sum(row)) for j, cell in enumerate(row)] for i, row in enumerate(confusion)
    ]
    top = max(max(row) for row in shares) or 1.0
    return [[math.ceil(80 * share / top) for share in row] for row in shares]


def _disputed_part(run: RunFacts, position: int, row: DisputedRow, pictures: RunPictures) -> dict[str, Any]:
    """One disputed image with the members behind each class, the class with most votes first."""
    indices = [member.index for member in run.evaluation.members]
    ranked = sorted((k for k, votes in enumerate(row.votes) if votes), key=lambda k: (-row.votes[k], k))
    return {
        "key": f"disputed.{position}",
        "row": row,
        "pictures": pictures.of(row.row),
        "classes": [
            {
                "class": k,
                "share": 100 * row.votes[k] / sum(row.votes),
                "members": [index for index, voted in zip(indices, row.member_classes, strict=True) if voted == k],
            }
            for k in ranked
        ],
    }
