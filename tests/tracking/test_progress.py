"""Time left and totals, against values worked out by hand."""

from __future__ import annotations

import pytest

from ensemble.events import EpochFinished, MemberFailed, MemberFinished, Notice, RunFinished, RunStarted, TaskStarted
from ensemble.tracking.progress import Progress, duration, one_line


def started(members=4, finished=0):
    return RunStarted("bag", "bagging", members, finished, "inline", 2)


def task(*members, epochs=10):
    return TaskStarted("t", members, "lenet5", epochs, "host", 1, "cpu", 1)


def epoch(member, number, epochs=10):
    return EpochFinished(member, number, epochs, 0.5, 0.4, 0.1, 1e-3, 1.0)


def finished(member, error=0.1):
    return MemberFinished(member, "lenet5", 100, 10.0, 10, error)


def after(*timed):
    progress = Progress()
    for time, event in timed:
        progress.update(event, time)
    return progress


def test_before_the_second_epoch_nobody_knows_the_time_left():
    """The first one holds imports and warming up: 100 s here, and then 1 s each."""
    progress = after((0.0, started()), (0.0, task(0)))
    assert progress.running[0].seconds_left(5.0) is None
    assert progress.seconds_left(5.0) is None
    progress.update(epoch(0, 1), 100.0)
    assert progress.running[0].seconds_left(100.0) is None
    assert progress.seconds_left(100.0) is None
    progress.update(epoch(0, 2), 101.0)
    assert progress.running[0].seconds_left(101.0) == pytest.approx(8.0)


def test_a_members_time_left_is_measured_on_the_clock_not_on_its_share():
    # An epoch took 4 s on the clock (its share said 1 s); 8 remain, and 1 s has passed since.
    progress = after((100.0, started()), (100.0, task(0)), (104.0, epoch(0, 1)), (108.0, epoch(0, 2)))
    assert progress.running[0].seconds_left(109.0) == pytest.approx(8 * 4.0 - 1.0)


def test_only_recent_epochs_set_the_pace():
    slow = [(100.0 * number, epoch(0, number, epochs=20)) for number in (1, 2)]
    quick = [(200.0 + number, epoch(0, 2 + number, epochs=20)) for number in range(1, 6)]
    progress = after((0.0, started()), (0.0, task(0, epochs=20)), *slow, *quick)
    assert progress.running[0].seconds_left(205.0) == pytest.approx(13 * 1.0)


def test_time_left_never_falls_below_zero():
    progress = after((0.0, started(1)), (0.0, task(0)), (1.0, epoch(0, 8)), (2.0, epoch(0, 9)))
    assert progress.running[0].seconds_left(1000.0) == 0.0


def test_the_run_s_time_left_at_its_own_pace():
    # Two members side by side: 2 member-epochs in the 2 s since their first ones, so 36 more take 36 s.
    progress = after(
        (0.0, started()), (0.0, task(0)), (0.0, task(1)),
        (2.0, epoch(0, 1)), (2.0, epoch(1, 1)), (4.0, epoch(0, 2)), (4.0, epoch(1, 2)),
    )  # fmt: skip
    assert progress.epochs == (4, 40)
    assert progress.seconds_left(4.0) == pytest.approx(36.0)
    assert progress.seconds_left(10.0) == pytest.approx(30.0)


def test_finished_members_of_an_earlier_start_count_as_done_but_not_for_the_pace():
    progress = after((0.0, started(4, finished=3)), (0.0, task(3)), (2.0, epoch(3, 1)), (4.0, epoch(3, 2)))
    assert (progress.finished, progress.waiting, len(progress.running)) == (3, 0, 1)
    assert progress.epochs == (32, 40)
    assert progress.seconds_left(4.0) == pytest.approx(16.0)


def test_a_dropped_member_is_needed_no_more_and_a_retried_one_starts_again():
    progress = after((0.0, started(2)), (0.0, task(0, 1)), (1.0, epoch(0, 1)), (1.0, epoch(1, 1)))
    progress.update(MemberFailed(1, "crash", "x", 1, 1.0, "retry"), 2.0)
    assert (progress.failed, progress.waiting, progress.epochs) == (0, 1, (1, 20))
    progress.update(task(1), 3.0)
    progress.update(MemberFailed(1, "crash", "x", 2, 1.0, "drop"), 4.0)
    assert (progress.failed, progress.waiting, progress.epochs) == (1, 0, (1, 10))


def test_a_stack_tried_again_whole_does_not_count_its_finished_member_twice():
    progress = after((0.0, started(2)), (0.0, task(0, 1)), (1.0, epoch(0, 10)), (1.0, epoch(1, 4)))
    progress.update(finished(0), 1.0)
    progress.update(MemberFailed(1, "crash", "x", 1, 1.0, "retry"), 1.0)
    assert (progress.finished, progress.waiting) == (1, 1)
    progress.update(task(0, 1), 2.0)
    assert (progress.finished, progress.waiting, len(progress.running)) == (0, 0, 2)
    progress.update(finished(0), 3.0)
    progress.update(finished(1), 3.0)
    assert (progress.finished, progress.members, progress.epochs) == (2, 2, (20, 20))


def test_a_half_finished_stack_trained_again_never_counts_more_than_all_members():
    progress = after((0.0, started(2, finished=1)), (0.0, task(0, 1)), (1.0, epoch(0, 1)), (1.0, epoch(1, 1)))
    assert progress.epochs == (2, 20)
    progress.update(finished(0), 2.0)
    progress.update(finished(1), 2.0)
    assert (progress.finished, progress.members) == (2, 2)


def test_members_of_unequal_epochs():
    progress = after((0.0, started(4)), (0.0, task(0, epochs=10)), (0.0, task(1, epochs=20)), (1.0, epoch(0, 5)))
    assert progress.epochs == (5, 10 + 20 + 2 * 15)


def test_the_mean_error_is_that_of_finished_members():
    progress = after((0.0, started()), (1.0, finished(0, 0.1)), (2.0, finished(1, 0.3)), (3.0, Notice("x")))
    assert progress.mean_error == pytest.approx(0.2)
    assert Progress().mean_error is None


def test_the_end_leaves_nobody_running():
    progress = after((0.0, started()), (0.0, task(0)), (1.0, RunFinished(1, 0, 1.0, {})))
    assert progress.running == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "…"), (0.4, "0:00"), (42.0, "0:42"), (59.6, "1:00"), (723.0, "12:03"), (11109.0, "3:05:09")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_one_line_keeps_words_and_drops_control():
    assert one_line("\x1b[1;31mred\x1b[0m\r\n  two\tthree\x07 é") == "red two three é"
