"""What a run has cost in seconds of its devices, from its events.

    spent = spent_by_member(folder.events())

Counted is the time in which a slot trained, also in tries that left nothing; not idle slots, loading, voting or judging.
The members of a stack share their slot in equal parts: `EpochFinished.seconds`, `MemberFinished.train_seconds` and
`MemberFailed.seconds_lost` are a member's part, so parts add up to the time of the slot. A member that diverges is carried
along until its stack ends, and so has the same part as the others.

A member that goes on from a checkpoint reports `train_seconds` of all its tries together. What it took over is what its
earlier tries have counted already, so it is taken off: nothing is counted twice but what a checkpoint in the midst of an
epoch holds of that epoch, where the epoch was ended and told before the process broke. Of a try that broke, the driver's
clock says how long it was, from the moment it said where it trains; a try that never said so had no device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from ensemble.events import EpochFinished, Event, MemberFailed, MemberFinished, TaskStarted


@dataclass(frozen=True)
class Spent:
    """Seconds of one kind of device ("cpu", "cuda") that a member took. lost: those of them that left nothing in the end."""

    member: int
    device: str
    seconds: float
    lost: float


@dataclass
class _Try:
    """A task from its start on, or from where it was taken up again. share: a member's part of the slot's time, so far."""

    members: tuple[int, ...]
    device: str
    began: float  # unix seconds
    share: float = 0.0
    epochs: dict[int, dict[int, float]] = field(default_factory=dict)  # by member: seconds by epoch, of this try

    def counts(self, member: int, seconds: float) -> None:
        """All members of a stack have the same part; the longest that one reported is what is known of it."""
        told = max(seconds, sum(self.epochs.get(member, {}).values()))
        self.share = max(self.share, told if math.isfinite(told) else 0.0)


def spent_by_member(events: Iterable[tuple[float, Event]]) -> list[Spent]:
    """Device seconds by member and kind of device, ascending; of members that are under way up to their last epoch."""
    tries: list[_Try] = []
    now: dict[int, _Try] = {}  # the try a member is in
    known: dict[int, dict[int, float]] = {}  # by member: seconds by epoch, as last reported
    useful: dict[int, float] = {}  # of members whose end was told
    for time, event in events:
        match event:
            case TaskStarted():
                began = _Try(event.members, kind_of(event.device), time)
                tries.append(began)
                for member in event.members:
                    now[member] = began
                    if not useful.get(member):  # what has finished stays useful, also where its stack is trained again
                        useful.pop(member, None)
            case EpochFinished():
                mine = _try_of(event.member, now, tries)
                mine.epochs.setdefault(event.member, {})[event.epoch] = event.seconds
                if (
                    min(mine.epochs[event.member]) == event.epoch
                ):  # the first of this try: what follows is to come again
                    known[event.member] = {
                        epoch: seconds for epoch, seconds in known.get(event.member, {}).items() if epoch < event.epoch
                    }
                known.setdefault(event.member, {})[event.epoch] = event.seconds
                mine.counts(event.member, 0.0)
            case MemberFinished():
                mine = _try_of(event.member, now, tries)
                mine.counts(event.member, event.train_seconds - _taken_over(event.member, mine, known))
                useful[event.member] = event.train_seconds
                now.pop(event.member, None)
            case MemberFailed():
                useful[event.member] = 0.0
                if (failed := now.pop(event.member, None)) is not None:
                    failed.counts(event.member, _lost_seconds(event, time, failed, known))
                if event.kind == "diverged":  # another try, if there is one, begins anew
                    known.pop(event.member, None)
            case _:
                pass
    return _added_up(tries, useful)


def kind_of(device: str) -> str:
    """The kind of a device by its name: "cuda" of "cuda:1 NVIDIA H100"."""
    return (device.split() or ["unknown"])[0].partition(":")[0]


def _try_of(member: int, now: dict[int, _Try], tries: list[_Try]) -> _Try:
    """The try a member is in; one of its own, on an unknown device, where its start was not told."""
    if member not in now:
        now[member] = _Try((member,), "unknown", 0.0)
        tries.append(now[member])
    return now[member]


def _taken_over(member: int, mine: _Try, known: dict[int, dict[int, float]]) -> float:
    """Seconds of the epochs that earlier tries reported and this one did not: they came with a checkpoint."""
    first = min(mine.epochs.get(member, {}), default=None)
    return sum(seconds for epoch, seconds in known.get(member, {}).items() if first is None or epoch < first)


def _lost_seconds(event: MemberFailed, time: float, mine: _Try, known: dict[int, dict[int, float]]) -> float:
    """A member's part of the slot's time in a try that failed."""
    if event.kind == "diverged":  # told is the training's time, of all tries
        return event.seconds_lost - _taken_over(event.member, mine, known)
    # Told is the time since the task was handed out, which may have waited for its slot.
    return min(event.seconds_lost, max(0.0, time - mine.began) / len(mine.members))


def _added_up(tries: list[_Try], useful: dict[int, float]) -> list[Spent]:
    """By member and device. What left nothing is what a member took more than its result, of its earliest tries first."""
    totals: dict[tuple[int, str], float] = {}
    of_member: dict[int, float] = {}
    for each in tries:
        for member in each.members:
            totals[member, each.device] = totals.get((member, each.device), 0.0) + each.share
            of_member[member] = of_member.get(member, 0.0) + each.share
    left = {member: max(0.0, of_member.get(member, 0.0) - seconds) for member, seconds in useful.items()}
    lost = dict.fromkeys(totals, 0.0)
    for each in tries:
        for member in each.members:
            part = min(each.share, left.get(member, 0.0))
            left[member] = left.get(member, 0.0) - part
            lost[member, each.device] += part
    return [
        Spent(member, device, seconds, lost[member, device]) for (member, device), seconds in sorted(totals.items())
    ]
