"""Rows of the ensemble's own page while its members are trained: none of them becomes wrong, whatever order things come in."""

from __future__ import annotations

import itertools
import random

from ensemble.events import EpochFinished, MemberFailed, MemberFinished, RunFinished, RunStarted, TaskStarted
from ensemble.tracking.members_together import MOST_ROWS, MembersTogether


def started(members: int) -> RunStarted:
    return RunStarted("bag", "bagging", members, 0, "ray", members)


def task(*members: int, epochs: int = 3) -> TaskStarted:
    return TaskStarted(f"t{members[0]}", members, "lenet5", epochs, "host", 1, "cpu", 1)


def epoch(member: int, number: int, error: float) -> EpochFinished:
    return EpochFinished(member, number, 3, 1.0, 1.0, error, 1e-3, 1.0)


def finished(member: int) -> MemberFinished:
    return MemberFinished(member, "lenet5", 10, 1.0, 1, 0.5)


def failed(member: int, decision: str) -> MemberFailed:
    return MemberFailed(member, "crash", "", 1, 1.0, decision)


def rows(events, room=None):
    together = MembersTogether()
    found = [row for event in events for row in together.hear(event)]
    return [row for row in found if room is None or f"{room}/members" in row]


def test_a_stack_gives_one_row_of_each_kind_per_epoch():
    events = [started(2), task(0, 1), epoch(0, 1, 0.5), epoch(1, 1, 0.25), epoch(0, 2, 0.375), epoch(1, 2, 0.125)]
    assert rows(events, "live") == [
        {"live/member_epochs": reached, "live/members": 2, "live/validation_error_mean": mean,
         "live/validation_error_best": best, "live/validation_error_worst": worst}
        for reached, mean, best, worst in ((2, 0.375, 0.25, 0.5), (4, 0.25, 0.125, 0.375))
    ]  # fmt: skip
    assert rows(events, "epoch") == [
        {"epoch": number, "epoch/members": 2, "epoch/validation_error_mean": mean,
         "epoch/validation_error_best": best, "epoch/validation_error_worst": worst}
        for number, mean, best, worst in ((1, 0.375, 0.25, 0.5), (2, 0.25, 0.125, 0.375))
    ]  # fmt: skip


def test_an_epoch_is_told_once_no_member_can_change_it():
    one_by_one = [started(2), task(0), *(epoch(0, n, 0.5 / n) for n in (1, 2, 3)), finished(0), task(1)]
    assert rows(one_by_one, "epoch") == []
    assert [row["epoch"] for row in rows([*one_by_one, epoch(1, 1, 0.1)], "epoch")] == [1]
    short = [*one_by_one, epoch(1, 1, 0.1), finished(1)]  # stopped early
    assert [(row["epoch"], row["epoch/members"]) for row in rows(short, "epoch")] == [(1, 2), (2, 1), (3, 1)]
    assert len(rows(one_by_one, "live")) == 3, "meanwhile the page is not empty"


def test_a_run_that_ends_with_fewer_members_tells_the_rest():
    events = [started(5), task(0), epoch(0, 1, 0.5), finished(0), RunFinished(1, 0, 1.0, {})]
    assert [(row["epoch"], row["epoch/members"]) for row in rows(events, "epoch")] == [(1, 1)]


def test_epochs_told_again_add_nothing():
    calm = [started(1), task(0), *(epoch(0, n, 0.5 / n) for n in (1, 2, 3)), finished(0)]
    torn = [*calm[:4], failed(0, "retry"), started(1), task(0), *calm[2:]]
    assert rows(torn) == rows(calm)


def test_a_member_that_is_given_up_holds_nothing_back():
    events = [started(2), task(0, 1), epoch(0, 1, 0.4), failed(1, "drop")]
    assert [(row["epoch"], row["epoch/members"]) for row in rows(events, "epoch")] == [(1, 1)]


def test_rows_of_epochs_do_not_depend_on_the_order_of_members():
    members = [[task(m), *(epoch(m, n, (m + 1) / 10 / n) for n in (1, 2, 3)), finished(m)] for m in range(4)]
    expected = rows([started(4), *itertools.chain(*members)], "epoch")
    assert [row["epoch/members"] for row in expected] == [4, 4, 4]
    for seed in range(20):
        draw, left, mixed = random.Random(seed), [list(one) for one in members], []
        while any(left):
            mixed.append(draw.choice([one for one in left if one]).pop(0))
        assert rows([started(4), *mixed], "epoch") == expected


def test_rows_are_few_however_many_members_and_epochs():
    events = [started(400), *(task(m, epochs=50) for m in range(400))]
    events += [e for m in range(400) for e in (*(epoch(m, n, 0.1) for n in range(1, 51)), finished(m))]
    assert len(rows(events, "live")) <= MOST_ROWS
    assert len(rows(events, "epoch")) == 50


def test_errors_that_are_no_numbers_make_no_row():
    assert rows([started(1), task(0), epoch(0, 1, float("nan")), finished(0)]) == []
