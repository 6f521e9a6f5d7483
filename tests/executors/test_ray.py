"""The Ray executor on a real local cluster: contract, placement, crashes, shared arrays."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.events import Event, Notice, TaskStarted
from ensemble.executors.base import Offered
from ensemble.types import Failure, MemberResult, Task
from tests.contracts.executor_contract import ExecutorContract, arrays_read_only, finish, hanging, healthy, tasks

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for all tests here, on the loopback interface, with two CPUs whatever the machine has."""
    import ray

    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _node_ip_address="127.0.0.1",
        # Workers unpickle the task functions of this suite by module name.
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}},
    )  # fmt: skip
    yield
    ray.shutdown()


def ray_executor(**compute: Any) -> Any:
    from ensemble.executors.ray_tasks import RayExecutor

    return RayExecutor(ComputeConfig(executor="ray", **compute), "cpu")


@pytest.mark.usefixtures("cluster")
class TestRay(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Any:
        return ray_executor()

    def test_slots_follow_cores_and_threads(self) -> None:
        assert ray_executor().slots == 2
        assert ray_executor(threads_per_task=2).slots == 1
        assert ray_executor(slots=1).slots == 1

    def test_a_request_that_never_fits_fails_at_once_and_says_what_there_is(self) -> None:
        started = time.monotonic()
        with pytest.raises(ComputeError, match=r"one task of 64 CPUs .* the cluster has: 2 CPUs and 0 GPUs"):
            ray_executor(threads_per_task=64)
        from ensemble.executors.ray_tasks import RayExecutor

        with pytest.raises(ComputeError, match="1 GPUs; the cluster has: 2 CPUs and 0 GPUs"):
            RayExecutor(ComputeConfig(executor="ray"), "cuda")
        assert time.monotonic() - started < 5

    def test_a_killed_worker_fails_its_task_only(self, executor: Any) -> None:
        found, _ = self.outcomes(executor, tasks(1, 2, 1), dying)
        assert [f.kind for f in found[1].failures] == ["crash", "crash"]
        assert [len(o.results) for o in found] == [1, 0, 1]

    def test_a_task_that_is_tried_again_goes_before_those_that_wait(self) -> None:
        work = Offered(tasks(*[1] * 5))
        ended: list[str] = []
        for outcome in ray_executor(slots=1).run(work, healthy, arrays_read_only(), lambda _: None):
            ended.append(outcome.task.id)
            if ended in (["t0"], ["t0", "t0", "t1", "t2", "t3", "t4"]):
                work.put_first(outcome.task)
        assert ended == ["t0", "t0", "t1", "t2", "t3", "t4", "t4"]  # the last one is, though nothing waits any more

    def test_a_full_gpu_behind_another_error_is_recognised_through_ray(self, executor: Any) -> None:
        """The worker tells, since an exception loses its causes on its way here."""
        found, _ = self.outcomes(executor, tasks(1, 2), too_large)
        assert [[f.kind for f in o.failures] for o in found] == [["out_of_memory"], ["out_of_memory"] * 2]
        assert found[0].failures[0].reason == "ValueError: the step failed"
        assert "CUBLAS_STATUS_ALLOC_FAILED" in found[0].failures[0].details

    def test_a_process_whose_gpu_does_not_work_any_more_ends(self) -> None:
        """One slot, so that a kept process would train all: the one that failed trains nothing more."""
        found, events = self.outcomes(ray_executor(slots=1), tasks(1, 1, 1), faulting)
        processes = [e.message for e in events if isinstance(e, Notice)]
        assert processes[0] != processes[1] == processes[2]
        failure = found[0].failures[0]
        assert failure.kind == "crash"
        assert failure.reason.startswith(
            "the process cannot use its GPU any more: RuntimeError: CUDA error: an illegal"
        )
        assert "in faulting" in failure.details
        assert [len(o.results) for o in found] == [0, 1, 1]

    def test_events_come_while_the_task_runs(self, executor: Any) -> None:
        seen: list[float] = []
        started = time.monotonic()
        for _ in executor.run(tasks(1), slow, {}, lambda _: seen.append(time.monotonic())):
            ended = time.monotonic()
        assert len(seen) == 4
        assert seen[0] < ended - 1.0
        assert ended - started < 60

    def test_two_slots_run_at_the_same_time_and_processes_are_reused(self, executor: Any) -> None:
        processes: set[str] = set()
        for _ in range(6):  # a busy machine may take longer to start the second process than the first one trains all
            found, events = self.outcomes(executor, tasks(1, 1, 1, 1), telling)
            assert len(found) == 4
            processes = {e.message.split()[0] for e in events if isinstance(e, Notice)}
            if len(processes) == 2:
                break
        assert len(processes) == 2
        assert all("OMP=1" in e.message for e in events if isinstance(e, Notice))

    def test_refuses_to_start_inside_a_launched_world(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCAL_RANK", "0")
        with pytest.raises(ComputeError, match="LOCAL_RANK"):
            ray_executor()


def dying(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Notice(task.id)
    if task.id == "t1":
        os._exit(9)
    yield finish(task.members[0], 1.0)


def too_large(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Notice(task.id)
    try:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    except RuntimeError as error:
        raise ValueError("the step failed") from error


def faulting(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Notice(str(os.getpid()))
    if task.id == "t0":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    yield finish(task.members[0], 1.0)


def slow(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    for _ in range(4):
        yield Notice(task.id)
        time.sleep(0.5)
    yield finish(task.members[0], 1.0)


def telling(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Notice(f"{os.getpid()} OMP={os.environ.get('OMP_NUM_THREADS')}")
    time.sleep(1.5)
    yield finish(task.members[0], float(np.sum(given["x"])))


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_hangs_is_killed_and_the_others_finish() -> None:
    places: list[TaskStarted] = []

    def note(event: Any) -> None:
        if isinstance(event, TaskStarted):
            places.append(event)

    outcomes = {o.task.id: o for o in ray_executor(hang_timeout_s=2.0).run(tasks(1, 2), hanging, {}, note)}
    failure = outcomes["t0"].failures[0]
    assert failure.kind == "hung"
    assert "no sign of life for 2 s" in failure.reason
    assert failure.seconds_lost >= 2
    assert len(outcomes["t1"].results) == 2
    pid = next(place.pid for place in places if place.task == "t0")
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:  # noqa: PTH110 - a process, not a file
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{pid}")  # noqa: PTH110


@pytest.mark.usefixtures("cluster")
def test_another_cluster_than_the_one_this_process_is_in_is_refused() -> None:
    import ray

    here = ray.get_runtime_context().gcs_address
    with pytest.raises(ComputeError, match=f"compute.ray_address is 10.9.8.7:6379, but .* at {here} already"):
        ray_executor(ray_address="10.9.8.7:6379")
    port = here.rpartition(":")[2]
    for same in (here, "auto", f"localhost:{port}", f"127.0.0.1:{port}", f"{ray.util.get_node_ip_address()}:{port}"):
        assert ray_executor(ray_address=same).slots == 2
    with pytest.raises(ComputeError, match=f"compute.ray_address is localhost:1, but .* at {here} already"):
        ray_executor(ray_address="localhost:1")
