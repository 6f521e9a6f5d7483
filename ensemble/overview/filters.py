"""Which rows are wanted, and in which order: `KEY OPERATOR VALUE`.

    method=bagging  state!=finished  error<1%  size>100MiB  date>=2026-11-01  age<2d  training.lr<=0.01  name=bag*

= and != take several values with commas; in texts `*` stands for anything. A bare `-` stands for a value that there is not.
Rates are fractions, or percent with the sign; sizes in bytes or with KB, MB, GB, KiB, MiB, GiB; times in seconds or with
s, m, h, d. A comparison with what a run does not have is never true, but != is.
"""

from __future__ import annotations

import math
import operator
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ensemble.config.explain import closest
from ensemble.config.sweeping import split_values
from ensemble.errors import ConfigError
from ensemble.outside.names import shown
from ensemble.overview.keys import Key, Value, find_key
from ensemble.overview.rows import STATES, Row

_FORM = re.compile(r"\s*([^=!<>\s]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_NOTHING = "-"
_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z%]*)")


@dataclass(frozen=True)
class Filter:
    """One condition as it was written. key: its name, which a list of rows gives a meaning."""

    key: str
    sign: str
    text: str

    @property
    def where(self) -> str:
        return f"--filter {shown(self.key)}{self.sign}{shown(self.text)}"


def parse_filter(text: str) -> Filter:
    """A condition in three parts. Raises ConfigError for anything else, an unknown key, and a value that the key cannot have."""
    found = _FORM.fullmatch(text)
    if found is None or not found[3]:
        raise ConfigError(
            f"--filter {shown(text)!r}: expected KEY OPERATOR VALUE with one of = != < <= > >=, such as method=bagging or 'error<1%'"
        )
    made = Filter(*found.groups())
    key = find_key(made.key, (), made.where)
    _condition(made, key)
    if key.name == "state" and made.sign in ("=", "!="):
        _known_states(made)
    return made


def chosen(rows: Sequence[Row], filters: Sequence[Filter]) -> list[Row]:
    """The rows that meet all conditions. Raises ConfigError for a key that none of them has."""
    conditions = [_condition(each, find_key(each.key, rows, each.where)) for each in filters]
    return [row for row in rows if all(holds(row) for holds in conditions)]


def in_order(rows: Sequence[Row], sort: str) -> list[Row]:
    """Sorted by a key, `-KEY` the other way round; rows without a value come last either way. Raises ConfigError."""
    key = find_key(sort.removeprefix("-"), rows, f"--sort {shown(sort)}")
    known = [row for row in rows if key.value(row) is not None]
    rest = [row for row in rows if key.value(row) is None]
    return sorted(known, key=lambda row: _sortable(key.value(row)), reverse=sort.startswith("-")) + rest


def _sortable(value: Value) -> tuple[int, float, str]:
    return (1, 0.0, value) if isinstance(value, str) else (0, float(value or 0), "")


def _condition(each: Filter, key: Key) -> Callable[[Row], bool]:
    if each.sign in ("=", "!="):
        equal = [_equals(part, key, each.where) for part in split_values(each.text)]
        wanted = each.sign == "="
        return lambda row: any(one(key.value(row)) for one in equal) == wanted
    compare = _ORDERS[each.sign]
    bound = _number(each.text, key, each.where)
    if bound is None:
        raise ConfigError(
            f"{each.where}: expected a number, found {shown(each.text)!r}; texts are compared with = and !="
        )

    def holds(row: Row) -> bool:
        value = key.value(row)
        return isinstance(value, int | float) and compare(value, bound)

    return holds


def _equals(text: str, key: Key, where: str) -> Callable[[Value], bool]:
    if text == _NOTHING:
        return lambda value: value is None
    if key.kind != "text":
        number = _number(text, key, where)
        assert number is not None, "only texts may be no numbers"
        wanted = number
        return lambda value: isinstance(value, int | float) and math.isclose(value, wanted, rel_tol=1e-9)
    pattern = re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)
    number = _number(text, key, where)

    def holds(value: Value) -> bool:
        if isinstance(value, int | float) and number is not None:
            return value == number
        if value in ("true", "false") and text.lower() == value:
            return True  # as Python writes it
        return value is not None and pattern.fullmatch(str(value)) is not None

    return holds


def _number(text: str, key: Key, where: str) -> float | None:
    """A value as a number in the key's unit; None for a text under a key whose values may be texts. Raises ConfigError."""
    if key.kind == "date":
        return _moment(text, where)
    found = _NUMBER.fullmatch(text)
    units: dict[str, float] = {
        "rate": {"": 1.0, "%": 0.01}, "bytes": {unit: float(n) for unit, n in _BYTES.items()},
        "seconds": {unit: float(n) for unit, n in _SECONDS.items()},
    }.get(key.kind, {"": 1.0})  # fmt: skip
    unit = (found[2].upper() if key.kind == "bytes" else found[2]) if found else ""
    if found is None or unit not in units or not math.isfinite(number := float(found[1])):
        if key.kind == "text":
            return None
        written = ", ".join(name.replace("IB", "iB") for name in units if name)
        raise ConfigError(
            f"{where}: expected a number{f', plain or with {written}' if written else ''}; found {shown(text)!r}"
        )
    if key.kind == "rate" and unit == "" and abs(number) >= 1:
        raise ConfigError(f"{where}: rates are fractions below 1; write {number:g}% for percent")
    return number / 100 if unit == "%" else number * units[unit]


def _moment(text: str, where: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(
            f"{where}: expected a date such as {time.strftime('%Y-%m-%d')} or '{time.strftime('%Y-%m-%d %H:%M')}', found {shown(text)!r}; for an age, write age<2d"
        ) from error


def _known_states(each: Filter) -> None:
    for part in split_values(each.text):
        if "*" not in part and part != _NOTHING and part not in STATES:
            near = closest(part, list(STATES))
            meant = f"; did you mean {near}?" if near else ""
            raise ConfigError(f"{each.where}: no such state; expected one of {', '.join(STATES)}{meant}")
