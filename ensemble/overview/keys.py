"""The keys of a row: what each is called, how it is compared, sorted and shown. Table, filters, JSON and CSV go by them.

Besides these every dotted key of the configuration is one, such as training.lr.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ensemble.config.explain import closest
from ensemble.config.keys import all_keys
from ensemble.errors import ConfigError
from ensemble.evaluation import written
from ensemble.outside.names import shown
from ensemble.overview.rows import Row
from ensemble.overview.spending import Spent
from ensemble.results.differing_keys import differing_keys
from ensemble.storage.identity import is_neutral

Kind = Literal["text", "rate", "number", "bytes", "seconds", "date"]
Value = str | float | int | None
_SHOWN_OTHERWISE = ("name", "output_dir", "num_members", "method.name", "model.name", "data.name")


@dataclass(frozen=True)
class Key:
    """One key. title: of its column; rank: columns with a lower one go first where there is no room; 0 for none.

    cost: only with --cost.
    """

    name: str
    title: str
    kind: Kind
    value: Callable[[Row], Value]
    text: Callable[[Row], str]
    rank: int
    cost: bool = False


def _plain(value: Value) -> str:
    return written.NONE if value is None else shown(str(value))


def _progress(done: int | None, needed: int | None, failed: int | None = None) -> str:
    if needed is None:
        return written.NONE
    return f"{done}/{needed}" + (f" ({failed} failed)" if failed else "")


def _percent(value: float | None) -> str:
    return written.NONE if value is None else written.percent(value)


def size_text(size: int | None) -> str:
    """Bytes in little space."""
    if size is None:
        return written.NONE
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def seconds_of(spent: Sequence[Spent] | None, kind: str) -> float | None:
    """Seconds of one kind of device; None where they were not asked for."""
    return None if spent is None else sum(each.seconds for each in spent if each.device == kind)


def lost_seconds_of(spent: Sequence[Spent] | None) -> float | None:
    """Seconds of all devices that left nothing."""
    return None if spent is None else sum(each.lost for each in spent)


def _hours(value: float | None) -> str:
    return written.NONE if value is None else written.seconds(value) if value else "0"


def _date(row: Row) -> str:
    return written.NONE if row.date is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(row.date))


def _age(row: Row) -> float | None:
    return None if row.date is None else max(0.0, time.time() - row.date)


# In the order of the columns.
KEYS: tuple[Key, ...] = (
    Key("name", "name", "text", lambda row: row.name, lambda row: shown(row.name), 100),
    Key("state", "state", "text", lambda row: row.state, lambda row: row.state, 99),
    Key("members", "members", "number", lambda row: row.members_finished,
        lambda row: _progress(row.members_finished, row.members, row.members_failed), 90),
    Key("epochs", "epochs", "number", lambda row: row.epochs_done, lambda row: _progress(row.epochs_done, row.epochs), 60),
    Key("method", "method", "text", lambda row: row.method, lambda row: _plain(row.method), 70),
    Key("network", "network", "text", lambda row: row.network, lambda row: _plain(row.network), 50),
    Key("data", "data", "text", lambda row: row.data, lambda row: _plain(row.data), 45),
    Key("error", "error %", "rate", lambda row: row.error, lambda row: _percent(row.error), 95),
    Key("best", "best %", "rate", lambda row: row.best, lambda row: _percent(row.best), 65),
    Key("nll", "NLL", "number", lambda row: row.nll, lambda row: written.NONE if row.nll is None else written.loss(row.nll), 40),
    Key("cpu_seconds", "CPU s", "seconds", lambda row: seconds_of(row.spent, "cpu"),
        lambda row: _hours(seconds_of(row.spent, "cpu")), 94, cost=True),
    Key("gpu_seconds", "GPU s", "seconds", lambda row: seconds_of(row.spent, "cuda"),
        lambda row: _hours(seconds_of(row.spent, "cuda")), 94, cost=True),
    Key("lost_seconds", "lost s", "seconds", lambda row: lost_seconds_of(row.spent),
        lambda row: _hours(lost_seconds_of(row.spent)), 92, cost=True),
    Key("size", "size", "bytes", lambda row: row.size, lambda row: size_text(row.size), 35),
    Key("date", "last event", "date", lambda row: row.date, _date, 68),
    Key("failed", "failed", "number", lambda row: row.members_failed, lambda row: _plain(row.members_failed), 0),
    Key("age", "age", "seconds", _age, lambda row: _plain(_age(row)), 0),
)  # fmt: skip
BY_NAME = {key.name: key for key in KEYS}


def find_key(name: str, rows: Sequence[Row], where: str) -> Key:
    """The key of that name: one of KEYS, or a key of the configuration, of this version or of one of the rows.

    where: the option and its words, for messages. Raises ConfigError for an unknown one, with those that there are.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    configured = {".".join(key) for key in all_keys()} | {key for row in rows for key in row.values}
    if name in configured or re.fullmatch(r"members\.\d+\..+", name):
        return configured_key(name)
    below = [
        key for key in sorted(configured, key=lambda key: (key.startswith("members."), key)) if key.endswith(f".{name}")
    ]
    near = below[0] if below else closest(name, [*BY_NAME, *sorted(configured)])
    meant = f"did you mean {near}? Known are" if near else "expected one of"
    raise ConfigError(
        f"{where}: unknown key {shown(name)!r}; {meant} {', '.join(BY_NAME)}, and the keys of the configuration, such as training.lr"
    )


def configured_key(name: str, title: str = "", rank: int = 0) -> Key:
    """The key of a value of the configuration."""

    def value(row: Row) -> Value:
        return _as_value(row.values.get(name))

    return Key(name, title or name, "text", value, lambda row: _plain(value(row)), rank)


def _as_value(value: Any) -> Value:
    """A value of a configuration, as a number or as it is written in one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{','.join(str(_as_value(inner)) for inner in value)}]"
    return value if value is None or isinstance(value, str | int | float) else str(value)


def shown_keys(rows: Sequence[Row]) -> list[str]:
    """The keys in which the rows' configurations differ, in the configuration's order.

    Those that have columns of their own are left out, and how a run is tracked; those that no member depends on come last.
    """
    found = [
        key
        for key in differing_keys([row.values for row in rows])
        if key not in _SHOWN_OTHERWISE and not key.startswith("tracking.")
    ]
    return sorted(found, key=is_neutral)


def differing_columns(rows: Sequence[Row]) -> list[Key]:
    """A column for each, under the last part of its key where no other has the same; earlier ones stay longer."""
    names = shown_keys(rows)
    lasts = [name.rpartition(".")[2] for name in names]
    columns = []
    for place, (name, last) in enumerate(zip(names, lasts, strict=True)):
        title = last if lasts.count(last) == 1 and last not in BY_NAME else name
        rank = 1 if is_neutral(name) else max(2, 69 - 3 * place)
        columns.append(configured_key(name, title, rank))
    return columns
