"""One run as one line: state, progress, figures and cost, from its folder alone.

    rows = read_rows(find_sources("runs"))

Nothing that goes wrong with one run ends the reading of the others: its row says what it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ensemble.errors import EnsembleError, first_line
from ensemble.overview.history import History, read_history
from ensemble.overview.sizes import bytes_in, listed_bytes, require_listed_sizes
from ensemble.overview.sources import Source
from ensemble.overview.spending import Spent, spent_by_member
from ensemble.storage import RunFolder
from ensemble.storage.identity import comparable_values
from ensemble.storage.judged_figures import figures_of
from ensemble.storage.lock_state import is_written_to
from ensemble.storage.names import BESIDE, CONFIG, EVALUATION
from ensemble.storage.remedies import unfit

State = Literal["finished", "running", "interrupted", "failed", "damaged", "no run"]
STATES: tuple[State, ...] = ("finished", "running", "interrupted", "failed", "damaged", "no run")
RECENT_S = 600.0  # where no lock tells, a run whose log grew within this time is taken to be running
_TRIES = 3  # a run that is being written to may change between two of its files


@dataclass(frozen=True)
class Row:
    """What is known of a run. Rates are fractions, losses in nats, times unix seconds; None where there is nothing to know.

    state_by: "lock" or "log": what says that it runs, or no longer does. problem: why it is damaged, or no run. epochs: of all
    members together, behind and needed. values: the configuration by dotted key. spent: seconds of devices, where asked for.
    """

    name: str
    place: str
    state: State
    state_by: str = ""
    problem: str = ""
    members_finished: int | None = None
    members: int | None = None
    members_failed: int | None = None
    epochs_done: int | None = None
    epochs: int | None = None
    method: str | None = None
    network: str | None = None
    data: str | None = None
    error: float | None = None
    best: float | None = None
    nll: float | None = None
    size: int | None = None
    date: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    spent: tuple[Spent, ...] | None = None


def read_rows(sources: Iterable[Source], cost: bool = False) -> list[Row]:
    """A row for each. cost: also what was spent, for which whole event logs are read."""
    return [read_row(source, cost) for source in sources]


def read_row(source: Source, cost: bool = False) -> Row:
    """The row of one run."""
    if source.reason:
        return Row(source.name, source.place, "no run", problem=source.reason)
    problem = ""
    for _ in range(_TRIES):
        try:
            with source.opened() as folder:
                return _row(source, folder, cost)
        except (EnsembleError, OSError, RecursionError) as error:  # of values that are nested without end
            found = first_line(error).removeprefix(f"{source.place}/")
            if found == problem:
                break
            problem = found
    return Row(source.name, source.place, "damaged", problem=problem)


def _row(source: Source, folder: RunFolder, cost: bool) -> Row:
    stored, asked = folder.config(), folder.judged_config()
    folder.plan()
    figures = figures_of(folder) if folder.has(EVALUATION) else None
    held = None if source.remote else is_written_to(folder.path)
    history = read_history(folder, whole=cost or bool(held))
    if not history.whole and not history.ended:
        history = read_history(folder, whole=True)
    state, state_by = state_of(history, held, len(folder.finished()), asked.failures.min_members, figures is not None)
    if state != "running" and not source.remote:
        require_listed_sizes(folder)
    done, needed = history.epochs
    values = comparable_values(stored)
    row = Row(
        source.name, source.place, state, state_by, "", len(folder.finished()), asked.asked_members, history.failed,
        needed if state == "finished" else done, needed, asked.method.name, _networks(stored), _data(stored),
        size=listed_bytes(folder) if source.remote else bytes_in(folder.path), date=history.date, values=values,
    )  # fmt: skip
    if figures is not None:
        row = replace(row, error=figures.error, best=figures.best, nll=figures.nll)
    if not cost:
        return row
    spent = spent_by_member(history.events)
    if figures is not None:
        kind = str(folder.plan().get("device") or "unknown")
        spent += [
            Spent(asked.asked_members + place, kind, figures.beside_seconds[which], 0.0)
            for place, which in enumerate(BESIDE)
            if which in figures.beside_seconds
        ]
    shared = values.get("compute.gpus_per_task")
    gpus = float(shared) if isinstance(shared, int | float) else 1.0
    return replace(row, spent=tuple(_of_devices(each, gpus) for each in spent))


def state_of(
    history: History, held: bool | None, finished: int, min_members: int, judged: bool, now: float | None = None
) -> tuple[State, str]:
    """The state of a run that can be read, and what says whether it is running: "lock" or "log".

    held: whether its lock is; None where that says nothing. finished: members that are stored.
    """
    by = "log" if held is None else "lock"
    if held:
        return "running", by
    if history.ended or (history.empty and judged):
        return "finished", by
    now = time.time() if now is None else now
    if held is None and history.date is not None and now - history.date < RECENT_S:
        return "running", by
    if history.stopped or (history.failed and not history.waiting and finished < min_members):
        return "failed", by
    return "interrupted", by


def _of_devices(spent: Spent, gpus_per_task: float) -> Spent:
    """Seconds of GPUs instead of those of slots, where a slot has a part of one, or several."""
    if spent.device != "cuda":
        return spent
    return replace(spent, seconds=spent.seconds * gpus_per_task, lost=spent.lost * gpus_per_task)


def _networks(stored: Mapping[str, Any]) -> str:
    """The network, or those of the groups, each once."""
    groups = stored.get("members") or ()
    holders: list[Mapping[str, Any]] = (
        [group for group in groups if isinstance(group, dict)] if isinstance(groups, list) else []
    )
    found = dict.fromkeys(_network(holder.get("model")) for holder in (holders or [stored]))
    return "+".join(name for name in found if name)


def _network(model: Any) -> str:
    if not isinstance(model, dict):
        return ""
    inner = model.get("architecture") or model.get("path") or ""
    return f"{model.get('name', '')}:{inner}" if inner else str(model.get("name", ""))


def _data(stored: Mapping[str, Any]) -> str:
    data = stored.get("data")
    if not isinstance(data, dict):
        raise unfit(Path(CONFIG), "data is no section of keys")
    return str(data.get("name", ""))
