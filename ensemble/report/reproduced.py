"""Published single networks beside ours: the table for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.report import wording
from ensemble.results.reproduction import Reproduced

TABLE = "seeds.md"
HEADERS = (
    "row", "system", "parameters", "epochs", "seeds", "published %", "as", "ours %", "95 % int.", "reached", "goal %",
    "goal reached", "all seeds vote %", "picked on test %", "kept epoch", "seconds",
)  # fmt: skip
NOTES = (
    "ours: mean test error of the seeds, each with the weights chosen on validation; the interval is Student's t over at least three seeds.",
    "reached: our mean is at or below the published error; most of those were picked on the test set.",
    "picked on test: the mean of each seed's best test epoch, for comparison with such figures only; nobody could have chosen it.",
    "seconds: training, all seeds of the row together.",
)


def cells(result: Reproduced) -> tuple[str, ...]:
    """One line of the table, in the order of HEADERS."""
    row, planned = result.row, result.planned_epochs
    picked = result.test_picked
    kept = result.kept_epochs
    return (
        row.name,
        row.system,
        f"{result.num_parameters:,}",
        str(result.epochs) if result.epochs == planned else f"{result.epochs} of {planned}",
        str(len(result.errors)),
        wording.NONE if row.published is None else wording.percent(row.published),
        row.how,
        wording.percent(result.mean_error),
        wording.percent_interval(*result.interval),
        _yes(result.reached),
        wording.NONE if row.goal is None else wording.percent(row.goal) + (" in each last epoch" * row.goal_every),
        _goal(result),
        wording.percent(result.vote_error) if len(result.errors) > 1 else wording.NONE,
        wording.percent(sum(picked) / len(picked)) if picked else wording.NONE,
        str(kept[0]) if len(set(kept)) == 1 else f"{min(kept)}-{max(kept)}",
        wording.seconds(result.seconds),
    )


def markdown(results: Sequence[Reproduced], mark: str = "") -> str:
    """The table and its notes as Markdown. mark: by which the file is known again, see `keeping`."""
    lines = [HEADERS, tuple("---" for _ in HEADERS), *(cells(result) for result in results)]
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    remarks = [*(f"- {note}" for note in NOTES), *(["", f"<!-- {mark} -->"] if mark else [])]
    return "\n".join([*rows, "", *remarks]) + "\n"


def print_reproduced(results: Sequence[Reproduced]) -> None:
    """The table on stdout; a narrow terminal shows fewer columns, the Markdown file has them all."""
    from rich.table import Table

    from ensemble.tracking.terminal import open_table_console

    console = open_table_console()
    shown = [i for i, name in enumerate(HEADERS) if console.width >= 150 or name not in _WIDE]
    table = Table(box=None, header_style="bold")
    for i in shown:
        table.add_column(HEADERS[i], no_wrap=HEADERS[i] not in ("system", "as", "goal reached"), overflow="fold")
    for result in results:
        line = cells(result)
        table.add_row(*(line[i] for i in shown))
    console.print(table)
    for note in NOTES:
        console.print(note, style="dim")


_WIDE = frozenset(
    {
        "as",
        "system",
        "parameters",
        "seconds",
        "picked on test %",
        "goal %",
        "goal reached",
        "kept epoch",
        "all seeds vote %",
    }
)


def _yes(reached: bool | None) -> str:
    return wording.NONE if reached is None else "yes" if reached else "no"


def _goal(result: Reproduced) -> str:
    found = _yes(result.goal_reached)
    if result.row.goal_every and result.last_errors:
        found += f" ({', '.join(wording.percent(error) for error in result.last_errors)})"
    return found
