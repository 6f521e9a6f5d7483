"""What every tracker must do. Inherit and give a fixture `tracker` that makes a fresh one."""

from __future__ import annotations

import itertools

from ensemble.events import (
    EVENTS,
    EpochFinished,
    Event,
    MemberFailed,
    MemberFinished,
    Notice,
    RunFinished,
    RunStarted,
    TaskStarted,
)

T0 = 1_700_000_000.0


def epoch(member: int, epoch: int, epochs: int = 3, error: float = 0.1) -> EpochFinished:
    return EpochFinished(member, epoch, epochs, 1.5 / epoch, 1.25 / epoch, error / epoch, 1e-3, 2.5)


def a_run() -> list[tuple[float, Event]]:
    """A run of three members in two tasks; member 2 fails once, is tried again and is dropped."""
    events: list[Event] = [
        RunStarted("bag", "bagging", 3, 0, "inline", 1),
        TaskStarted("t0", (0, 1), "lenet5", 3, "host", 11, "cpu", 1),
        *(epoch(member, number, error=0.1 + member / 30) for number in (1, 2, 3) for member in (0, 1)),
        MemberFinished(0, "lenet5", 61706, 7.5, 3, 0.1 / 3),
        MemberFinished(1, "lenet5", 61706, 7.5, 2, (0.1 + 1 / 30) / 2),
        Notice("the last slot is slow"),
        TaskStarted("t1", (2,), "lenet5", 3, "host", 12, "cpu", 1),
        epoch(2, 1),
        epoch(2, 2),
        MemberFailed(2, "crash", "the worker died", 1, 5.0, "retry"),
        TaskStarted("t1", (2,), "lenet5", 3, "host", 13, "cpu", 1),
        epoch(2, 1, error=0.3),
        MemberFailed(2, "diverged", "the loss became nan", 2, 2.5, "drop"),
        RunFinished(2, 1, 23.5, {"error/soft": 0.0125, "p/mcnemar": 0.04}),
    ]
    return [(T0 + 0.5 * position, event) for position, event in enumerate(events)]


class TrackerContract:
    """Behaviour that training relies on."""

    def test_every_kind_of_event_is_taken(self, tracker):
        events = a_run()
        assert {type(event).__name__ for _, event in events} == set(EVENTS)
        for time, event in events:
            tracker.handle(event, time)
        tracker.close(True)

    def test_closing_twice_and_hearing_more_after_that_is_harmless(self, tracker):
        tracker.close(False)
        tracker.close(True)
        tracker.handle(Notice("too late"), T0)

    def test_events_come_in_any_order(self, tracker):
        """Members are interleaved as they please, and a tracker may have missed the beginning."""
        members = [[event for _, event in a_run() if getattr(event, "member", None) == index] for index in (0, 1, 2)]
        mixed = [event for group in itertools.zip_longest(*members) for event in group if event is not None]
        for event in (*mixed, *(event for _, event in reversed(a_run()))):
            tracker.handle(event, T0)
        tracker.close(True)

    def test_odd_text_and_numbers_are_taken(self, tracker):
        hostile = "\x1b[31mred\x1b[0m\r\nsecond line [bold]not markup[/] \udcff \x00 " + "x" * 3000
        nan, inf = float("nan"), float("inf")
        tracker.handle(MemberFailed(1, "error", hostile, 1, 0.0, "drop"), T0)
        tracker.handle(Notice(hostile), T0)
        tracker.handle(EpochFinished(0, 1, 2, nan, inf, 0.9, 1e-3, 0.0), T0)
        tracker.handle(EpochFinished(0, 2, 2, inf, nan, 0.9, 0.0, 0.0), T0)
        tracker.close(False)
