"""How far a run has come, from its event log: the state that `ensemble train` draws, at the end of every start.

history = read_history(RunFolder.read(Path("runs/quickstart")))
history.epochs                          # (behind, needed), of all members together
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ensemble.events import Event, MemberFailed, RunStarted
from ensemble.storage import RunFolder
from ensemble.storage.event_lines import parse_events
from ensemble.storage.names import EVENTS
from ensemble.storage.remedies import unfit, unreadable
from ensemble.tracking.progress import Progress

_LATEST = 1e11  # unix seconds, in the year 5138
_EPOCH = b'"event": "EpochFinished"'  # stands at the beginning of a line, after the time


@dataclass
class Session:
    """One start of a run: its progress, and whether the failure policy ended it."""

    progress: Progress = field(default_factory=Progress)
    stopped: bool = False


@dataclass(frozen=True)
class History:
    """The events of a run and what they come to. date: of the last one, in unix seconds. whole: with those of epochs."""

    events: tuple[tuple[float, Event], ...]
    sessions: tuple[Session, ...]
    date: float | None
    whole: bool = True

    @property
    def empty(self) -> bool:
        return not self.sessions

    @property
    def ended(self) -> bool:
        """Whether the last start came to its end: the run was judged."""
        return bool(self.sessions) and self.sessions[-1].progress.ended is not None

    @property
    def stopped(self) -> bool:
        """Whether failures.policy ended the last start."""
        return bool(self.sessions) and self.sessions[-1].stopped

    @property
    def failed(self) -> int:
        """Members that the last start left out."""
        return self.sessions[-1].progress.failed if self.sessions else 0

    @property
    def waiting(self) -> int:
        """Members that neither finished nor failed in the last start."""
        last = self.sessions[-1].progress if self.sessions else Progress()
        return last.waiting + len(last.running)

    @property
    def epochs(self) -> tuple[int | None, int | None]:
        """Epochs of all members behind the run, and needed, by the last start that trained any; None before the first one."""
        trained = [session.progress.epochs for session in self.sessions if session.progress.epochs[1]]
        return trained[-1] if trained else (None, None)


def history_of(events: Iterable[tuple[float, Event]], date: float | None = None, whole: bool = True) -> History:
    """What these events come to."""
    kept = tuple(events)
    return History(kept, tuple(sessions_of(kept)), kept[-1][0] if date is None and kept else date, whole)


def sessions_of(events: Iterable[tuple[float, Event]]) -> list[Session]:
    """Every start of a run. What is told before one is of no start."""
    sessions: list[Session] = []
    for moment, event in events:
        if isinstance(event, RunStarted):
            sessions.append(Session())
        if sessions:
            sessions[-1].progress.update(event, moment)
            sessions[-1].stopped |= isinstance(event, MemberFailed) and event.decision == "stop"
    return sessions


def read_history(folder: RunFolder, whole: bool = True) -> History:
    """The history of a stored run. whole: False leaves out the events of epochs, by far the most, unread.

    Raises StorageError when the log is damaged.
    """
    path = folder.path / EVENTS
    if not folder.has(EVENTS):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return history_of(())
        except OSError as error:
            raise unreadable(path, error) from error
    else:
        content = folder.read_bytes(EVENTS)
    lines = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
    last = list(parse_events(lines[-1:], path, max(1, len(lines))))
    if last and not 0 <= last[0][0] < _LATEST:
        raise unfit(path, f"its last event has the time {last[0][0]:g}")
    if not whole:
        lines = [line for line in lines if _EPOCH not in line[:80]]
    return history_of(parse_events(lines, path), last[0][0] if last else None, whole)
