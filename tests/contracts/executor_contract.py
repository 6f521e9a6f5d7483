"""What every executor promises. Inherit, give `make`, and the suite runs with a real task function."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from ensemble import signals
from ensemble.errors import DataError, StorageError
from ensemble.events import Event, Notice, TaskStarted
from ensemble.executors import Executor
from ensemble.types import Checkpoint, EpochRecord, Failure, MemberResult, MemberSpec, Pulse, Stopped, Task, Votes


def tasks(*sizes: int) -> list[Task]:
    """Tasks of so many members each."""
    made, index = [], 0
    for number, size in enumerate(sizes):
        members = tuple(MemberSpec(index + i, "r", np.arange(3) + number) for i in range(size))
        made.append(Task(f"t{number}", "r", members))
        index += size
    return made


def arrays() -> dict[str, Any]:
    return {"x": np.arange(100, dtype=np.float32)}


def finish(spec: MemberSpec, value: float) -> MemberResult:
    probs = np.full((2, 2), value, np.float32)
    return MemberResult(
        spec.index, spec.recipe, Votes(probs, probs, np.empty(0, np.int64), probs[:0]), {},
        (EpochRecord(1, 0, 0, 0, 0, 0),), 1, 0.0, 1, 1,
    )  # fmt: skip


def healthy(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    assert not given["x"].flags.writeable or os.environ.get("INLINE"), "shared arrays are read-only"
    for step in range(3):
        yield Notice(f"{task.id} step {step}")
    for spec in task.members:
        yield finish(spec, float(given["x"][spec.rows].sum()))


def unhurried(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    time.sleep(0.5)
    yield from healthy(task, given)


def breaking(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    if task.id == "t1":
        yield finish(task.members[0], 1.0)
        raise ZeroDivisionError("a mistake in a network")
    yield from healthy(task, given)


def diverging(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Failure(task.members[0].index, "diverged", "loss is not finite")
    for spec in task.members[1:]:
        yield finish(spec, 1.0)


def mendable(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Notice("about to find bad data")
    raise DataError("labels.npz: found 11 classes, expected 10")


def until_stopped(task: Task, given: Any) -> Iterator[Any]:
    """Trains until its process is asked to stop, then hands in what it has done, as the training loop does."""
    yield Notice(f"{task.id} begins")
    deadline = time.monotonic() + 40
    while not signals.requested():
        assert time.monotonic() < deadline, f"{task.id} was not asked to stop"
        time.sleep(0.02)
        yield Pulse(task.id)
    yield Checkpoint(task.id, 1, 2, task.id.encode())
    yield Stopped(task.id)


def hanging(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    """Says where it runs, then stops its process as a debugger would: alive, and deaf."""
    yield TaskStarted(task.id, (0,), "r", 1, os.uname().nodename, os.getpid(), "cpu", 1)
    if task.id == "t0":
        os.kill(os.getpid(), signal.SIGSTOP)
    for spec in task.members:
        yield finish(spec, 1.0)


class ExecutorContract:
    """Suite of an executor."""

    @pytest.fixture
    def executor(self) -> Executor:
        raise AssertionError("give the executor of the subclass")

    def outcomes(self, executor: Executor, work: Sequence[Task], train: Any) -> tuple[list[Any], list[Event]]:
        events: list[Event] = []
        shared = arrays()
        shared["x"].flags.writeable = False
        found = list(executor.run(work, train, shared, events.append))
        return sorted(found, key=lambda outcome: outcome.task.id), events

    def test_every_task_gives_one_outcome_with_every_member(self, executor: Executor) -> None:
        work = tasks(2, 1, 3, 1)
        found, events = self.outcomes(executor, work, healthy)
        assert [o.task.id for o in found] == ["t0", "t1", "t2", "t3"]
        assert [[r.index for r in o.results] for o in found] == [[0, 1], [2], [3, 4, 5], [6]]
        assert found[1].results[0].votes.test_NK[0, 0] == 1 + 2 + 3
        for task in work:
            steps = [e.message for e in events if isinstance(e, Notice) and e.message.startswith(task.id)]
            assert steps == [f"{task.id} step {step}" for step in range(3)]

    def test_nothing_to_do(self, executor: Executor) -> None:
        assert self.outcomes(executor, [], healthy) == ([], [])

    def test_an_exception_fails_what_is_left_of_its_task_only(self, executor: Executor) -> None:
        found, _ = self.outcomes(executor, tasks(1, 3, 1), breaking)
        assert [len(o.results) for o in found] == [1, 1, 1]
        assert [f.index for f in found[1].failures] == [2, 3]
        failure = found[1].failures[0]
        assert failure.kind == "error"
        assert "a mistake in a network" in failure.reason
        assert "ZeroDivisionError" in failure.details

    def test_a_diverged_member_leaves_its_neighbours(self, executor: Executor) -> None:
        found, _ = self.outcomes(executor, tasks(3), diverging)
        assert [f.kind for f in found[0].failures] == ["diverged"]
        assert [r.index for r in found[0].results] == [1, 2]

    def test_errors_of_the_user_are_raised(self, executor: Executor) -> None:
        with pytest.raises(DataError, match="found 11 classes"):
            self.outcomes(executor, tasks(1, 1), mendable)
        assert len(self.outcomes(executor, tasks(1), healthy)[0]) == 1, "the executor is usable afterwards"

    def test_tasks_that_are_not_wanted_are_left_out(self, executor: Executor) -> None:
        def odd(task: Task) -> bool:
            return int(task.id[1:]) % 2 == 1

        found = list(executor.run(tasks(1, 1, 2, 1, 1), healthy, arrays_read_only(), lambda _: None, odd))
        assert sorted(outcome.task.id for outcome in found) == ["t1", "t3"]
        assert list(executor.run(tasks(1, 1), healthy, arrays_read_only(), lambda _: None, lambda _: False)) == []

    def test_what_is_wanted_is_asked_just_before_a_task_starts(self, executor: Executor) -> None:
        """After the first outcome nothing more is wanted: only tasks that are under way by then still end.

        A launched rank may have begun one more before rank 0 hears of the first.
        """
        ended: list[str] = []
        most = executor.slots * (2 if executor.name == "accelerate" else 1)
        for outcome in executor.run(
            tasks(*[1] * (most + 4)), unhurried, arrays_read_only(), lambda _: None, lambda _: not ended
        ):
            ended.append(outcome.task.id)
        assert 1 <= len(ended) <= most

    def test_a_stop_makes_the_tasks_under_way_hand_in_a_checkpoint(self, executor: Executor) -> None:
        """And no other one begins. The handlers are installed as by the command line; the signal is a real one."""
        begun: set[str] = set()
        kept: dict[str, bytes] = {}
        failed: list[Failure] = []

        def emit(item: Event | Checkpoint) -> None:
            if isinstance(item, Notice) and item.message.endswith("begins"):
                begun.add(item.message.split()[0])
                if len(begun) == executor.slots:
                    signal.raise_signal(signal.SIGTERM)
            elif isinstance(item, Checkpoint):
                kept[item.task] = item.content

        before = {number: signal.getsignal(number) for number in signals.SIGNALS}
        signals.install()
        try:
            with pytest.raises(KeyboardInterrupt):
                failed.extend(
                    failure
                    for outcome in executor.run(
                        tasks(*[1] * (executor.slots + 2)), until_stopped, arrays_read_only(), emit
                    )
                    for failure in outcome.failures
                )
            taken = signals.waited_s()
        finally:
            signals.clear()
            for number, handler in before.items():
                signal.signal(number, handler)
        assert kept == {task: task.encode() for task in begun}, (kept, begun, taken, failed)
        assert len(begun) == executor.slots
        assert taken < 5, f"{taken:.1f} s"
        if executor.name != "accelerate":  # its other ranks have left
            assert len(self.outcomes(executor, tasks(1), healthy)[0]) == 1, "the executor is usable afterwards"

    def test_a_disk_that_takes_no_checkpoint_ends_the_run_not_the_executor(self, executor: Executor) -> None:
        def full(_item: Any) -> None:
            raise StorageError("/runs/r: no space left on device")

        with pytest.raises(StorageError, match="no space left"):
            list(executor.run(tasks(1, 1), healthy, arrays_read_only(), full))
        assert len(self.outcomes(executor, tasks(1), healthy)[0]) == 1

    def test_leaving_early_is_possible(self, executor: Executor) -> None:
        running = executor.run(tasks(1, 1, 1), healthy, arrays_read_only(), lambda _: None)
        next(running)
        running.close()  # type: ignore[attr-defined]
        assert len(self.outcomes(executor, tasks(1), healthy)[0]) == 1


def arrays_read_only() -> dict[str, Any]:
    shared = arrays()
    shared["x"].flags.writeable = False
    return shared
