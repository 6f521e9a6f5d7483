"""A comparison as text: the table of systems, the sentence about the joint vote, and the pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ensemble.evaluation.comparing import ComparedLine, Comparison
from ensemble.evaluation.paper_table import PaperTable
from ensemble.evaluation.written import ALPHA
from ensemble.outside.names import in_markdown, shown
from ensemble.report import wording
from ensemble.report.notebook_table import HtmlRow, table_html
from ensemble.report.paper_tables import latex

if TYPE_CHECKING:
    from rich.console import Console

HEADERS = ("", "error %", "95 % int.", "wrong", "difference", "p", "val %", "NLL", "voters", "seconds")
MARGIN, WORTH = "as good", "worth"
NARROW = ("", "error %", "95 % int.", "difference", "p", MARGIN)
PAIRS_SHOWN = 15


def headers(comparison: Comparison) -> tuple[str, ...]:
    """Titles of the columns: those that every comparison has, and those of what was asked for or is there."""
    asked = () if math.isnan(comparison.margin) else (MARGIN,)
    return HEADERS + asked + ((WORTH,) if comparison.yardstick else ())


def cells(line: ComparedLine, titles: tuple[str, ...] = HEADERS) -> tuple[str, ...]:
    """One line of the table, in the order of the titles, the name fit to be shown."""
    difference = wording.NONE if line.only_this_wrong is None else wording.points(line.difference)
    more = {MARGIN: _as_good(line), WORTH: _worth(line)}
    return (
        shown(line.name),
        wording.percent(line.test_error),
        wording.percent_interval(line.lower, line.upper),
        wording.count(line.wrong),
        difference,
        wording.p_value(line.p_holm),
        wording.percent(line.validation_error),
        wording.loss(line.nll),
        str(line.voters),
        wording.seconds(line.train_seconds),
        *(more[title] for title in titles if title in more),
    )


def _as_good(line: ComparedLine) -> str:
    """Whether it was shown to be as good as the reference."""
    if math.isnan(line.equivalence_p):
        return wording.NONE
    return f"{'yes' if line.equivalence_p < ALPHA else 'not shown'} ({wording.p_value(line.equivalence_p)})"


def _worth(line: ComparedLine) -> str:
    """How many members of the yardstick."""
    if math.isnan(line.worth):
        return wording.NONE
    return f"> {line.worth:.0f}" if line.worth_beyond else f"{line.worth:.1f}"


def sentence(comparison: Comparison, line: ComparedLine, escape: Callable[[str], str] = shown) -> str:
    """What the test says about a line and the reference. escape: makes names fit for where it will stand.

    The interval belongs to the test of this line alone. Where the adjustment for all lines takes that test's verdict
    back, the sentence says so, instead of an interval without 0 beside "not distinguishable".
    """
    claim = "is not distinguishable from"
    if line.p_holm < ALPHA:
        claim = "is better than" if line.difference < 0 else "is worse than"
    tested = sum(not math.isnan(one.p_holm) for one in comparison.lines)
    p = wording.p_equation(line.p_holm)
    if tested > 1:
        p = f"{wording.p_equation(line.p_value)}; adjusted for {tested} lines {p}"
    taken_back = "; by itself it would be" if line.p_value < ALPHA <= line.p_holm else ""
    reference = next(one for one in comparison.lines if one.name == comparison.reference)
    return (
        f"The {line.name} {claim} {escape(comparison.reference)}{' once adjusted for all lines' if taken_back else ''}: test error "
        f"{wording.percent(line.test_error)} % against {wording.percent(reference.test_error)} %, a difference of "
        f"{wording.points(line.difference)} points (95 % interval {wording.points(line.difference_lower)} to "
        f"{wording.points(line.difference_upper)}; {p}{taken_back})."
    )


def notes(comparison: Comparison, escape: Callable[[str], str] = shown) -> list[str]:
    """What the columns mean. escape: makes names fit for where they will stand."""
    return [
        f"difference: points of error against {escape(comparison.reference)}, the reference (the first item, or --reference).",
        "p: exact McNemar test against the reference on the same images, adjusted for the number of lines (Holm).",
        *_more_notes(comparison, escape),
    ]


def _more_notes(comparison: Comparison, escape: Callable[[str], str]) -> Iterator[str]:
    if not math.isnan(comparison.margin):
        yield (
            f"as good: within {wording.percent(comparison.margin)} points of error of {escape(comparison.reference)}, by two one-sided score tests "
            "(Tango 1998; the larger p-value); not shown is not the same as worse."
        )
    if comparison.yardstick:
        yield (
            f"worth: how many members of {escape(comparison.yardstick)}, a deep ensemble, have the same log-likelihood, temperatures fitted on "
            "validation (deep ensemble equivalent, Ashukha et al. 2020)."
        )


def print_comparison(comparison: Comparison) -> None:
    """Print it to stdout; a narrow terminal shows fewer columns, never fewer lines."""
    from ensemble.tracking.terminal import open_table_console

    console = open_table_console()
    if console.is_terminal:
        _show(console, comparison)
        return
    with console.capture() as captured:
        _show(console, comparison)
    # rich fills every line up with spaces, which a file or a diff has no use for.
    console.file.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def _show(console: Console, comparison: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    name = shown(comparison.judged_on or comparison.dataset) or "foreign probabilities"
    what = "images" if comparison.judged_on else "test images"
    console.print(Text(f"{name}: {len(comparison.lines)} lines on {comparison.test_rows:,} {what}", style="bold"))
    console.print()
    wide = console.width >= 100
    titles = headers(comparison)
    columns = [i for i, title in enumerate(titles) if wide or title in NARROW]
    table = Table(box=None, header_style="bold", padding=(0, 2 if wide else 1, 0, 0), pad_edge=False)
    for i in columns:
        table.add_column(titles[i], justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
    for line in comparison.lines:
        row = cells(line, titles)
        label = row[0] + (" (reference)" if line.name == comparison.reference else "")
        table.add_row(label, *(row[i] for i in columns[1:]), style="bold" if line.kind == "joint" else "")
    console.print(table)
    console.print()
    for line in comparison.lines:
        if line.kind == "joint":
            console.print(Text(sentence(comparison, line)))
    console.print()
    _print_pairs(console, comparison)
    for note in notes(comparison):
        console.print(Text(note))


def _print_pairs(console: Console, comparison: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    if not 1 < len(comparison.pairs) <= PAIRS_SHOWN:
        if len(comparison.pairs) > PAIRS_SHOWN:
            console.print(Text(f"{len(comparison.pairs):,} pairs of systems: all of them with --json"))
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("each pair", overflow="fold")
    for title in ("only 1st wrong", "only 2nd wrong", "p (Holm)"):
        table.add_column(title, justify="right", no_wrap=True)
    for pair in comparison.pairs:
        counts = (str(pair.only_first_wrong), str(pair.only_second_wrong))
        table.add_row(f"{shown(pair.first)} - {shown(pair.second)}", *counts, wording.p_value(pair.p_holm))
    console.print(table)
    console.print()


def comparison_html(comparison: Comparison) -> str:
    """The table, the sentences and the notes for a notebook, which takes its own looks; names are escaped."""
    titles = headers(comparison)
    rows = [
        HtmlRow(cells(line, titles), line.name == comparison.reference or line.kind == "joint")
        for line in comparison.lines
    ]
    texts = [sentence(comparison, line) for line in comparison.lines if line.kind == "joint"]
    return table_html(titles, rows, [*texts, *notes(comparison)])


def comparison_latex(comparison: Comparison, mark: str = "") -> str:
    """The table as LaTeX; its caption is the sentence on the joint vote, where there is one. mark: see `keeping`."""
    texts = [sentence(comparison, line) for line in comparison.lines if line.kind == "joint"]
    titles = headers(comparison)
    rows = tuple(cells(line, titles) for line in comparison.lines)
    bold = frozenset(place for place, line in enumerate(comparison.lines) if line.kind == "joint")
    caption = " ".join([*texts, *notes(comparison)])
    return latex(PaperTable("comparison", caption, titles, rows, "", bold), mark)


def comparison_markdown(comparison: Comparison, mark: str = "") -> str:
    """The table, the sentences and the notes for a README. mark: by which the file is known again, see `keeping`."""
    titles = headers(comparison)
    lines = [
        "| " + " | ".join(titles) + " |",
        "|---|" + "---:|" * (len(titles) - 1),
        *(
            f"| {' | '.join([in_markdown(line.name), *map(in_markdown, cells(line, titles)[1:])])} |"
            for line in comparison.lines
        ),
    ]
    texts = [sentence(comparison, line, in_markdown) for line in comparison.lines if line.kind == "joint"]
    remarks = [*(f"- {note}" for note in notes(comparison, in_markdown)), *(["", f"<!-- {mark} -->"] if mark else [])]
    return "\n".join([*lines, "", *(f"{text}\n" for text in texts), *remarks]) + "\n"
