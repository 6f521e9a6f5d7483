"""New events of a log that another process writes: on this machine, or under an address.

    log = LocalTail(Path("runs/quickstart/events.jsonl"))
    news = log.read()            # whole lines since the last call; `news.anew` where the log is another one since

A line without its end is left for the next call. A log that was replaced or cut is read from its beginning again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ensemble.events import Event
from ensemble.storage.event_lines import parse_events
from ensemble.storage.names import EVENTS
from ensemble.storage.remedies import unreadable
from ensemble.storage.remote_folder import RemoteFolder

_MARK = 4096  # bytes before the place that was read to, by which a log is known again


@dataclass(frozen=True)
class News:
    """Events since the last look, each with its time. anew: what was told before does not count any more."""

    events: Sequence[tuple[float, Event]]
    anew: bool = False


class Tail(Protocol):
    """A log that is looked at again and again."""

    def read(self) -> News:
        """What is new. Raises StorageError where the log cannot be read or a line of it is no event."""
        ...


class LocalTail:
    """The log of a folder on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0  # bytes, up to the end of a line
        self._mark = b""  # what stands before that

    def read(self) -> News:
        """See Tail.read."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, self._read - len(self._mark)))
                anew = size < self._read or file.read(len(self._mark)) != self._mark
                if anew:
                    file.seek(0)
                    self._read, self._mark = 0, b""
                content = file.read()
        except FileNotFoundError:
            anew, self._read, self._mark = self._read > 0, 0, b""
            return News((), anew)
        except OSError as error:
            raise unreadable(self._path, error) from error
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        self._mark = (self._mark + whole)[-_MARK:]
        return News(list(parse_events(whole.splitlines(keepends=True), self._path)), anew)


class RemoteTail:
    """The log of a run under an address: asked for whole, but only where the run has changed since."""

    def __init__(self, folder: RemoteFolder) -> None:
        self._folder = folder
        self._state: str | None = None
        self._known = b""

    def read(self) -> News:
        """See Tail.read."""
        state = self._folder.state()
        if state == self._state:
            return News(())
        _, content = self._folder.now()
        whole = content[: content.rfind(b"\n") + 1]
        anew = not whole.startswith(self._known)
        fresh = whole if anew else whole[len(self._known) :]
        self._state, self._known = state, whole
        where = Path(f"{self._folder.address}/{EVENTS}")
        return News(list(parse_events(fresh.splitlines(keepends=True), where)), anew)
