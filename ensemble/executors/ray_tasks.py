"""Tasks as Ray tasks: one per slot, on this machine or on a cluster.

The data set goes into the object store once and is read there without copies. Each task is a streaming generator, so
events reach the driver while the task runs. Worker processes are reused: importing torch costs more than a small task.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError, EnsembleError
from ensemble.executors import interruption
from ensemble.executors.base import Arrays, Collector, Emit, Item, Outcome, Train, is_out_of_memory
from ensemble.types import FailureKind, Task

_LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE_S = 15.0  # with a cluster that does not let go; then the end of this process ends a local one
_LOOK_AGAIN_S = 5.0  # between looks at which nodes there are


class RayExecutor:
    """Runs tasks on a Ray cluster; starts a local one, on the loopback interface, when none is given.

    A cluster is given by `compute.ray_address` (`auto`: the one running on this machine) or by RAY_ADDRESS, which Ray
    sets in submitted jobs; one that merely happens to run is left alone.
    """

    name = "ray"

    def __init__(self, compute: ComputeConfig, device: str) -> None:
        self._threads = compute.threads_per_task
        self._hang_timeout_s = compute.hang_timeout_s
        self._gpus = compute.gpus_per_task if device == "cuda" else 0.0
        self._owns = connect(compute.ray_address)
        self._wanted = compute.slots
        try:
            fits = self._first_slots(compute.placement_timeout_s if self._on_cluster(compute) else 0.0)
        except ComputeError:
            self.close()
            raise
        self.slots = self._wanted or fits
        self._shared: tuple[int, list[Any]] | None = None

    def _on_cluster(self, compute: ComputeConfig) -> bool:
        return bool(compute.ray_address or os.environ.get("RAY_ADDRESS"))

    def _first_slots(self, patience_s: float) -> int:
        """How many tasks fit at a time, after waiting for a node that can hold one. Raises ComputeError without any."""
        deadline = time.monotonic() + patience_s
        while (fits := self._fitting_slots()) == 0 and time.monotonic() < deadline:
            interruption.check()
            time.sleep(0.5)
        if fits == 0:
            nodes = _nodes()
            has = "; ".join(f"{r.get('CPU', 0):g} CPUs and {r.get('GPU', 0):g} GPUs" for r in nodes) or "no node"
            raise ComputeError(
                f"no node can hold one task of {self._threads} CPUs and {self._gpus:g} GPUs; the cluster has: {has}; lower compute.threads_per_task or compute.gpus_per_task"
            )
        return fits

    def _fitting_slots(self) -> int:
        return _fitting(self._threads, self._gpus)

    def run(self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit) -> Iterator[Outcome]:
        """See Executor.run. At most `slots` tasks are under way at a time; without compute.slots, as many as fit now.

        With compute.slots above what fits, Ray queues the others, which makes an autoscaler add nodes.
        """
        with interruption.deferred():
            yield from self._run(tasks, train, arrays, emit)

    def _run(self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit) -> Iterator[Outcome]:
        names, references = list(arrays), self._share(arrays)
        # max_calls=0 keeps worker processes for the next task, also on GPUs; retries are the run's policy, not Ray's.
        placed = ray.remote(num_cpus=self._threads, num_gpus=self._gpus, max_retries=0, max_calls=0)
        remote = placed(_train_remotely)
        call = ray.put(train)
        waiting = deque(tasks)
        running: dict[Any, tuple[Collector, float]] = {}
        heard: dict[Any, float] = {}  # when a task last said anything; none before its first word
        looked = time.monotonic()
        try:
            while waiting or running:
                interruption.check()
                if self._wanted is None and waiting and time.monotonic() - looked > _LOOK_AGAIN_S:
                    looked, self.slots = time.monotonic(), max(1, self._fitting_slots())
                while waiting and len(running) < self.slots:
                    task = waiting.popleft()
                    stream = remote.remote(call, task, names, *references)
                    running[stream] = Collector(task, emit), time.monotonic()
                # A short wait, so that signals are seen: Python handles none while Ray waits.
                ready, _ = ray.wait(list(running), num_returns=1, timeout=0.5, fetch_local=False)
                for stream in ready:
                    heard[stream] = time.monotonic()
                    collector, started = running[stream]
                    if self._advance(stream, collector, started):
                        del running[stream], heard[stream]
                        yield collector.outcome()
                for stream in [s for s, last in heard.items() if time.monotonic() - last > self._hang_timeout_s]:
                    collector, started = running.pop(stream)
                    del heard[stream]
                    self._kill(stream, collector, started)
                    yield collector.outcome()
        finally:
            for stream in running:
                ray.cancel(stream, force=True)

    def _advance(self, stream: Any, collector: Collector, started: float) -> bool:
        """Take the next item of a task; True when the task has ended."""
        try:
            collector.take(ray.get(next(stream)))
            return False
        except StopIteration:
            return True
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, EnsembleError):
                raise cause from None
            collector.fail(_kind(cause), cause, time.monotonic() - started)
            return True

    def _kill(self, stream: Any, collector: Collector, started: float) -> None:
        """End a worker that no longer answers, and so cannot be asked to end itself."""
        place, silent = collector.place, f"no sign of life for {self._hang_timeout_s:g} s (compute.hang_timeout_s)"
        if place is not None:
            node = next(
                (n["NodeID"] for n in ray.nodes() if n["Alive"] and n["NodeManagerHostname"] == place.host), None
            )
            if node is not None:
                here = NodeAffinitySchedulingStrategy(node, soft=False)
                ray.get(ray.remote(num_cpus=0, scheduling_strategy=here)(_kill_process).remote(place.pid), timeout=30)
        ray.cancel(stream, force=True)
        collector.fail("hung", TimeoutError(silent), time.monotonic() - started)

    def _share(self, arrays: Arrays) -> list[Any]:
        if self._shared is None or self._shared[0] != id(arrays):
            self._shared = id(arrays), [ray.put(array) for array in arrays.values()]
        return self._shared[1]

    def close(self) -> None:
        """Stop the local cluster, or leave the one that was there."""
        self._shared = None
        if self._owns and ray.is_initialized():
            disconnect()


def _train_remotely(train: Train, task: Task, names: Sequence[str], *arrays: Any) -> Iterator[Item]:
    yield from train(task, dict(zip(names, arrays, strict=True)))


def _kill_process(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def slots_of_cluster(compute: ComputeConfig, device: str) -> int:
    """How many tasks the nodes that are there now can hold at a time; 0 where none can hold one.

    Connects to the cluster and leaves it again. Raises ComputeError when it cannot be reached.
    """
    owns = connect(compute.ray_address)
    try:
        gpus = compute.gpus_per_task if device == "cuda" else 0.0
        if gpus > 1:  # a group of whole GPUs, wherever they are
            return int(ray.cluster_resources().get("GPU", 0) / gpus)
        return _fitting(compute.threads_per_task, gpus)
    finally:
        if owns:
            disconnect()


def _fitting(threads: int, gpus: float) -> int:
    """How many tasks of so many CPUs and GPUs the nodes there are now can hold at a time."""
    fits = 0
    for resources in _nodes():
        by_cpu = int(resources.get("CPU", 0) / threads)
        fits += min(by_cpu, int(resources.get("GPU", 0) / gpus) if gpus else by_cpu)
    return fits


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def connect(address: str | None) -> bool:
    """Connect to the cluster at an address, that of RAY_ADDRESS, or a local one; True when this began a connection.

    Raises ComputeError inside a world that a launcher started, and when the cluster cannot be reached.
    """
    launched = [name for name in _LAUNCHER_VARIABLES if name in os.environ]
    if launched:
        raise ComputeError(
            f"compute.executor is ray, but this process was started by a launcher ({', '.join(launched)} set); use compute.executor=inline there, or start it without torchrun / accelerate launch"
        )
    if ray.is_initialized():
        return False
    _connect(address or os.environ.get("RAY_ADDRESS"))
    return True


def disconnect() -> None:
    """Leave the cluster, and stop it if it is a local one. With a raylet that hangs, Ray would wait for minutes."""
    interruption.run_interruptibly(ray.shutdown, _PATIENCE_S)


def _connect(address: str | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options.update(address="local", include_dashboard=False, _node_ip_address="127.0.0.1")
    else:
        options.update(address=address)
    try:
        interruption.run_interruptibly(lambda: ray.init(**options))
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        where = f"the Ray cluster at {address}" if address else "a local Ray"
        raise ComputeError(
            f"{where} could not be reached: {error}; check compute.ray_address and RAY_AUTH_MODE, or use compute.executor=inline"
        ) from error


def _kind(cause: BaseException) -> FailureKind:
    if isinstance(cause, OutOfMemoryError) or is_out_of_memory(cause):
        return "out_of_memory"
    if isinstance(cause, NodeDiedError):
        return "lost_node"
    return "crash" if isinstance(cause, WorkerCrashedError) else "error"
