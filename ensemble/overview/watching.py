"""Follows a run that goes on in another process, by its event log: what `ensemble train` draws, without touching the run.

watch(find_source("quickstart"), sys.stdout).state         # "finished", "interrupted" or "failed"
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from ensemble.errors import StorageError
from ensemble.events import Event, MemberFailed, RunFinished, RunStarted
from ensemble.outside.names import shown, visible
from ensemble.overview.history import sessions_of
from ensemble.overview.rows import RECENT_S, Row, read_row
from ensemble.overview.sources import Source
from ensemble.overview.tail import LocalTail, RemoteTail, Tail
from ensemble.storage.lock_state import is_written_to
from ensemble.storage.names import EVENTS
from ensemble.storage.remote_folder import RemoteFolder
from ensemble.tracking.base import Tracker
from ensemble.tracking.console import open_console
from ensemble.tracking.live import draw
from ensemble.tracking.progress import Progress, duration
from ensemble.tracking.sentences import describe, stopped
from ensemble.tracking.terminal import open_table_console

EVERY_S, REMOTE_EVERY_S = 0.5, 5.0
_WIDEST = 120  # of a state that is printed once, in a pipe
Timed = tuple[float, Event]


class Watched:
    """A run as it is seen from outside: the events of its last start so far, and whether it goes on.

    running: whether a writer holds its lock; where that says nothing, whether its last start has not ended and its log
    grew within `RECENT_S`.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._tail: Tail = (
            RemoteTail(RemoteFolder(source.place)) if source.remote else LocalTail(Path(source.place) / EVENTS)
        )
        self.every_s = REMOTE_EVERY_S if source.remote else EVERY_S
        self.events: list[Timed] = []
        self.running = False
        self.look()

    @property
    def ended(self) -> bool:
        """Whether the last start was told to its end."""
        return any(isinstance(event, RunFinished) for _, event in self.events)

    def look(self) -> list[Timed]:
        """What is to be told now: new events, or where the log is another one since, all of its last start.

        The lock is asked before the log: a run that ends in between has its last words read. Raises StorageError.
        """
        held = None if self.source.remote else is_written_to(Path(self.source.place))
        news = self._tail.read()
        if news.anew:
            self.events = []
        last = _last_start(news.events)
        if last is not None:
            self.events = last
        else:
            self.events += news.events
        if held is None:
            grew = bool(self.events) and time.time() - self.events[-1][0] < RECENT_S
            self.running = grew and not self.ended
        else:
            self.running = held
        return list(self.events) if news.anew else list(news.events)


def _last_start(events: Sequence[Timed]) -> list[Timed] | None:
    """From the last RunStarted on; None without one."""
    for place in reversed(range(len(events))):
        if isinstance(events[place][1], RunStarted):
            return list(events[place:])
    return None


def watch(source: Source, stream: TextIO, wait: Callable[[float], None] = time.sleep) -> Row:
    """Show the run on `stream` until it has ended: live on a terminal, in lines anywhere else; returns what became of it.

    wait: called between two looks, with seconds. Raises StorageError where the run cannot be read, or was taken away.
    """
    watched = Watched(source)
    if not watched.running:
        row = _end(source)
        _say_end(watched, row, stream)
        return row
    view = _View(stream)
    try:
        if watched.ended:
            view.say(f"{shown(source.name)}: a process writes to this finished run; waiting for what it tells")
        else:
            view.tell(watched.events)
        told_end = False
        while watched.running and not told_end:
            wait(watched.every_s)
            news = watched.look()
            view.tell(news)
            told_end = any(isinstance(event, RunFinished) for _, event in news)
    except BaseException:
        view.close(True)
        raise
    view.close(watched.ended)
    return _end(source)


def _end(source: Source) -> Row:
    row = read_row(source)
    if row.state == "damaged":
        raise StorageError(f"{source.place}: {row.problem}")
    return row


class _View:
    """The console of `ensemble train`, a new one for every start of the run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console: Tracker | None = None

    def say(self, line: str) -> None:
        """A line of one's own, before there is anything to draw."""
        print(visible(line), file=self._stream, flush=True)

    def tell(self, events: Sequence[Timed]) -> None:
        """Show the events."""
        for moment, event in events:
            if isinstance(event, RunStarted) or self._console is None:
                self.close(True)
                self._console = open_console(self._stream)
            self._console.handle(event, moment)

    def close(self, ok: bool) -> None:
        """Leave the terminal as it was. ok: the run came to its end; else it is said where it was left."""
        if self._console is not None:
            self._console.close(ok)
            self._console = None


def print_state(source: Source, stream: TextIO) -> Row:
    """Print how the run stands now, and leave: what the live view shows, once."""
    watched = Watched(source)
    row = _end(source)
    if not watched.running or watched.ended:
        _say_end(watched, row, stream)
        return row
    progress = _progress(watched.events)
    console = open_table_console(stream)
    width = min(console.width, _WIDEST)
    for line in _headings(watched.events):
        console.print(line, soft_wrap=True)
    opened = watched.events[0][0] if watched.events else None
    with console.capture() as captured:
        console.print(
            draw(progress, time.time(), opened, width, console.height if console.is_terminal else 10_000), width=width
        )
    console.file.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))
    return row


def _progress(events: Sequence[Timed]) -> Progress:
    sessions = sessions_of(events)
    return sessions[-1].progress if sessions else Progress()


def _headings(events: Sequence[Timed]) -> list[str]:
    """What has begun, and what failed."""
    told = [event for _, event in events if isinstance(event, RunStarted | MemberFailed)]
    return [line for event in told if (line := describe(event))]


def _say_end(watched: Watched, row: Row, stream: TextIO) -> None:
    """How a run that does not go on has ended, in lines."""
    lines = _headings(watched.events)
    if watched.ended:
        lines += [describe(event) or "" for _, event in watched.events if isinstance(event, RunFinished)]
    elif watched.events:
        age = duration(max(0.0, time.time() - watched.events[-1][0]))
        lines.append(f"{row.state}: {stopped(_progress(watched.events))}; its last event is {age} old")
    else:
        lines.append(
            f"{shown(row.name)}: {row.state}: {row.members_finished} of {row.members} members finished, and no event log"
        )
    stream.write("".join(visible(f"{line}\n") for line in lines))
    stream.flush()
