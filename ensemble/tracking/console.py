"""The console of `ensemble train`: a live view on a terminal, plain lines anywhere else. All of it goes to stderr.

Only `open_console` decides between the two; a stream that is no terminal (a pipe, a file, CI) or a dumb one never sees
a control code. Colour follows NO_COLOR; the wording is the same in both and never relies on colour.
"""

from __future__ import annotations

import os
import sys
import threading
import time as clock
from typing import TextIO

from ensemble.events import (
    EpochFinished,
    Event,
    Notice,
)
from ensemble.outside.names import visible
from ensemble.tracking.base import Tracker
from ensemble.tracking.progress import Progress, duration
from ensemble.tracking.sentences import describe, percent, stopped

PLAIN_EVERY_S = 5.0


def open_console(stream: TextIO | None = None, every_s: float = PLAIN_EVERY_S) -> Tracker:
    """The tracker that shows a run on `stream` (default stderr): live on a terminal, else plain lines.

    every_s: seconds between two plain epoch lines of one member.
    """
    stream = sys.stderr if stream is None else stream
    if stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown"):
        from ensemble.tracking.live import LiveConsole  # rich is loaded only where it draws

        return LiveConsole(stream)
    return PlainConsole(stream, every_s)


class PlainConsole:
    """One line per thing that happened; of a member's epochs one every `every_s` seconds, and always the last."""

    def __init__(self, stream: TextIO, every_s: float = PLAIN_EVERY_S) -> None:
        self._stream = stream
        self._every_s = every_s
        self._progress = Progress()
        self._shown: dict[int, float] = {}
        self._lock = threading.Lock()
        self._closed = False

    def handle(self, event: Event, time: float) -> None:
        """Print the event, unless it is an epoch too soon after the member's last line."""
        with self._lock:
            if self._closed:
                return
            self._progress.update(event, time)
            line = self._epoch_line(event, time) if isinstance(event, EpochFinished) else describe(event)
            if line is not None:
                stamp = clock.strftime("%H:%M:%S", clock.localtime(time))
                self._stream.write(visible(f"{stamp}  {line}\n"))
                self._stream.flush()

    def close(self, ok: bool) -> None:
        """Print where a run that did not come to its end was left."""
        with self._lock:
            if not self._closed and not ok:
                self._stream.write(visible(stopped(self._progress) + "\n"))
                self._stream.flush()
            self._closed = True

    def _epoch_line(self, event: EpochFinished, time: float) -> str | None:
        due = time - self._shown.get(event.member, float("-inf")) >= self._every_s
        if not due and event.epoch < event.epochs:
            return None
        self._shown[event.member] = time
        left = self._progress.running[event.member].seconds_left(time)
        width = len(str(event.epochs))
        return (
            f"member {event.member:04d}  epoch {event.epoch:{width}d}/{event.epochs}"
            f"  train loss {event.train_loss:.4f}  validation error {percent(event.validation_error)}"
            + ("" if left is None else f"  left {duration(left)}")
        )


class WarningsOnly:
    """Prints what one must know even where progress is not wanted: notices that are warnings."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream

    def handle(self, event: Event, time: float) -> None:  # noqa: ARG002  # as every tracker is told
        """Print a warning; pass over everything else."""
        if isinstance(event, Notice) and event.warning:
            self._stream.write(f"{describe(event)}\n")
            self._stream.flush()

    def close(self, ok: bool) -> None:
        """Nothing is left to say: errors speak for themselves."""
