"""The executor of a launched world, with ranks as threads on real stores: contract, shares, withdrawals, silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ensemble.events import Event, Notice, TaskStarted
from ensemble.executors import Executor, serving
from ensemble.executors.launched import LaunchedExecutor
from ensemble.executors.serving import Letter, hears_all, serve
from ensemble.types import Checkpoint, MemberResult, Pulse, Task
from tests.contracts.executor_contract import ExecutorContract, finish, tasks
from tests.executors.worlds import in_thread, launched, make_worlds

TEST_THREAD = threading.current_thread()
# What tasks, which are pickled by name, and their test say to each other.
arrived = threading.Event()
release = threading.Event()
begun: list[tuple[int, str]] = []  # rank (of two) and task


@pytest.fixture(autouse=True)
def _events() -> Iterator[None]:
    arrived.clear()
    release.clear()
    begun.clear()
    yield
    release.set()


def rank() -> int:
    """0 or, for any other rank, 1."""
    return int(threading.current_thread() is not TEST_THREAD)


def plain(task: Task, _given: Any) -> Iterator[Any]:
    begun.append((rank(), task.id))
    for spec in task.members:
        yield finish(spec, 1.0)


@pytest.fixture
def world_of_two() -> Iterator[LaunchedExecutor]:
    with launched(2) as executor:
        yield executor
        release.set()


class TestContract(ExecutorContract):
    @pytest.fixture(params=[1, 2, 4], ids="{} ranks".format)
    def executor(self, request: pytest.FixtureRequest) -> Iterator[Executor]:
        with launched(request.param) as executor:
            yield executor


class TestContractOfDataParallel(ExecutorContract):
    """All ranks train each task; without collectives among threads, each trains all of it."""

    # Ranks that train together are asked to stop one by one, which threads of one process cannot be: test_stops.py.
    test_a_stop_makes_the_tasks_under_way_hand_in_a_checkpoint = None  # type: ignore[assignment]

    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        with launched(2, data_parallel=True) as executor:
            yield executor


def meeting(task: Task, given: Any) -> Iterator[Any]:
    """Trains on both ranks at a time: neither goes on before the other has begun."""
    if rank() == 0:
        assert arrived.wait(20)
    else:
        arrived.set()
    yield Notice(f"{task.id} on rank {rank()}")
    yield Checkpoint(task.id, 1, 2, bytes(10_000_000))
    for spec in task.members:
        result = finish(spec, float(given["x"][0]))
        yield MemberResult(spec.index, "r", result.votes, {"w": np.full(5_000_000, spec.index, np.float32)}, result.history, 1, 0.0, 1, 1)  # fmt: skip


def test_large_arrays_checkpoints_and_results_pass_between_ranks(world_of_two: LaunchedExecutor) -> None:
    """50 MB of arrays, 10 MB checkpoints and 20 MB results: more than one value of torch's store may have."""
    arrays = {"x": np.ones(12_500_000, np.float32)}
    items: list[Event | Checkpoint] = []
    outcomes = list(world_of_two.run(tasks(1, 1), meeting, arrays, items.append))
    assert {n.message.rpartition(" ")[2] for n in items if isinstance(n, Notice)} == {"0", "1"}
    assert sorted(len(c.content) for c in items if isinstance(c, Checkpoint)) == [10_000_000] * 2
    for outcome in outcomes:
        (result,) = outcome.results
        assert (result.weights["w"] == result.index).all()
        assert result.votes.test_NK[0, 0] == 1


def long_on_rank_0(task: Task, given: Any) -> Iterator[Any]:
    """Rank 0's task takes until `release`; the other ranks' half a second, so that rank 0 hears of one before the next."""
    if rank() == 0:
        arrived.set()
        while not release.is_set():
            time.sleep(0.01)
            yield Pulse(task.id)
    else:
        assert arrived.wait(20)
        time.sleep(0.5)
    yield from plain(task, given)


def test_what_other_ranks_finish_is_handed_on_while_rank_0_trains(world_of_two: LaunchedExecutor) -> None:
    """So that it is stored, and the failure policy hears of it, before rank 0's own task ends."""
    running = world_of_two.run(tasks(1, 1, 1), long_on_rank_0, {}, lambda _: None)
    others = {next(running).task.id, next(running).task.id}
    assert begun == [(1, task) for task in sorted(others)]
    release.set()
    assert {outcome.task.id for outcome in running} == {"t0", "t1", "t2"} - others


@pytest.mark.parametrize("data_parallel", [False, True])
def test_nothing_large_stays_in_the_store(data_parallel: bool) -> None:
    """Whoever takes a task removes it; arrays and rounds go with their last reader. Only counters stay."""
    with launched(3, data_parallel) as executor:
        for _ in range(3):
            assert len(list(executor.run(tasks(1, 1, 1, 1, 1), plain, {"x": np.zeros(2_000_000)}, print))) == 5
        store = executor._world._store
    kept = [
        key
        for key in store.list_keys()
        if not key.rpartition("ensemble/")[2].startswith(("next", "claim", "letters", "beats"))
    ]
    assert [key for key in kept if "init" not in key] == []


class TestUnwanted:
    def test_nothing_wanted(self, world_of_two: LaunchedExecutor) -> None:
        assert list(world_of_two.run(tasks(1, 2), plain, {}, print, lambda _: False)) == []
        assert begun == []

    def test_tasks_withdrawn_during_a_round_are_left_out(self, world_of_two: LaunchedExecutor) -> None:
        unwanted: set[str] = set()
        running = world_of_two.run(
            tasks(1, 1, 1, 1, 1, 1), long_on_rank_0, {}, lambda _: None, lambda task: task.id not in unwanted
        )
        found = [next(running).task.id]
        unwanted = {"t2", "t3", "t5"}
        release.set()
        found += [outcome.task.id for outcome in running]
        trained = {task for _, task in begun}
        assert sorted(found) == sorted(trained)
        # The other rank may have taken its second task before rank 0 heard of the first.
        assert {"t0", "t1", "t4"} <= trained
        assert len(trained & unwanted) <= 1
        assert len(list(world_of_two.run(tasks(1, 1), plain, {}, print))) == 2, "the next round is complete"

    def test_data_parallel_ranks_train_the_same_tasks(self) -> None:
        unwanted: set[str] = set()
        found = []
        with launched(3, data_parallel=True) as executor:
            for outcome in executor.run(tasks(1, 1, 1, 1), plain, {}, print, lambda task: task.id not in unwanted):
                found.append(outcome.task.id)
                unwanted.update(("t1", "t2"))
        assert found == ["t0", "t3"]
        assert sorted(begun) == [(0, "t0"), (0, "t3"), (1, "t0"), (1, "t0"), (1, "t3"), (1, "t3")]


def test_a_round_left_early_is_over_for_all_ranks(world_of_two: LaunchedExecutor) -> None:
    """The other rank takes no further task of it, and what it still says of it is not taken for the next round's."""
    running = world_of_two.run(tasks(*[1] * 20), long_on_rank_0, {}, lambda _: None)
    next(running)
    running.close()  # type: ignore[attr-defined]
    release.set()
    found = list(world_of_two.run(tasks(1, 1), long_on_rank_0, {}, lambda _: None))
    assert sorted(outcome.task.id for outcome in found) == ["t0", "t1"]
    assert len(begun) <= 5


class TestSilence:
    """Ranks that die or hang while they have a task."""

    def test_the_task_of_a_rank_that_dies_is_lost_with_its_node_and_the_others_go_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rank 0 and rank 1 train on; the run's policy tries the task again, and then it is trained."""
        monkeypatch.setattr("ensemble.executors.launched.SILENCE_SAID_S", 0.2)
        worlds = make_worlds(3)

        def dies() -> None:
            """Takes a task, says so and that it has started, and is not heard of again."""
            world = worlds[2]
            assert world.receive("round0", 2).tasks == 3
            position = world.count("next0")
            assert world.count(f"claim0/{position}") == 0
            world.send(Letter(0, position, Pulse("")))
            world.send(Letter(0, position, TaskStarted(f"t{position}", (0,), "r", 1, "far-away", 4321, "cpu", 1)))
            taken.append(position)
            arrived.set()

        taken: list[int] = []
        notices: list[str] = []
        executor = LaunchedExecutor(False, 0.7, worlds[0])
        dying = in_thread(dies)
        serving = in_thread(lambda: serve(worlds[1]))
        running = executor.run(tasks(1, 1, 1), once_the_other_is_dead, {}, lambda item: notices.append(str(item)))
        outcomes = {outcome.task.id: outcome for outcome in running}
        dying.join(5)
        assert len(outcomes) == 3
        (failure,) = outcomes.pop(f"t{taken[0]}").failures
        assert failure.kind == "lost_node"
        assert "rank 2 (far-away, process 4321) has shown no sign of life for 0.7 s" in failure.reason
        assert all(outcome.results and not outcome.failures for outcome in outcomes.values())
        assert sum("no sign of life from rank 2 (far-away, process 4321)" in notice for notice in notices) in (2, 3)
        (again,) = executor.run([tasks(1, 1, 1)[taken[0]]], plain, {}, lambda _: None)
        assert again.results
        assert not again.failures
        monkeypatch.setattr("ensemble.executors.launched._FAREWELL_S", 0.5)  # the dead rank never reads
        executor.close()
        serving.join(5)
        assert not serving.is_alive()

    def test_a_rank_that_dies_before_its_first_word(self) -> None:
        worlds = make_worlds(2)
        worlds[1].count("next0")
        executor = LaunchedExecutor(False, 0.5, worlds[0])
        outcomes = {outcome.task.id: outcome for outcome in executor.run(tasks(1, 1), plain, {}, lambda _: None)}
        assert outcomes["t0"].failures[0].kind == "lost_node"
        assert "a rank took it and was not heard of" in outcomes["t0"].failures[0].reason
        assert outcomes["t1"].results
        assert begun == [(0, "t1")]

    def test_a_rank_that_gives_signs_of_life_is_waited_for(self) -> None:
        with launched(2, hang_timeout_s=0.5) as executor:
            assert len(list(executor.run(tasks(1, 1), slow_but_alive, {}, lambda _: None))) == 2


def once_the_other_is_dead(task: Task, given: Any) -> Iterator[Any]:
    assert arrived.wait(20)
    time.sleep(0.3)
    yield from plain(task, given)


def slow_but_alive(task: Task, given: Any) -> Iterator[Any]:
    if rank() == 0:
        assert arrived.wait(20)
    else:
        arrived.set()
        for _ in range(12):
            time.sleep(0.1)
            yield Pulse(task.id)
    yield from plain(task, given)


def test_a_rank_that_falls_silent_while_all_train_together_is_said_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rank 0 itself waits in a collective then, so that another thread must look."""
    monkeypatch.setattr(serving, "SILENCE_SAID_S", 3.0)
    worlds, said = make_worlds(3), list[tuple[int, float]]()
    with hears_all(worlds[0], lambda rank, seconds: said.append((rank, seconds))), serving.stops_all(worlds[1]):
        with serving.stops_all(worlds[2]):
            time.sleep(4.5)
        assert said == []
        time.sleep(7.5)
    assert [rank for rank, _ in said] == [2, 2]
    assert 3 < said[0][1] < 5
    assert 6 < said[1][1] < 8
