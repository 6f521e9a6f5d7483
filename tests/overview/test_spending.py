"""Seconds of devices, against sums worked out by hand."""

from __future__ import annotations

import pytest

from ensemble.errors import ConfigError
from ensemble.events import EpochFinished, MemberFailed, MemberFinished, RunStarted, TaskStarted
from ensemble.overview.prices import money_of, parse_prices
from ensemble.overview.rows import Row
from ensemble.overview.spending import Spent, kind_of, spent_by_member


def start(*members, device="cpu"):
    return TaskStarted("t", members, "mlp", 10, "host", 1, device, 1)


def epoch(member, number, seconds=1.0):
    return EpochFinished(member, number, 10, 0.5, 0.4, 0.1, 1e-3, seconds)


def done(member, seconds):
    return MemberFinished(member, "mlp", 100, seconds, 10, 0.1)


def failed(member, seconds, kind="crash", decision="retry"):
    return MemberFailed(member, kind, "reason", 1, seconds, decision)


def spent(*events, at=None):
    moments = at or [float(place) for place in range(len(events))]
    return spent_by_member(zip(moments, events, strict=True))


def total(found):
    return sum(each.seconds for each in found), sum(each.lost for each in found)


def test_members_of_a_stack_add_up_to_the_time_of_their_slot():
    """10 s on the clock, of which every member of two reports half."""
    found = spent(start(0, 1), epoch(0, 1, 5.0), epoch(1, 1, 5.0), done(0, 5.0), done(1, 5.0))
    assert found == [Spent(0, "cpu", 5.0, 0.0), Spent(1, "cpu", 5.0, 0.0)]


def test_a_member_that_diverged_was_carried_along_to_the_end_of_its_stack():
    """It reports its part up to then, 2 s; the slot was busy for 3 x 8 s, and 8 of them left nothing."""
    found = spent(
        start(0, 1, 2), *(epoch(member, 1, 2.0) for member in (0, 1, 2)), epoch(1, 2, 6.0), epoch(2, 2, 6.0),
        done(1, 8.0), done(2, 8.0), failed(0, 2.0, "diverged", "drop"),
    )  # fmt: skip
    assert total(found) == (24.0, 8.0)
    assert found[0] == Spent(0, "cpu", 8.0, 8.0)


def test_one_that_stopped_early_too():
    found = spent(start(0, 1), epoch(0, 1), epoch(1, 1), epoch(1, 2), epoch(1, 3), done(0, 3.0), done(1, 3.0))
    assert total(found) == (6.0, 0.0)


def test_a_crashed_try_counts_and_is_lost():
    found = spent(
        start(0),
        epoch(0, 1),
        failed(0, 7.0),
        start(0),
        epoch(0, 1),
        epoch(0, 2),
        done(0, 2.0),
        at=[0, 1, 7, 8, 9, 10, 10],
    )
    assert found == [Spent(0, "cpu", 9.0, 7.0)]


def test_what_a_checkpoint_carried_over_counts_once():
    """Ten epochs of 1 s. The first try told of 6 and then ran for half a second; the second one began after epoch 6."""
    first = [epoch(0, number) for number in range(1, 7)]
    second = [epoch(0, number) for number in range(7, 11)]
    crashed = spent(
        start(0), *first, failed(0, 6.5), start(0), *second, done(0, 10.0),
        at=[0, *range(1, 7), 6.5, 7, *range(8, 12), 12],
    )  # fmt: skip
    assert total(crashed) == (10.5, 0.5)
    killed = spent(start(0), *first, RunStarted("r", "bagging", 1, 0, "inline", 1), start(0), *second, done(0, 10.0))
    assert total(killed) == (10.0, 0.0)


def test_epochs_that_a_kill_cost_are_trained_twice_and_paid_twice():
    """Told of 6, its checkpoint of 4: epochs 5 and 6 come again."""
    first = [epoch(0, number) for number in range(1, 7)]
    second = [epoch(0, number) for number in range(5, 11)]
    assert total(spent(start(0), *first, start(0), *second, done(0, 10.0))) == (12.0, 2.0)


def test_a_checkpoint_after_the_last_epoch_leaves_nothing_to_pay_again():
    epochs = [epoch(0, number) for number in range(1, 11)]
    assert total(spent(start(0), *epochs, start(0), done(0, 10.0))) == (10.0, 0.0)


def test_waiting_for_a_slot_is_no_time_of_a_device():
    """Handed out 100 s before it began, and one that never began at all."""
    found = spent(
        start(0), failed(0, 104.0, decision="drop"), failed(1, 50.0, "unplaceable", "drop"), at=[100, 104, 150]
    )
    assert found == [Spent(0, "cpu", 4.0, 4.0)]


def test_under_way_counts_up_to_the_last_epoch():
    assert spent(start(0, 1), epoch(0, 1, 2.0), epoch(1, 1, 2.0), epoch(0, 2, 2.0)) == [
        Spent(0, "cpu", 4.0, 0.0),
        Spent(1, "cpu", 4.0, 0.0),
    ]


def test_devices_are_kept_apart():
    found = spent(
        start(0, device="cuda:1 NVIDIA H100"),
        epoch(0, 1),
        failed(0, 1.0),
        start(0),
        epoch(0, 1, 3.0),
        done(0, 3.0),
        at=[0, 1, 1, 2, 5, 5],
    )
    assert found == [Spent(0, "cpu", 3.0, 0.0), Spent(0, "cuda", 1.0, 1.0)]
    assert (kind_of("cuda:1 NVIDIA H100"), kind_of("cpu"), kind_of("")) == ("cuda", "cpu", "unknown")


def test_money_by_the_hour():
    row = Row("r", "runs/r", "finished", spent=(Spent(0, "cuda", 7200.0, 0.0), Spent(1, "cpu", 1800.0, 0.0)))
    assert money_of(row, parse_prices(["cuda=2.50", "cpu=0.04"])).amount == pytest.approx(5.02)
    partly = money_of(row, parse_prices(["cuda=2.50"]))
    assert (partly.amount, partly.unpriced) == (5.0, ("cpu",))


@pytest.mark.parametrize("word", ["cuda", "gpu=1", "cuda=", "cuda=x", "cuda=-1", "cuda=inf", "cuda=nan", "=1"])
def test_what_is_no_price_is_refused_with_what_is_one(word):
    with pytest.raises(ConfigError, match=r"--price .*cuda=|--price .*number"):
        parse_prices([word])


def test_a_price_stands_once():
    with pytest.raises(ConfigError, match="twice"):
        parse_prices(["cpu=1", "cpu=2"])
