"""The Ray cluster a run uses: connecting to it, and how many tasks its nodes hold."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from ensemble import interruption
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.executors.native_calls import run_interruptibly

_LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# With a cluster that does not let go; then the end of this process ends a local one.
_PATIENCE_S = 15.0
_PATIENCE_AFTER_SIGNAL_S = 4.0
_ALMOST = 1e-9  # 1 / 0.1 must count as 10


@contextmanager
def connection(address: str | None) -> Iterator[None]:
    """Inside, this process is connected to the cluster; see `connect`."""
    owns = connect(address)
    try:
        yield
    finally:
        if owns:
            disconnect()


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
    run_interruptibly(ray.shutdown, _PATIENCE_AFTER_SIGNAL_S if interruption.requested() else _PATIENCE_S)


def _connect(address: str | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options.update(address="local", include_dashboard=False, _node_ip_address="127.0.0.1")
    else:
        options.update(address=address)
    try:
        run_interruptibly(lambda: ray.init(**options))
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        where = f"the Ray cluster at {address}" if address else "a local Ray"
        raise ComputeError(
            f"{where} could not be reached: {error}; check compute.ray_address and RAY_AUTH_MODE, or use compute.executor=inline"
        ) from error


def gpus_of_cluster() -> float:
    """GPUs of the nodes that are there now."""
    return float(ray.cluster_resources().get("GPU", 0))


def slots_of_cluster(compute: ComputeConfig, device: str, workers: int | None = None) -> int:
    """How many tasks the nodes that are there now can hold at a time; 0 where none can hold one.

    workers: processes that train each task together, each with the CPUs of a task and, on a GPU, a GPU of its own; by
    default as many as compute.gpus_per_task says.
    """
    gpus = compute.gpus_per_task if device == "cuda" else 0.0
    workers = workers or max(1, int(gpus))
    if workers == 1:
        return fitting(compute.threads_per_task, gpus)
    return fitting(compute.threads_per_task, min(gpus, 1.0)) // workers  # they may lie on several nodes


def wait_for_slots(compute: ComputeConfig, device: str, workers: int | None = None) -> int:
    """As `slots_of_cluster`, after waiting on a cluster for nodes that can hold a task.

    Raises ComputeError where none fits in compute.placement_timeout_s; a local Ray gets no new nodes, and so no time.
    """
    on_cluster = bool(compute.ray_address or os.environ.get("RAY_ADDRESS"))
    deadline = time.monotonic() + (compute.placement_timeout_s if on_cluster else 0.0)
    demand: list[Any] = []
    while (fits := slots_of_cluster(compute, device, workers)) == 0 and time.monotonic() < deadline:
        demand = demand or _demand(compute, device, workers)
        interruption.check()
        time.sleep(0.5)
    for task in demand:
        ray.cancel(task, force=True)
    if fits == 0:
        raise ComputeError(_no_room(compute, device, workers))
    return fits


def _demand(compute: ComputeConfig, device: str, workers: int | None) -> list[Any]:
    """Empty tasks with the resources of a training task: an autoscaler adds nodes for tasks that wait, and only then."""
    gpus = compute.gpus_per_task if device == "cuda" else 0.0
    empty = ray.remote(num_cpus=compute.threads_per_task, num_gpus=min(gpus, 1.0), max_retries=0)(_nothing)
    return [empty.remote() for _ in range(workers or max(1, int(gpus)))]


def _nothing() -> None: ...


def _no_room(compute: ComputeConfig, device: str, workers: int | None) -> str:
    threads, gpus = compute.threads_per_task, compute.gpus_per_task if device == "cuda" else 0.0
    has = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in _nodes()) or "no node"
    workers = workers or max(1, int(gpus))
    if workers == 1:
        return f"no node can hold one task of {threads} CPUs and {gpus:g} GPUs; the cluster has: {has}; lower compute.threads_per_task or compute.gpus_per_task"
    each = f"{threads} CPUs and {min(gpus, 1.0):g} GPUs"
    fit = fitting(threads, min(gpus, 1.0))
    return f"no room for one task of {workers} workers with {each} each (compute.gpus_per_task, compute.threads_per_task); the nodes hold {fit} such workers: {has}; lower one of the two"


def fitting(threads: int, gpus: float, avoided: Collection[str] = ()) -> int:
    """How many tasks of so many CPUs and GPUs the nodes there are now can hold at a time.

    gpus: several tasks share a GPU below 1, but no task lies across two. avoided: nodes that do not count.
    """
    fits = 0
    for node in _nodes(avoided):
        by_cpu = int(node.get("CPU", 0) / threads)
        by_gpu = int(node.get("GPU", 0) / gpus) if gpus >= 1 else by_cpu
        if 0 < gpus < 1:
            by_gpu = int(node.get("GPU", 0)) * int(1 / gpus + _ALMOST)
        fits += min(by_cpu, by_gpu)
    return fits


def _nodes(avoided: Collection[str] = ()) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in avoided]
