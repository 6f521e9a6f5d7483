"""One tracker must never harm another or the training."""

from __future__ import annotations

import logging

import pytest

from ensemble.events import Notice
from ensemble.tracking.base import Composite
from tests.contracts.tracker_contract import TrackerContract


class Collecting:
    def __init__(self):
        self.heard, self.closed = [], []

    def handle(self, event, time):
        self.heard.append((time, event))

    def close(self, ok):
        self.closed.append(ok)


class Failing:
    """Raises from the n-th event on."""

    def __init__(self, error, after=0):
        self.error, self.left, self.calls = error, after, 0

    def handle(self, event, time):
        self.calls += 1
        if self.calls > self.left:
            raise self.error

    def close(self, ok):
        self.calls += 1
        raise self.error


class TestContract(TrackerContract):
    @pytest.fixture
    def tracker(self):
        return Composite([Collecting(), Failing(ValueError("broken")), Collecting()])


def test_all_hear_the_same_in_order():
    first, second = Collecting(), Collecting()
    both = Composite([first, second])
    events = [Notice(str(number)) for number in range(3)]
    for number, event in enumerate(events):
        both.handle(event, float(number))
    both.close(True)
    assert first.heard == second.heard == [(0.0, events[0]), (1.0, events[1]), (2.0, events[2])]
    assert first.closed == second.closed == [True]


def test_a_tracker_that_raises_is_reported_once_and_left_out(caplog):
    before, failing, after = Collecting(), Failing(OSError("disk full"), after=1), Collecting()
    all_three = Composite([before, failing, after])
    with caplog.at_level(logging.WARNING):
        for number in range(4):
            all_three.handle(Notice("n"), float(number))
        all_three.close(False)
    assert failing.calls == 2
    assert [record.getMessage() for record in caplog.records] == [
        "Failing failed and is left out from here on; training goes on: OSError: disk full"
    ]
    assert len(before.heard) == len(after.heard) == 4
    assert before.closed == after.closed == [False]


def test_a_tracker_that_cannot_be_closed_does_not_keep_others_open(caplog):
    other = Collecting()
    Composite([Failing(ValueError("x"), after=9), other]).close(True)
    assert other.closed == [True]
    assert "Failing" in caplog.text


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_asked_for_by_a_person_passes(stop):
    with pytest.raises(stop):
        Composite([Failing(stop())]).handle(Notice("n"), 0.0)
