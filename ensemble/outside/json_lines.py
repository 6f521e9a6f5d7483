"""`ENSEMBLE_LOG_FORMAT=json`: all that goes to stderr as one JSON object a line, for whatever collects logs.

    json_capture.begin()                      # a door, in its first moments
    json_lines.check()                        # raises ConfigError for a format that there is not
    json_lines.tell("error: ...")             # a line of ours, in either format
    if json_lines.active(): json_lines.write("info", event="Notice", ...)

What other code prints on stderr becomes such lines too (`json_capture`).
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from ensemble.errors import ConfigError
from ensemble.outside.names import visible

VARIABLE = "ENSEMBLE_LOG_FORMAT"
Level = Literal["debug", "info", "warning", "error", "critical"]
_PREFIXES: dict[str, Level] = {"error: ": "error", "warning: ": "warning", "note: ": "info"}


class _State:
    stderr: int | None = None  # the real one, where lines are JSON
    run: str | None = None
    lock = threading.Lock()


def active() -> bool:
    """Whether lines are JSON in this process."""
    return _State.stderr is not None


def wanted() -> bool:
    """Whether the environment asks for JSON."""
    return os.environ.get(VARIABLE, "").strip() == "json"


def to(stderr: int) -> None:
    """From now on lines are JSON. stderr: the descriptor that they are written to."""
    _State.stderr = stderr


def check() -> None:
    """Raises ConfigError where the environment names another format than text or json."""
    found = os.environ.get(VARIABLE, "").strip()
    if found not in ("", "text", "json"):
        raise ConfigError(f"{VARIABLE} is {found!r}; expected text or json")


def of_run(name: str) -> None:
    """From now on lines are of this run."""
    _State.run = name


def tell(text: str) -> None:
    """A line (or several that belong together) for people on stderr; one object where lines are JSON.

    What begins with "error: ", "warning: " or "note: " has that as its level.
    """
    if not active():
        print(visible(text), file=sys.stderr, flush=True)  # noqa: T201
        return
    for prefix, level in _PREFIXES.items():
        if text.startswith(prefix):
            write(level, message=text.removeprefix(prefix))
            return
    write("info", message=text)


def write(level: Level, time: float | None = None, **fields: Any) -> None:
    """One object: time, level, run and the fields. time: unix seconds, by default now. Numbers that are none are null."""
    moment = datetime.now(UTC) if time is None else datetime.fromtimestamp(time, UTC)
    stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record = {"time": stamp, "level": level, "run": _State.run, **fields}
    left = memoryview(json.dumps(_plain(record), allow_nan=False).encode() + b"\n")
    assert _State.stderr is not None, "lines are text"
    with _State.lock, suppress(OSError):  # nobody reads any more
        while left:
            left = left[os.write(_State.stderr, left) :]


def _plain(value: Any) -> Any:
    """A value as every reader of JSON takes it: no NaN, no halves of signs."""
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
