"""Events survive the way through JSON; what is no event is refused."""

from __future__ import annotations

import json

import pytest

from ensemble.errors import StorageError
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
    from_json,
    to_json,
)

ALL: list[Event] = [
    RunStarted("r", "bagging", 8, 2, "ray", 2),
    TaskStarted("t", (0, 1), "lenet5", 3, "host", 12, "cpu", 1),
    EpochFinished(0, 1, 3, 0.1, 0.30000000000000004, 0.05, 1e-3, 2.5),
    MemberFinished(0, "lenet5", 61706, 10.0, 3, 0.01),
    MemberFailed(1, "diverged", "loss", 1, 2.0, "drop"),
    Notice("something"),
    RunFinished(7, 1, 33.0, {"test_error": 0.01}),
]


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_round_trip(event: Event) -> None:
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


def test_every_kind_is_covered() -> None:
    assert {type(event).__name__ for event in ALL} == set(EVENTS)


@pytest.mark.parametrize(
    "record", [{}, {"event": "Surprise"}, {"event": "Notice"}, {"event": "Notice", "message": "x", "more": 1}]
)
def test_refused(record: dict[str, object]) -> None:
    with pytest.raises(StorageError):
        from_json(record)
