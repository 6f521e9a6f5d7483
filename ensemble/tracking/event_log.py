"""The event log: one JSON line per event, the truth about what happened in a run.

Every line is handed to the operating system at once, so a killed driver loses at most the line it was writing; the disk
is asked to keep it once a second, so a crashed machine loses about that. A line without its newline is such a torn
write: readers pass over it, and the next driver cuts it off. One log may hold several driver sessions; a member that
was killed and trained again reports its epochs again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time as clock
from collections.abc import Iterable, Iterator
from pathlib import Path

from ensemble.events import EpochFinished, Event, MemberFailed, MemberFinished, to_json
from ensemble.storage.event_lines import parse_events
from ensemble.storage.remedies import unreadable

log = logging.getLogger(__name__)

SYNC_EVERY_S = 1.0


class EventLog:
    """A tracker that appends to the log at `path`; several threads may use it.

    Opening cuts off a torn last line and says so. Raises StorageError where the log cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._synced = clock.monotonic()
        try:
            torn = _cut_torn_line(path)
            self._file = path.open("ab", buffering=0)  # nothing is left over to be written when it is closed
        except OSError as error:
            raise unreadable(path, error, "opened") from error
        if torn:
            log.warning("%s: cut off a last line of %d bytes that a killed run left unfinished", path, torn)

    def handle(self, event: Event, time: float) -> None:
        """Append the event as one line."""
        line = json.dumps({"time": time, **to_json(event)}).encode() + b"\n"
        with self._lock:
            if self._file.closed:
                return
            try:
                self._append(line)
                if clock.monotonic() - self._synced >= SYNC_EVERY_S:
                    self._sync()
            except OSError as error:
                raise unreadable(self._path, error, "written") from error

    def close(self, ok: bool) -> None:  # noqa: ARG002 (the log ends the same way either way)
        """Bring everything to the disk. Raises StorageError where that fails; it is closed all the same."""
        with self._lock:
            if self._file.closed:
                return
            try:
                self._sync()
            except OSError as error:
                raise unreadable(self._path, error, "written") from error
            finally:
                with contextlib.suppress(OSError):  # what was written is on the disk, or was said not to be
                    self._file.close()

    def _append(self, line: bytes) -> None:
        """Write the whole line, or leave the log as it was."""
        end = self._file.seek(0, os.SEEK_END)
        left = memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):  # else the next start cuts it off
                self._file.truncate(end)
            raise

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = clock.monotonic()


def _cut_torn_line(path: Path) -> int:
    """Shorten an existing log to its last newline; the number of bytes cut off."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end, tail = size, b""
        while end > 0 and b"\n" not in tail:
            start = max(0, end - 65536)
            file.seek(start)
            tail = file.read(end - start)
            keep = start + tail.rfind(b"\n") + 1 if b"\n" in tail else 0
            end = start
        if size == 0 or keep == size:
            return 0
        file.truncate(keep)
        return size - keep


def read_events(path: Path) -> Iterator[tuple[float, Event]]:
    """The events of a log in the order they were written, each with its time in unix seconds.

    Raises StorageError, naming file and line, for a log that cannot be read and for a line that is no event. A last
    line without its newline is a write that was cut short and is passed over.
    """
    try:
        with path.open("rb") as file:
            yield from parse_events(file, path)
    except OSError as error:
        raise unreadable(path, error) from error


def latest_attempts(events: Iterable[tuple[float, Event]]) -> list[tuple[float, Event]]:
    """The events without what later attempts of the same member replaced.

    An epoch that is reported again replaces itself and everything the member reported after it, so a member trained
    anew keeps only its new epochs, and one continued from a checkpoint keeps the old ones up to there. Of several ends
    (finished or failed) of one member only the last counts.
    """
    return [(time, event) for time, event, stands in marked_attempts(events) if stands]


def marked_attempts(events: Iterable[tuple[float, Event]]) -> list[tuple[float, Event, bool]]:
    """All events in order, each with whether it stands: True unless a later attempt replaced it, see `latest_attempts`."""
    heard = list(events)
    kept: dict[int, Event] = {}
    of_member: dict[int, list[int]] = {}
    for position, (_, event) in enumerate(heard):
        kept[position] = event
        if not isinstance(event, EpochFinished | MemberFinished | MemberFailed):
            continue
        mine = of_member.setdefault(event.member, [])
        while mine and _replaces(event, kept[mine[-1]]):
            del kept[mine.pop()]
        mine.append(position)
    return [(time, event, position in kept) for position, (time, event) in enumerate(heard)]


def _replaces(new: Event, old: Event) -> bool:
    if isinstance(new, EpochFinished) and isinstance(old, EpochFinished):
        return old.epoch >= new.epoch
    return not isinstance(old, EpochFinished)


def latest_histories(path: Path) -> dict[int, tuple[EpochFinished, ...]]:
    """The epochs of each member's last attempt, in order, by member. Raises StorageError as `read_events` does."""
    histories: dict[int, list[EpochFinished]] = {}
    for _, event in latest_attempts(read_events(path)):
        if isinstance(event, EpochFinished):
            histories.setdefault(event.member, []).append(event)
    return {member: tuple(rows) for member, rows in sorted(histories.items())}
