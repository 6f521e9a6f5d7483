"""The lines of an event log, read back: one JSON record per event."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ensemble.errors import StorageError
from ensemble.events import Event, from_json
from ensemble.storage.names import EVENTS
from ensemble.storage.remedies import what_to_do

_REMEDY = "if a newer version wrote it, use that one; else " + what_to_do(EVENTS)


def parse_events(lines: Iterable[bytes], path: Path, first: int = 1) -> Iterator[tuple[float, Event]]:
    """The events of a log in the order they were written, each with its time in unix seconds. first: the number of the first line.

    Raises StorageError, naming file and line, for a line that is no event. A last line without its newline is a write
    that was cut short and is passed over.
    """
    for number, line in enumerate(lines, start=first):
        if line.endswith(b"\n"):
            yield _parse(line, f"{path}:{number}")


def _parse(line: bytes, where: str) -> tuple[float, Event]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8, nested without end
        raise StorageError(
            f"{where}: the event log is damaged: no JSON ({error}): {line.rstrip()[:80]!r}; {_REMEDY}"
        ) from error
    time = record.get("time") if isinstance(record, dict) else None
    if not isinstance(time, int | float) or isinstance(time, bool):
        raise StorageError(
            f"{where}: the event log is damaged: no event with a time: {line.rstrip()[:80]!r}; {_REMEDY}"
        )
    try:
        return float(time), from_json(record)
    except (StorageError, OverflowError) as error:
        raise StorageError(f"{where}: {error}; {_REMEDY}") from error
