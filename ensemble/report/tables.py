"""The leaderboard as text: for the terminal, as CSV, as Markdown and for notebooks.

`print_evaluation` writes data to stdout: readable from 80 columns on, without control codes when piped. A narrow
terminal loses columns, the least needed first, and never wraps a number.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ensemble.evaluation.paper_table import records_csv
from ensemble.evaluation.records import Evaluation, Kind, LeaderboardRow
from ensemble.outside.names import markdown_text, shown
from ensemble.report import wording
from ensemble.report.notebook_table import HtmlRow, table_html
from ensemble.results.line_costs import NO_COSTS, LineCosts
from ensemble.storage.remote import address_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MEMBERS_SHOWN = 12
MS_ONE, MS_BATCH = "ms", "batch ms"
NAME_WIDTH = 24  # a longer name wraps; the longest short name of one recipe fits
INTERVAL = "95 % int."
BALANCED = "bal. %"
P_NOTE = (
    "p: exact McNemar test against the best member by validation; "
    "adjusted for the number of lines (Holm), except for the headline (*)."
)
P_SHORT = "p: exact McNemar test against the best member by validation."
P_AND_MS = "p: exact McNemar test against the best by validation. ms: to predict one image."
ORACLE_NOTE = "oracle: picked by its test labels, so nobody could have chosen it beforehand."


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard; those with a lower rank go first when there is no room."""

    title: str
    text: Callable[[LeaderboardRow], str]
    rank: int


COLUMNS = (
    Column("error %", lambda row: wording.percent(row.test_error), 9),
    Column(INTERVAL, lambda row: wording.percent_interval(row.lower, row.upper), 8),
    Column(BALANCED, lambda row: wording.percent(row.balanced_error), 6),
    Column("wrong", lambda row: wording.count(row.wrong), 4),
    Column("val %", lambda row: wording.percent(row.validation_error), 5),
    Column("NLL", lambda row: wording.loss(row.nll), 3),
    Column("p", lambda row: wording.p_value(row.p_holm), 7),
    Column("params", lambda row: wording.large_count(row.num_parameters), 1),
    Column("seconds", lambda row: wording.seconds(row.train_seconds), 2),
)


@dataclass(frozen=True)
class Line:
    """One printed line. style: a rich style, never the only bearer of a meaning."""

    cells: tuple[str, ...]
    style: str = ""


SHORT: tuple[Kind, ...] = (
    "best_member",
    "baseline",
    "longer",
    "wider",
    "mean_member",
)  # the lines of a short answer, after the headline
SHORT_COLUMNS = ("error %", INTERVAL, BALANCED, "wrong", "NLL", "p", "seconds", MS_ONE)


def print_evaluation(
    evaluation: Evaluation,
    path: Path | str,
    everything: bool = False,
    stream: TextIO | None = None,
    costs: LineCosts | None = None,
) -> None:
    """Print verdict, cautions and where the run lies to `stream`, by default stdout, with a few lines of the leaderboard.

    path: the run's folder, or its address. everything: all its lines, and all that is said about it. costs: what predictions take,
    where it was measured.
    """
    from ensemble.tracking.terminal import open_table_console

    console = open_table_console(stream)
    if console.is_terminal:
        _show(console, evaluation, path, everything, costs)
        return
    with console.capture() as captured:
        _show(console, evaluation, path, everything, costs)
    # rich fills every line up with spaces, which a file or a diff has no use for.
    console.file.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def _show(
    console: Console, evaluation: Evaluation, path: Path | str, everything: bool, costs: LineCosts | None
) -> None:
    from rich.text import Text

    from ensemble.tracking.terminal import BAD, GOOD, OPEN, marked

    console.print(Text(_title(evaluation), style="bold"))
    console.print()
    console.print(_rich_table(evaluation, console.width, everything, costs))
    console.print()
    outcome = evaluation.verdict.outcome
    mark = {"better": GOOD, "worse": BAD, "not distinguishable": OPEN}[outcome]
    console.print(marked(evaluation.verdict.sentence, outcome, mark, "bold"))
    console.print()
    said = (
        (*wording.context(evaluation), *notes(evaluation, costs))
        if everything
        else (*wording.essentials(evaluation), P_SHORT if costs is None else P_AND_MS)
    )
    for line in said:
        console.print(Text(line))
    for line in wording.cautions(evaluation):
        console.print(marked(f"warning: {line}", "warning:", OPEN))
    folder = shown(path if isinstance(path, str) else address_of(path) or str(path), 4096)
    typed = shlex.quote(folder)
    if everything and costs is None and evaluation.can_predict:
        console.print(Text(f"milliseconds a prediction: ensemble cost {typed}"), soft_wrap=True)
    if not everything:
        console.print(Text(f"more: ensemble evaluate {typed} --all, ensemble report {typed}"), soft_wrap=True)
    console.print(Text(f"run: {folder}"), soft_wrap=True)  # one piece, so that it can be copied


def leaderboard_csv(evaluation: Evaluation, costs: LineCosts | None = None) -> str:
    """Every field of every line, rates as fractions with all digits; what does not exist is empty.

    The last two columns are what a prediction takes, of one image alone and of each in a batch, where it was measured.
    """
    found = [NO_COSTS if costs is None else costs.figures(row) for row in evaluation.leaderboard]
    more = {name: ["" if each[name] is None else repr(each[name]) for each in found] for name in NO_COSTS}
    return records_csv(LeaderboardRow, evaluation.leaderboard, more)


def leaderboard_markdown(evaluation: Evaluation, costs: LineCosts | None = None) -> str:
    """The leaderboard and the verdict for a README."""
    columns = visible_columns(evaluation, costs)
    lines = [
        " | ".join(["", "", *(column.title for column in columns), ""]).strip(),
        "|---|" + "---:|" * len(columns),
    ]
    for line in _lines(evaluation, columns):
        if line is not None:
            mark = "**" if line.style == "bold" else ""
            cells = [f"{mark}{markdown_text(cell)}{mark}" if cell else "" for cell in line.cells]
            lines.append(f"| {' | '.join(cells)} |")
    # A sentence may hold the name of a class.
    texts = [evaluation.verdict.sentence, *map(markdown_text, wording.context(evaluation)), *notes(evaluation, costs)]
    warnings = [f"Warning: {line}" for line in wording.cautions(evaluation)]
    return "\n\n".join(["\n".join(lines), *texts, *warnings]) + "\n"


def leaderboard_cells(
    evaluation: Evaluation, costs: LineCosts | None = None
) -> tuple[tuple[str, ...], tuple[tuple[str, ...] | None, ...], frozenset[int]]:
    """Headers, lines (None is the gap between groups) and which lines stand out, as the terminal has them."""
    columns = visible_columns(evaluation, costs)
    lines = _lines(evaluation, columns)
    bold = frozenset(place for place, line in enumerate(lines) if line is not None and line.style == "bold")
    rows = tuple(None if line is None else line.cells for line in lines)
    return ("", *(column.title for column in columns)), rows, bold


def leaderboard_html(evaluation: Evaluation, costs: LineCosts | None = None) -> str:
    """The leaderboard and the verdict for a notebook: a plain table, which takes the notebook's own looks."""
    columns = visible_columns(evaluation, costs)
    rows = [HtmlRow(line.cells, line.style == "bold") for line in _lines(evaluation, columns) if line is not None]
    texts = [evaluation.verdict.sentence, *wording.essentials(evaluation)]
    warnings = [f"Warning: {line}" for line in wording.cautions(evaluation)]
    return table_html(("", *(column.title for column in columns)), rows, [*texts, *warnings])


def notes(evaluation: Evaluation, costs: LineCosts | None = None) -> list[str]:
    """What the columns and names mean, as far as the table needs it."""
    found = [P_NOTE, ORACLE_NOTE]
    if wording.unequal(evaluation):
        found.append(f"{BALANCED}: the mean over the classes of the share of their test images in error.")
    if _one_size(evaluation):
        found.append(f"Every member has {evaluation.members[0].num_parameters:,} parameters.")
    if costs is not None:
        found.append(
            f"{MS_ONE}: milliseconds for one image alone, from its pixels to probabilities; {MS_BATCH}: for each of {costs.batch} "
            f"({costs.machine}). {cost_sentence(evaluation, costs)}"
        )
    return found


def cost_sentence(evaluation: Evaluation, costs: LineCosts) -> str:
    """What the lines that were measured take, with what they need of parameters."""
    names = {"vote": "The vote", "best_member": "the best member by validation", "baseline": "one network on all rows"}
    names |= {row.kind: row.name for row in evaluation.leaderboard if row.kind in ("longer", "wider")}
    said = []
    for row in evaluation.leaderboard:
        cost = costs.of(row)
        if cost is not None and row.kind in names:
            times = [wording.milliseconds(each) for each in (cost.one_ms, cost.each_of_batch_ms) if each is not None]
            said.append(f"{names[row.kind]} ({row.num_parameters:,.0f} parameters) {' and '.join(times)} ms")
    return "; ".join(said) + "."


def visible_columns(evaluation: Evaluation, costs: LineCosts | None = None) -> list[Column]:
    """All columns but the balanced error where the classes are of about equal size, and those of predictions where nobody measured them."""
    shown = [column for column in COLUMNS if column.title != BALANCED or wording.unequal(evaluation)]
    return shown if costs is None else [*shown, *_cost_columns(costs)]


def _cost_columns(costs: LineCosts) -> tuple[Column, Column]:
    def one(row: LeaderboardRow) -> str:
        found = costs.of(row)
        return wording.NONE if found is None else wording.milliseconds(found.one_ms)

    def of_batch(row: LeaderboardRow) -> str:
        found = costs.of(row)
        return wording.NONE if found is None else wording.milliseconds(found.each_of_batch_ms)

    return Column(MS_ONE, one, 2), Column(MS_BATCH, of_batch, 0)


def _one_size(evaluation: Evaluation) -> bool:
    return evaluation.can_predict and len({member.num_parameters for member in evaluation.members}) == 1


def _title(evaluation: Evaluation) -> str:
    recipes = list(dict.fromkeys(member.recipe for member in evaluation.members))
    members = wording.plural(len(evaluation.members), "member")
    return f"{shown(evaluation.dataset)}: {members} ({', '.join(recipes)}) on {evaluation.test_rows:,} test images"


def _rich_table(evaluation: Evaluation, width: int, everything: bool = True, costs: LineCosts | None = None) -> Table:
    from rich.table import Table

    columns = visible_columns(evaluation, costs)
    if not everything:
        columns = [column for column in columns if column.title in SHORT_COLUMNS]
    lines = _lines(evaluation, columns, everything)
    widths = [
        max(len(cell) for cell in (column.title, *(line.cells[i + 1] for line in lines if line)))
        for i, column in enumerate(columns)
    ]
    names = max(len(line.cells[0]) for line in lines if line)
    kept = list(range(len(columns)))
    while len(kept) > 1 and sum(widths[i] + 1 for i in kept) + min(NAME_WIDTH, names) > width:
        kept.remove(min(kept, key=lambda i: columns[i].rank))
    gap = 2 if sum(widths[i] + 2 for i in kept) + names <= width else 1
    table = Table(box=None, header_style="bold", padding=(0, gap, 0, 0), pad_edge=False)
    table.add_column("")
    for i in kept:
        table.add_column(columns[i].title, justify="right", no_wrap=True, min_width=widths[i])
    for line in lines:
        if line is None:
            table.add_row()
        else:
            table.add_row(line.cells[0], *(line.cells[i + 1] for i in kept), style=line.style)
    return table


def _lines(evaluation: Evaluation, columns: Sequence[Column], everything: bool = True) -> list[Line | None]:
    """Votes, chosen votes and members, or the few lines of a short answer; None is the gap between them."""
    one_recipe = len({member.recipe for member in evaluation.members}) == 1

    def line(row: LeaderboardRow) -> Line:
        name = wording.short_name(row, one_recipe) + (" *" if row.headline else "")
        style = "bold" if row.headline else "dim" if row.kind == "oracle" else ""
        return Line((name, *(column.text(row) for column in columns)), style)

    def of(*kinds: str) -> list[Line | None]:
        return [line(row) for row in evaluation.leaderboard if row.kind in kinds]

    if not everything:
        return [line(evaluation.headline), *of(*SHORT)]

    members = [row for row in evaluation.leaderboard if row.kind == "member"]
    if len(members) <= MEMBERS_SHOWN:
        shown: list[Line | None] = [line(row) for row in members]
    else:
        ordered = sorted(members, key=lambda row: row.validation_error)
        half = MEMBERS_SHOWN // 2
        between = _between(ordered[half:-half], columns)
        shown = [*(line(row) for row in ordered[:half]), between, *(line(row) for row in ordered[-half:])]
    parts = [of("vote"), of("chosen"), of(*SHORT), shown, of("oracle")]
    return [entry for part in parts if part for entry in (None, *part)][1:]


def _between(rows: Sequence[LeaderboardRow], columns: Sequence[Column]) -> Line:
    """One line for the members that lie between the best and the worst by validation: their range of test errors."""
    errors = [row.test_error for row in rows]
    span = wording.percent_interval(min(errors), max(errors))
    cells = [span if column.title == INTERVAL else "" for column in columns]
    return Line((f"... {len(rows):,} more, range", *cells), "dim")
