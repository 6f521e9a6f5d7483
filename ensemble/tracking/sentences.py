"""Events of a run as one line each, for people: the same words in the live view and in plain lines."""

from __future__ import annotations

from ensemble.evaluation import written
from ensemble.events import Event, MemberFailed, MemberFinished, Notice, RunFinished, RunStarted, TaskStarted
from ensemble.tracking.progress import Progress, duration, one_line

DECISIONS = {"drop": "left out", "retry": "will be tried again", "stop": "the run stops"}


def describe(event: Event) -> str | None:
    """The event as one line for people; None for epochs, which need the member's pace."""
    match event:
        case RunStarted():
            already = f", {event.finished} already finished" if event.finished else ""
            slots = "1 slot" if event.slots == 1 else f"{event.slots} slots"
            return f"{event.name}: {event.method}, {event.members} members{already}; {event.executor}, {slots}"
        case TaskStarted(epochs=0):
            return f"{_members(event.members)}: {event.recipe}, trained elsewhere, votes on {event.host} {event.device}"
        case TaskStarted():
            return f"training {_members(event.members)}: {event.recipe}, {event.epochs} epochs on {event.host} {event.device}"
        case MemberFinished(kept_epoch=0):
            return f"member {event.member:04d}  has voted: validation error {percent(event.validation_error)}, trained elsewhere"
        case MemberFinished():
            return (
                f"member {event.member:04d}  finished: validation error {percent(event.validation_error)}"
                f" after epoch {event.kept_epoch}, {duration(event.train_seconds)}"
            )
        case MemberFailed():
            return (
                f"member {event.member:04d}  FAILED ({event.kind}, try {event.tries}): {one_line(event.reason)};"
                f" {DECISIONS.get(event.decision, event.decision)}"
            )
        case Notice():
            return f"note: {one_line(event.message)}"
        case RunFinished():
            failed = f", {event.failed} failed" if event.failed else ""
            return f"{event.members} members finished{failed}; this start took {duration(event.seconds)}"
        case _:
            return None


def stopped(progress: Progress) -> str:
    """Where a run that did not come to its end was left."""
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f"stopped with {progress.finished} of {progress.members} members finished{failed}"


def percent(fraction: float | None) -> str:
    """A fraction as percent with two digits; an ellipsis for None."""
    return "…" if fraction is None else f"{written.percent(fraction)} %"


def _members(indices: tuple[int, ...]) -> str:
    """Names of the members, a run of neighbours as first-last."""
    if len(indices) == 1:
        return f"member {indices[0]:04d}"
    if indices == tuple(range(indices[0], indices[0] + len(indices))):
        return f"members {indices[0]:04d}-{indices[-1]:04d}"
    return "members " + ", ".join(f"{index:04d}" for index in indices)
