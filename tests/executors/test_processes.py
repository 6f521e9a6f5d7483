"""The executor of processes on this machine: contract, ends of processes, what they share, and that nothing is left behind."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble import signals
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.events import Event, Notice, TaskStarted
from ensemble.executors import build_executor, expected_slots
from ensemble.executors.base import Offered
from ensemble.executors.processes import ProcessExecutor
from ensemble.executors.shared_arrays import SharedArrays, mapped
from ensemble.types import Checkpoint, Failure, MemberResult, Stopped, Task
from tests.contracts.executor_contract import ExecutorContract, arrays_read_only, finish, hanging, healthy, tasks
from tests.ports import listening


def made(slots: int = 2, at_once: int = 0, **compute: Any) -> ProcessExecutor:
    """An executor; at_once: processes that are started before there is a task."""
    return ProcessExecutor(ComputeConfig(executor="processes", **compute), slots, at_once)


def is_there(pid: int) -> bool:
    """Whether a process lives, and is not merely waiting to be asked for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int, within_s: float = 20) -> bool:
    deadline = time.monotonic() + within_s
    while is_there(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_there(pid)


@pytest.fixture(scope="module")
def shared() -> Iterator[ProcessExecutor]:
    """One for all, whose processes have torch by the second test; whatever a test does to it, it stays usable."""
    executor = made()
    yield executor
    executor.close()


class TestProcesses(ExecutorContract):
    @pytest.fixture
    def executor(self, shared: ProcessExecutor) -> ProcessExecutor:
        return shared

    def test_a_killed_process_fails_its_task_only(self, executor: ProcessExecutor) -> None:
        found, _ = self.outcomes(executor, tasks(1, 2, 1), dying)
        assert [[f.kind for f in o.failures] for o in found] == [[], ["crash", "crash"], []]
        failure = found[1].failures[0]
        assert "that trained it ended by itself with exit code 9" in failure.reason
        assert failure.details == "the last words of a library"
        assert [len(o.results) for o in found] == [1, 0, 1]

    def test_one_that_the_system_ends_says_so(self, executor: ProcessExecutor) -> None:
        found, _ = self.outcomes(executor, tasks(1), killed)
        assert found[0].failures[0].kind == "crash"
        assert "was ended by SIGKILL, as the system does where memory runs out" in found[0].failures[0].reason

    def test_one_that_somebody_else_stops_loses_its_task_only(self, executor: ProcessExecutor) -> None:
        """Its state is kept, from which another try goes on."""
        kept: list[Checkpoint] = []
        outcomes = list(
            executor.run(
                tasks(1, 1),
                stopped_by_others,
                arrays_read_only(),
                lambda item: kept.append(item) if isinstance(item, Checkpoint) else None,
            )
        )
        found = {outcome.task.id: outcome for outcome in outcomes}
        assert [failure.kind for failure in found["t0"].failures] == ["crash"]
        assert "was asked to stop" in found["t0"].failures[0].reason
        assert len(found["t1"].results) == 1
        assert [one.content for one in kept] == [b"so far"]

    def test_one_that_hangs_is_killed_and_the_others_finish(self) -> None:
        places: list[TaskStarted] = []
        executor = made(hang_timeout_s=2.0)
        outcomes = {
            o.task.id: o
            for o in executor.run(
                tasks(1, 2), hanging, {}, lambda item: places.append(item) if isinstance(item, TaskStarted) else None
            )
        }
        failure = outcomes["t0"].failures[0]
        assert failure.kind == "hung"
        assert "no sign of life for 2 s" in failure.reason
        assert failure.seconds_lost >= 2
        assert len(outcomes["t1"].results) == 2
        assert gone(next(place.pid for place in places if place.task == "t0"))
        executor.close()

    def test_what_comes_while_outcomes_are_taken_for_long_is_no_silence(self) -> None:
        """Both end at once; the second has long spoken when the first one's outcome has been taken."""
        executor, found = made(hang_timeout_s=1.0), []
        for outcome in executor.run(tasks(1, 1), unhurriedly, arrays_read_only(), lambda _: None):
            found.append(outcome)
            time.sleep(2.5)
        assert [len(outcome.results) for outcome in found] == [1, 1]
        executor.close()

    def test_a_task_that_is_tried_again_goes_before_those_that_wait(self) -> None:
        work, executor = Offered(tasks(*[1] * 5)), made(slots=1)
        ended: list[str] = []
        for outcome in executor.run(work, healthy, arrays_read_only(), lambda _: None):
            ended.append(outcome.task.id)
            if ended in (["t0"], ["t0", "t0", "t1", "t2", "t3", "t4"]):
                work.put_first(outcome.task)
        assert ended == ["t0", "t0", "t1", "t2", "t3", "t4", "t4"]
        executor.close()

    def test_processes_run_side_by_side_and_are_kept(self, executor: ProcessExecutor) -> None:
        numbers = []
        for _ in range(2):
            _, events = self.outcomes(executor, tasks(1, 1, 1, 1), telling)
            words = [event.message.split() for event in events if isinstance(event, Notice)]
            numbers.append({pid for pid, _ in words})
            assert {threads for _, threads in words} == {"1"}
        assert numbers[0] == numbers[1]
        assert len(numbers[0]) == 2
        executor.close()
        assert all(gone(int(pid)) for pid in numbers[0])

    def test_one_that_leaves_something_behind_is_found_gone_at_once_and_so_is_that(self, tmp_path: Path) -> None:
        """A fork of it holds its end of the line, so that no end of the line is seen."""
        executor, left = made(hang_timeout_s=60.0), tmp_path / "left"
        began = time.monotonic()
        found = list(executor.run(tasks(1), leaving_behind, {"x": np.array(str(left))}, lambda _: None))
        assert time.monotonic() - began < 30
        assert "ended by itself with exit code 3" in found[0].failures[0].reason
        assert gone(int(left.read_text()))
        executor.close()

    def test_one_that_dies_before_its_first_task_costs_nothing(self) -> None:
        executor = made(at_once=1)
        first = executor._idle[0].popen.pid
        os.kill(first, signal.SIGKILL)
        assert gone(first)
        outcomes = list(executor.run(tasks(1), healthy, arrays_read_only(), lambda _: None))
        assert [len(outcome.results) for outcome in outcomes] == [1]
        executor.close()

    def test_a_stop_before_the_first_word_is_no_failure(self) -> None:
        """Its processes still import torch, and have nothing to hand in."""
        executor, outcomes = made(at_once=2), []
        before = {number: signal.getsignal(number) for number in signals.SIGNALS}
        signals.install()

        def second(task: Task) -> bool:
            if task.id == "t1":
                signal.raise_signal(signal.SIGTERM)
            return True

        try:
            with pytest.raises(KeyboardInterrupt):
                outcomes.extend(executor.run(tasks(1, 1), unhurriedly, arrays_read_only(), lambda _: None, second))
        finally:
            signals.clear()
            for number, handler in before.items():
                signal.signal(number, handler)
        assert [failure for outcome in outcomes for failure in outcome.failures] == []
        executor.close()

    def test_a_timeout_that_the_program_has_set_for_its_sockets_changes_nothing(self) -> None:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(0.001)
        try:
            executor = made(at_once=1)
            outcomes = list(executor.run(tasks(1, 1), healthy, arrays_read_only(), lambda _: None))
            assert [len(outcome.results) for outcome in outcomes] == [1, 1]
            executor.close()
        finally:
            socket.setdefaulttimeout(before)

    def test_what_cannot_be_sent_is_refused_with_a_remedy(self, executor: ProcessExecutor) -> None:
        lock = threading.Lock()

        def locked(task: Task, given: Any) -> Iterator[Any]:
            with lock:
                yield from healthy(task, given)

        with pytest.raises(
            ComputeError, match=r"cannot be sent to another process: TypeError: .*; put your own classes"
        ):
            list(executor.run(tasks(1), locked, arrays_read_only(), lambda _: None))
        with pytest.raises(ComputeError, match=r"cannot be made in another process: ModuleNotFoundError: .*; put your"):
            list(executor.run(tasks(1), Unmade(), arrays_read_only(), lambda _: None))

    def test_a_function_is_computed_there(self, executor: ProcessExecutor) -> None:
        """In a process that has trained; one that takes too long or breaks is an error, and the next call gets another."""
        _, events = self.outcomes(executor, tasks(1), telling)
        assert isinstance(events[0], Notice)
        assert executor.call(60.0, os.getpid) == int(events[0].message.split()[0])
        with pytest.raises(ComputeError, match="ZeroDivisionError"):
            executor.call(60.0, divmod, 1, 0)
        with pytest.raises(ComputeError, match="has ended or does not answer"):
            executor.call(0.5, time.sleep, 30)
        with pytest.raises(ComputeError, match="has ended or does not answer"):
            executor.call(60.0, os._exit, 3)
        assert executor.call(60.0, abs, -3) == 3

    def test_a_large_result_and_a_large_task_arrive_whole(self, executor: ProcessExecutor) -> None:
        from dataclasses import replace

        content = np.random.default_rng(0).bytes(30_000_000)
        task = replace(tasks(1)[0], checkpoint=Checkpoint("t0", 1, 0, content))
        kept: list[Any] = []
        outcomes = list(executor.run([task], echoing, arrays_read_only(), kept.append))
        assert len(outcomes[0].results) == 1
        assert [one.content for one in kept] == [content]


def test_what_a_task_needs_too_many_processes_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_words: Any, **_options: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", refused)
    with pytest.raises(ComputeError, match="cannot be started: Resource temporarily unavailable; use fewer"):
        made(at_once=1)


def test_processes_listen_nowhere_and_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    """Also in mid-training, when nobody closes the line in order."""
    program = tmp_path / "driver.py"
    program.write_text(
        textwrap.dedent("""
        import os, signal
        from ensemble.events import Notice
        from tests.contracts.executor_contract import arrays_read_only, tasks
        from tests.executors.test_processes import made, asleep
        for outcome in made().run(tasks(1, 1), asleep, arrays_read_only(), lambda item: print(item.message, flush=True)):
            pass
        """)
    )
    root = str(Path(__file__).parents[2])
    driver = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert driver.stdout is not None
    with driver.stdout:
        numbers = [int(driver.stdout.readline()) for _ in range(2)]
        assert all(map(is_there, numbers))
        assert listening([driver.pid, *numbers]) == {}
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert all(map(gone, numbers))


def test_what_a_script_defines_trains_in_processes_that_do_not_have_the_script(tmp_path: Path) -> None:
    """Without `if __name__`, too: no process executes the script again."""
    program = tmp_path / "script.py"
    program.write_text(
        textwrap.dedent("""
        from tests.contracts.executor_contract import arrays_read_only, healthy, tasks
        from tests.executors.test_processes import made

        class Mine:
            times = 3
            def __call__(self, task, given):
                for item in healthy(task, given):
                    yield item

        executor = made()
        print([len(one.results) * Mine.times for one in executor.run(tasks(1, 1), Mine(), arrays_read_only(), lambda _: None)])
        executor.close()
        """)
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[3, 3]\n"), done.stderr


def test_who_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    much = 10**9
    monkeypatch.setattr("ensemble.executors.choose.cpus_here", lambda: 4)
    for given, expected in (
        ({}, 4),
        ({"slots": 3}, 3),
        ({"slots": 99}, 4),
        ({"threads_per_task": 2}, 2),
        ({"threads_per_task": 9}, 1),
    ):
        compute = ComputeConfig(executor="processes", **given)
        executor = build_executor(compute, "cpu", [], 0)
        assert executor.slots == expected_slots(compute, "cpu", 0) == expected
        executor.close()
    executor = build_executor(ComputeConfig(slots=2), "cpu", tasks(1, 1), much)
    assert (executor.name, executor.slots) == ("processes", 2)
    executor.close()
    assert build_executor(ComputeConfig(slots=2), "cpu", tasks(1), much).name == "inline"
    executor = build_executor(ComputeConfig(executor="processes"), "cpu", tasks(1), 0)
    assert executor.name == "processes"
    executor.close()
    with pytest.raises(ComputeError, match="processes, which train on CPUs, but the device is a GPU"):
        build_executor(ComputeConfig(executor="processes"), "cuda", tasks(1), much)


def test_shared_arrays_are_the_arrays() -> None:
    given = {
        "images": np.random.default_rng(0).integers(0, 256, (7, 1, 5, 3)).astype(np.uint8),
        "none": np.empty((0, 4), np.float32),
        "one": np.array(3.5),
        "turned": np.arange(12, dtype=np.int64).reshape(3, 4).T,
        "yes": np.array([True, False, True]),
    }
    shared = SharedArrays.of(given)
    found = mapped(shared.described, os.dup(shared.descriptor))
    shared.close()
    assert not shared.others
    for name, array in given.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)
        assert not found[name].flags.writeable
    assert mapped({}, os.memfd_create("empty")) == {}


def test_no_room_for_the_images_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(ComputeError, match=r"the images .* do not fit .* \(No space left on device\); use compute"):
        SharedArrays.of(arrays_read_only())


def dying(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Notice(task.id)
    if task.id == "t1":
        print("the last words of a library", flush=True)
        os._exit(9)
    yield finish(task.members[0], 1.0)


def killed(task: Task, given: Any) -> Iterator[Event]:
    yield Notice(task.id)
    os.kill(os.getpid(), signal.SIGKILL)


def stopped_by_others(task: Task, given: Any) -> Iterator[Any]:
    yield Notice(task.id)
    if task.id == "t0":
        os.kill(os.getpid(), signal.SIGTERM)
    if signals.requested():
        yield Checkpoint(task.id, 1, 0, b"so far")
        yield Stopped(task.id)
        return
    yield finish(task.members[0], 1.0)


def unhurriedly(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Notice(task.id)
    time.sleep(0.3 if task.id == "t0" else 0.6)
    yield finish(task.members[0], 1.0)


def leaving_behind(task: Task, given: Any) -> Iterator[Event]:
    yield Notice(task.id)
    child = os.fork()
    if child == 0:
        time.sleep(600)
    Path(str(given["x"])).write_text(str(child))
    os._exit(3)


class Unmade:
    """Cannot be made again where it arrives."""

    def __call__(self, task: Task, given: Any) -> Iterator[Any]:
        yield from healthy(task, given)

    def __reduce__(self) -> Any:
        return importlib.import_module, ("no_such_module_anywhere",)


def telling(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Notice(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")
    time.sleep(0.5)
    yield finish(task.members[0], 1.0)


def echoing(task: Task, given: Any) -> Iterator[Any]:
    assert task.checkpoint is not None
    yield Checkpoint(task.id, 1, 0, task.checkpoint.content)
    yield finish(task.members[0], 1.0)


def asleep(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Notice(str(os.getpid()))
    time.sleep(600)
