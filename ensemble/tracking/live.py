"""The live view: one line per running member and a total bar; what must not be missed scrolls by above it.

The view is drawn twice a second in rich's own thread from the state in `progress.py`. It is as tall as the terminal
allows: members that do not fit are counted instead.
"""

from __future__ import annotations

import threading
import time as clock
from contextlib import ExitStack
from typing import TextIO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ensemble.events import Event, MemberFailed, Notice, RunFinished, RunStarted
from ensemble.outside.long_work import heard
from ensemble.tracking.progress import Progress, RunningMember, duration
from ensemble.tracking.sentences import describe, percent, stopped
from ensemble.tracking.terminal import OPEN, VisibleConsole, marked, width_of

REFRESH_PER_S = 2
WIDE = 100  # columns from which the place a member trains on is shown
OTHER_LINES = 5  # heading, count of hidden members, total, status, and the line of the cursor


class LiveConsole:
    """A tracker that draws on a terminal until it is closed."""

    def __init__(self, stream: TextIO) -> None:
        self._console = VisibleConsole(file=stream, force_terminal=True, highlight=False, width=width_of(stream))
        self._progress = Progress()
        self._opened: float | None = None
        self._closed = False
        # Guards the state only. Nothing is printed while it is held: rich's drawing thread takes its own lock first.
        self._lock = threading.Lock()
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
            redirect_stdout=False,  # stdout is for data and stays untouched
        )
        self._live.start()
        # A line that reached the terminal past the view would be drawn into it.
        self._listening = ExitStack()
        self._listening.enter_context(heard(self._say))

    def handle(self, event: Event, time: float) -> None:
        """Take in the event; print it above the view when it must not be missed."""
        if self._closed:
            return
        with self._lock:
            self._progress.update(event, time)
            if isinstance(event, RunStarted):
                self._opened = time
        if isinstance(event, RunFinished):
            self._live.stop()
        line = _line(event)
        if line is not None:
            self._console.print(line)

    def close(self, ok: bool) -> None:
        """Take the view off the terminal; say where a run that did not come to its end was left."""
        if self._closed:
            return
        self._closed = True
        self._listening.close()
        self._live.stop()
        if not ok:
            self._console.print(Text(stopped(self._progress), "bold"))

    def _say(self, line: str) -> None:
        self._console.print(Text(line, "dim"))

    def _draw(self) -> RenderableType:
        with self._lock:
            return draw(self._progress, clock.time(), self._opened, self._console.width, self._console.height)


def _line(event: Event) -> Text | None:
    """How an event is printed above the view, or None for those the view itself shows."""
    text = describe(event) or ""
    match event:
        case RunStarted() | RunFinished():
            return Text(text, "bold")
        case MemberFailed():
            return Text(text, "bold red")
        case Notice():
            word = text.partition(" ")[0]  # note: or warning:
            return marked(text, word, OPEN if event.warning else "bold")
        case _:
            return None


def draw(progress: Progress, now: float, opened: float | None, width: int, height: int) -> RenderableType:
    """The view as it stands at `now` for a terminal of that many columns and rows; one line until the run has begun."""
    if opened is None and not progress.running:
        return Text("preparing", "dim")
    running = [progress.running[index] for index in sorted(progress.running)]
    room = max(1, height - OTHER_LINES)
    shown = running[:room]
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("member", no_wrap=True)
    table.add_column("recipe", no_wrap=True, overflow="ellipsis", max_width=24)
    if width >= WIDE:
        table.add_column("on", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("", ratio=1)
    for name in ("epoch", "train loss", "val. error", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for member in shown:
        table.add_row(*_member_cells(member, now, width))
    if len(running) > len(shown):
        table.add_row("…", f"and {len(running) - len(shown)} more", style="dim")
    behind, needed = progress.epochs
    bar = ProgressBar(total=max(1, needed), completed=behind, complete_style="green", finished_style="green")
    place = [""] if width >= WIDE else []
    left = duration(progress.seconds_left(now))
    table.add_row("total", "", *place, bar, f"{behind}/{needed}", "", "", left, style="bold")
    return Group(table, _status(progress, None if opened is None else now - opened))


def _member_cells(member: RunningMember, now: float, width: int) -> list[RenderableType]:
    place = [Text(member.place, "dim")] if width >= WIDE else []
    loss = "…" if member.train_loss is None else f"{member.train_loss:.4f}"
    return [
        f"{member.index:04d}",
        Text(member.recipe),
        *place,
        ProgressBar(total=max(1, member.epochs), completed=member.epoch, complete_style="cyan", finished_style="cyan"),
        f"{member.epoch}/{member.epochs}",
        loss,
        percent(member.validation_error),
        duration(member.seconds_left(now)),
    ]


def _status(progress: Progress, elapsed: float | None) -> Text:
    mean = progress.mean_error
    finished = f"{progress.finished} of {progress.members} finished"
    parts = [
        Text(finished if mean is None else f"{finished} (mean val. error {percent(mean)})"),
        Text(f"{len(progress.running)} running"),
        *([Text(f"{progress.waiting} waiting")] if progress.waiting else []),
        *([Text(f"{progress.failed} failed", "bold red")] if progress.failed else []),
        *([] if elapsed is None else [Text(f"{duration(elapsed)} elapsed")]),
    ]
    text = Text(" · ", "dim").join(parts)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
