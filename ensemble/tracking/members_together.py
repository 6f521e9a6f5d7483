"""How the members of an ensemble do together while they are trained: rows for the ensemble's own page.

A row of a history cannot be taken back, epochs of members come in any order over hours, and a member that is tried
again tells its epochs again. So there are two kinds of rows, and neither can become wrong:

- `live/*`: the state at that moment (mean, best and worst over the members that have begun, each at its newest epoch), over
  an x axis of its own that only grows: the epochs members have reached, summed over members. One row each time as many
  more epochs were reached as members are being trained, at most about a thousand in a run.
- `epoch/*`: mean, best and worst over the members that reached an epoch, written once that epoch can no longer change:
  all members of the run have reached it or ended, or the run is over. Where members are trained one after the other these
  rows come with the last of them; until then there are the others.

An epoch that is told again adds nothing to either: with the same bits it is the same number. What is heard, in the order
of the event log, is all that the rows depend on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ensemble.events import EpochFinished, Event, MemberFailed, MemberFinished, RunFinished, RunStarted, TaskStarted

MOST_ROWS = 1000  # of live/*, about

Values = dict[str, float]


class MembersTogether:
    """Hears all events of a run, those of replaced attempts too, and gives the rows that follow from each."""

    def __init__(self) -> None:
        self._errors: dict[int, dict[int, float]] = {}  # member -> epoch -> validation error
        self._running: set[int] = set()
        self._finished: set[int] = set()
        self._failed: set[int] = set()
        self._members = 0  # of the whole run; 0: not known yet
        self._epochs = 0  # the most that a member is trained for
        self._told = 0  # live/member_epochs of the last row
        self._closed = 0  # epochs before and with this one have their row

    def hear(self, event: Event) -> list[Values]:
        """The rows that follow from this event, in order."""
        match event:
            case RunStarted():
                self._members = event.members
            case TaskStarted():
                begun = set(event.members) - self._finished  # a stack that is tried again may hold some that are
                self._running |= begun
                self._failed -= begun
                self._epochs = max(self._epochs, event.epochs)
            case EpochFinished():
                return self._epoch(event)
            case MemberFinished():
                self._finished.add(event.member)
                return self._end(event.member)
            case MemberFailed() if event.decision != "retry":
                self._failed.add(event.member)
                return self._end(event.member)
            case RunFinished():
                return self._close(max((max(epochs) for epochs in self._errors.values()), default=0))
            case _:
                pass
        return []

    def _epoch(self, event: EpochFinished) -> list[Values]:
        epochs = self._errors.setdefault(event.member, {})
        again = event.epoch in epochs
        epochs[event.epoch] = event.validation_error
        if again:
            return []
        rows = []
        reached = sum(len(epochs) for epochs in self._errors.values())
        if reached >= self._told + self._apart():
            self._told = reached
            newest = [epochs[max(epochs)] for epochs in self._errors.values()]
            spread = _spread("live", newest)
            rows = [{"live/member_epochs": reached, "live/members": len(newest), **spread}] if spread else []
        return rows + self._close_reached()

    def _apart(self) -> int:
        """Epochs between two live rows."""
        return max(1, len(self._running), math.ceil(self._members * self._epochs / MOST_ROWS))

    def _end(self, member: int) -> list[Values]:
        self._running.discard(member)
        return self._close_reached()

    def _close_reached(self) -> list[Values]:
        """Rows of the epochs that can no longer change."""
        ended = self._finished | self._failed
        if not self._members or len(self._errors.keys() | ended) < self._members:
            return []
        still = [max(epochs) for member, epochs in self._errors.items() if member not in ended]
        last = max((max(epochs) for epochs in self._errors.values()), default=0)
        return self._close(min([*still, last]))

    def _close(self, last: int) -> list[Values]:
        rows = []
        for epoch in range(self._closed + 1, last + 1):
            reached = [epochs[epoch] for epochs in self._errors.values() if epoch in epochs]
            spread = _spread("epoch", reached)
            if spread:
                rows.append({"epoch": epoch, "epoch/members": len(reached), **spread})
        self._closed = max(self._closed, last)
        return rows


def _spread(room: str, errors: Sequence[float]) -> Values:
    """Mean, best and worst; nothing where an error is not finite, which is no figure."""
    finite = [error for error in errors if math.isfinite(error)]
    if not finite:
        return {}
    figures = {"mean": math.fsum(finite) / len(finite), "best": min(finite), "worst": max(finite)}
    return {f"{room}/validation_error_{name}": value for name, value in figures.items()}
