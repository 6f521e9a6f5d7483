"""The list of runs for people, for programs (JSON) and for spreadsheets (CSV).

A narrow terminal loses columns, the least needed first, and is told which; names and figures are never cut.
"""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from ensemble.evaluation.written import NONE as _NONE
from ensemble.evaluation.written import plural
from ensemble.outside.names import shown
from ensemble.overview.keys import KEYS, Key, differing_columns, shown_keys, size_text
from ensemble.overview.prices import Money, money_of
from ensemble.overview.rows import STATES, Row
from ensemble.overview.spending import Spent
from ensemble.storage.names import BESIDE
from ensemble.tracking.terminal import open_table_console

_STYLES = {"running": "bold", "failed": "red", "damaged": "red", "interrupted": "bold", "no run": "dim"}
_ALIKE = 50  # by how much less a column is needed that says the same of every run
_GAP = 2


def print_rows(rows: Sequence[Row], cost: bool, prices: Mapping[str, float]) -> None:
    """The table, what is wrong with runs that cannot be read, and sums, on stdout."""
    console = open_table_console()
    with console.capture() as captured:
        columns = _columns(rows, cost, prices)
        kept, left_out = _that_fit(columns, rows, console.width)
        console.print(_table(kept, rows), crop=False)
        for row in rows:
            if row.problem:
                style = "dim" if row.state == "no run" else "red"
                console.print(Text(f"{shown(row.name)}: {shown(row.problem, 400)}", style))
        if left_out:
            titles = ", ".join(key.title for key in left_out)
            console.print(Text(f"no room for: {titles} (a wider terminal, a pipe and --json have all)", "dim"))
        for line in _sums(rows, cost, prices):
            console.print(Text(line))
    # rich fills every line up with spaces, which a file or a diff has no use for.
    console.file.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def _columns(rows: Sequence[Row], cost: bool, prices: Mapping[str, float]) -> list[Key]:
    columns = [key for key in KEYS if key.rank and (cost or not key.cost)]
    columns = [key for key in columns if not (key.cost and all(not key.value(row) for row in rows))]
    if prices:
        columns.append(
            Key(
                "money",
                "money",
                "number",
                lambda _row: None,
                lambda row: _NONE if row.spent is None else _money_text(money_of(row, prices)),
                96,
            )
        )
    return columns + differing_columns(rows)


def _that_fit(columns: Sequence[Key], rows: Sequence[Row], width: int) -> tuple[list[Key], list[Key]]:
    """The columns for which there is room, in their order, and those for which there is none, the most needed first."""
    widths = {key.name: max(cell_len(text) for text in (key.title, *map(key.text, rows))) for key in columns}

    def need(key: Key) -> int:
        said = [key.text(row) for row in rows if not row.problem]
        alike = len(said) > 1 and len(set(said)) == 1 and key.name not in ("name", "state")
        return key.rank - (_ALIKE if alike else 0)

    by_need = sorted(columns, key=need, reverse=True)
    kept = list(by_need)
    while len(kept) > 1 and sum(widths[key.name] + _GAP for key in kept) - _GAP > width:
        kept.pop()
    # A later, narrower column may still fit where a wider one did not.
    for key in by_need[len(kept) + 1 :]:
        if sum(widths[one.name] + _GAP for one in kept) + widths[key.name] <= width:
            kept.append(key)
    names = {key.name for key in kept}
    return [key for key in columns if key.name in names], [key for key in by_need if key.name not in names]


def _table(columns: Sequence[Key], rows: Sequence[Row]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, _GAP, 0, 0), pad_edge=False)
    for key in columns:
        right = key.kind != "text" or all(isinstance(key.value(row), int | float | None) for row in rows)
        whole = key.name != "name"  # a name may be wider than the terminal, and is then folded
        table.add_column(key.title, justify="right" if right else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        style = _STYLES.get(row.state, "")
        table.add_row(*(Text(key.text(row), style if key.name == "state" else "") for key in columns))
    return table


def _sums(rows: Sequence[Row], cost: bool, prices: Mapping[str, float]) -> list[str]:
    states = Counter(row.state for row in rows)
    counted = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    lines = [
        f"{plural(len(rows), 'run')}{f': {counted}' if counted else ''}; {size_text(sum(row.size or 0 for row in rows))}"
    ]
    if cost:
        spent = [each for row in rows for each in row.spent or ()]
        kinds = sorted({each.device for each in spent})
        parts = [
            f"{_NAMES.get(kind, kind)} {_duration(sum(s.seconds for s in spent if s.device == kind))}" for kind in kinds
        ]
        lost = sum(each.lost for each in spent)
        lines.append(
            f"spent: {', '.join(parts) or 'nothing'}" + (f", {_duration(lost)} of it in tries that left nothing" if lost else "")
            + "; time in which slots trained, without idle slots, loading and judging"
        )  # fmt: skip
    if prices:
        total = money_of_all(rows, prices)
        lines.append(f"money: {_money_text(total)}" + _unpriced(total))
    return lines


_NAMES = {"cpu": "CPU slots", "cuda": "GPUs"}


def _duration(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 600 else f"{seconds / 3600:,.2f} h"


def money_of_all(rows: Sequence[Row], prices: Mapping[str, float]) -> Money:
    """What all runs cost together."""
    each = [money_of(row, prices) for row in rows]
    return Money(sum(one.amount for one in each), tuple(sorted({kind for one in each for kind in one.unpriced})))


def _money_text(money: Money) -> str:
    digits = 2 if money.amount == 0 or money.amount >= 0.1 else 4
    text = "<0.0001" if 0 < money.amount < 0.0001 else f"{money.amount:,.{digits}f}"
    return text + ("+" if money.unpriced else "")


def _unpriced(money: Money) -> str:
    return f" (without {', '.join(money.unpriced)}, which has no --price)" if money.unpriced else ""


def rows_json(rows: Sequence[Row], cost: bool, prices: Mapping[str, float]) -> dict[str, Any]:
    """All figures: rates as fractions, times in seconds or as ISO 8601 with the zone; null where there is nothing to know."""
    made: dict[str, Any] = {"runs": [_record(row, cost, prices) for row in rows], "differing": shown_keys(rows)}
    if prices:
        total = money_of_all(rows, prices)
        made["money"] = {"amount": total.amount, "unpriced": list(total.unpriced)}
    return made


def _record(row: Row, cost: bool, prices: Mapping[str, float]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": row.name, "place": row.place, "state": row.state, "state_by": row.state_by or None, "problem": row.problem or None,
        "members": row.members, "members_finished": row.members_finished, "members_failed": row.members_failed,
        "epochs": row.epochs, "epochs_done": row.epochs_done, "method": row.method, "network": row.network, "data": row.data,
        "error": row.error, "best": row.best, "nll": row.nll, "size": row.size, "date": _iso(row.date), "values": dict(row.values),
    }  # fmt: skip
    if cost:
        spent = row.spent or ()
        record["spent"] = {
            "seconds": {kind: sum(each.seconds for each in spent if each.device == kind) for kind in sorted({each.device for each in spent})},
            "lost_seconds": sum(each.lost for each in spent),
            "members": [_spent_record(each, row) for each in spent],
        }  # fmt: skip
    if prices:
        money = money_of(row, prices)
        record["money"] = {"amount": money.amount, "unpriced": list(money.unpriced)}
    return record


def _spent_record(each: Spent, row: Row) -> dict[str, Any]:
    beyond = -1 if row.members is None else each.member - row.members
    member: int | str = list(BESIDE)[beyond] if beyond >= 0 else each.member
    return {"member": member, "device": each.device, "seconds": each.seconds, "lost_seconds": each.lost}


def _iso(moment: float | None) -> str | None:
    return None if moment is None else time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(moment))


def rows_csv(rows: Sequence[Row], cost: bool, prices: Mapping[str, float]) -> str:
    """A line for each run under the keys of the JSON document, and the keys in which the runs differ; nothing where there is nothing."""
    text, differing = io.StringIO(), shown_keys(rows)
    names = [name for name in _record(Row("", "", "no run"), False, {}) if name != "values"]
    names += [*(["cpu_seconds", "gpu_seconds", "lost_seconds"] if cost else []), *(["money"] if prices else [])]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *differing])
    by_name = {key.name: key for key in KEYS}
    for row in rows:
        record = _record(row, False, prices)
        if prices:
            record["money"] = record["money"]["amount"]
        record |= {name: by_name[name].value(row) for name in names if name in by_name and by_name[name].cost}
        cells = [record[name] for name in names] + [row.values.get(name) for name in differing]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()
