"""How far a run has come, told from its events: plain numbers for whatever view draws them.

Time left is measured, never promised: a member's from the wall-clock time of its own last epochs (a stack's members
share their slot, so `EpochFinished.seconds` would be too little), the run's from all epochs since the driver started.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from ensemble.events import EpochFinished, Event, MemberFailed, MemberFinished, RunFinished, RunStarted, TaskStarted

RECENT_EPOCHS = 5


@dataclass
class RunningMember:
    """One member in training; times are unix seconds."""

    index: int
    recipe: str
    epochs: int
    place: str
    epoch: int = 0
    train_loss: float | None = None
    validation_error: float | None = None
    marks: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_EPOCHS + 1))  # when epochs ended

    def seconds_left(self, now: float) -> float | None:
        """Time until the last epoch ends, or None before a second one has been timed."""
        if len(self.marks) < 2:
            return None
        per_epoch = (self.marks[-1] - self.marks[0]) / (len(self.marks) - 1)
        return max(0.0, (self.epochs - self.epoch) * per_epoch - (now - self.marks[-1]))


class Progress:
    """The state of a run after the events handed to `update`.

    Only counts of epochs that are certain or measured enter: members whose recipe has not started yet are taken to need
    as many epochs as those that have.
    """

    def __init__(self) -> None:
        self.running: dict[int, RunningMember] = {}
        self.run: RunStarted | None = None
        self.finished = 0
        self.failed = 0
        self.ended: RunFinished | None = None
        self._epochs: dict[int, int] = {}  # member -> epochs it needs, once known
        self._done: dict[int, int] = {}  # member -> epochs behind it, in this driver session
        self._counted: set[int] = set()  # members that finished in this driver session
        self._dropped: set[int] = set()
        self._errors: dict[int, float] = {}
        self._began: float | None = None  # when the first epoch ended, after imports and warming up
        self._warming: set[int] = set()  # members in their first epoch then, which says nothing of the pace
        self._trained = 0  # member-epochs since
        self._last = 0.0

    def update(self, event: Event, time: float) -> None:
        """Take in one event that happened at `time`."""
        self._last = max(self._last, time)
        match event:
            case RunStarted():
                self.run = event
                self.finished = event.finished
            case TaskStarted():
                self._start(event)
            case EpochFinished():
                self._epoch(event, time)
            case MemberFinished():
                self._finish(event)
            case MemberFailed():
                self._fail(event)
            case RunFinished():
                self.ended = event
                self.running.clear()
            case _:
                pass

    def _start(self, task: TaskStarted) -> None:
        for index in task.members:
            place = f"{task.host} {task.device}".strip()
            self.running[index] = RunningMember(index, task.recipe, task.epochs, place)
            self._epochs[index] = task.epochs
            self._done[index] = 0
            self._reopen(index)

    def _epoch(self, event: EpochFinished, time: float) -> None:
        if self._began is None:
            self._began, self._warming = time, set(self.running) | {event.member}
        member = self.running.get(event.member)
        if member is None:  # its task's start was not heard
            member = RunningMember(event.member, "", event.epochs, "")
            self.running[event.member] = member
            self._reopen(event.member)
        member.epoch, member.epochs = event.epoch, event.epochs
        member.train_loss, member.validation_error = event.train_loss, event.validation_error
        member.marks.append(time)
        self._epochs[event.member] = event.epochs
        self._done[event.member] = event.epoch
        if event.member in self._warming:
            self._warming.discard(event.member)
        else:
            self._trained += 1

    def _reopen(self, index: int) -> None:
        """A member that had ended is trained again: its stack gets another try."""
        if index in self._dropped:
            self._dropped.discard(index)
            self.failed -= 1
        if index in self._counted:
            self._counted.discard(index)
            self.finished -= 1

    def _finish(self, event: MemberFinished) -> None:
        self.running.pop(event.member, None)
        self._errors[event.member] = event.validation_error
        self._done[event.member] = self._epochs.get(event.member, 0)
        if event.member not in self._counted:
            self._counted.add(event.member)
            # A stack that was left half finished is trained again whole, with members `RunStarted` counted already.
            self.finished = min(self.finished + 1, self.run.members if self.run else self.finished + 1)

    def _fail(self, event: MemberFailed) -> None:
        self.running.pop(event.member, None)
        self._done[event.member] = 0
        if event.decision != "retry" and event.member not in self._dropped:
            self._dropped.add(event.member)
            self.failed += 1

    @property
    def members(self) -> int:
        """Members the run is to have."""
        return self.run.members if self.run else self.finished + self.failed + len(self.running)

    @property
    def waiting(self) -> int:
        """Members that neither run nor ended yet."""
        return max(0, self.members - self.finished - self.failed - len(self.running))

    @property
    def mean_error(self) -> float | None:
        """Mean validation error of the members that finished in this driver session."""
        return sum(self._errors.values()) / len(self._errors) if self._errors else None

    @property
    def epochs(self) -> tuple[int, int]:
        """Member-epochs behind the run, and those it needs in all; members that were dropped need none."""
        typical = sum(self._epochs.values()) / len(self._epochs) if self._epochs else 0.0
        session = {index: epochs for index, epochs in self._epochs.items() if index not in self._dropped}
        others = max(0, self.members - len(session) - len(self._dropped))
        before = min(others, max(0, self.finished - len(self._counted))) * typical
        behind = before + sum(self._done.get(index, 0) for index in session)
        needed = others * typical + sum(session.values())
        return round(behind), round(needed)

    def seconds_left(self, now: float) -> float | None:
        """Time until the last member ends at the pace so far, or None while that is not known: the first epoch says nothing of it."""
        if self._began is None or self._trained == 0:
            return None
        behind, needed = self.epochs
        pace = self._trained / max(1e-9, self._last - self._began)
        members = [left for member in self.running.values() if (left := member.seconds_left(now)) is not None]
        return max([(needed - behind) / pace - (now - self._last), 0.0, *members])


def duration(seconds: float | None) -> str:
    """Seconds as 0:42, 12:03 or 3:05:09; an ellipsis for None."""
    if seconds is None:
        return "…"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def one_line(text: str) -> str:
    """Text from elsewhere as one printable line, without colour codes, control characters or line breaks."""
    text = re.sub(r"\x1b\[[0-9;?]*[@-~]", "", text)
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
