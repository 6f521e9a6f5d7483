"""The Ray cluster a run uses: connecting to it, and how many tasks its nodes hold."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

from ensemble import signals
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError, EnsembleError
from ensemble.executors import local_ray
from ensemble.executors.knocking import host_and_port, knock
from ensemble.executors.native_calls import run_interruptibly
from ensemble.outside import launcher_variables
from ensemble.outside.foreign_variables import settle_variables
from ensemble.outside.long_work import working
from ensemble.outside.names import shown

# With a cluster that does not let go; then the end of this process ends a local one.
_PATIENCE_S = 15.0
_PATIENCE_AFTER_SIGNAL_S = 4.0
_CONNECT_S = 60.0  # for a cluster whose port has answered
_ALMOST = 1e-9  # 1 / 0.1 must count as 10
_TYPE = "accelerator_type:"  # how Ray calls the type of a node's GPUs among its resources


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
    settle_variables()
    if launched := launcher_variables.of_launcher():
        raise ComputeError(
            f"compute.executor is ray, but this process was started by a launcher ({', '.join(launched)} set); use compute.executor=inline there, or start it without torchrun / accelerate launch"
        )
    wanted = address if address != "local" else None
    field = "RAY_ADDRESS" if wanted is None and launcher_variables.ray_address() else "compute.ray_address"
    wanted = wanted or launcher_variables.ray_address()
    if ray.is_initialized():
        if address is not None:
            _check_same(address, field)
        return False
    if wanted is not None:
        _knock(wanted, field)
    _connect(wanted)
    return True


def _check_same(address: str, field: str) -> None:
    """Raises ComputeError where this process is connected already, but to another cluster than the one that is named."""
    place = host_and_port(address, field)
    connected = ray.get_runtime_context().gcs_address
    if place is None or address.startswith(
        "ray://"
    ):  # `auto` is satisfied by any; a client does not know its head's own address
        return
    host, _, port = connected.rpartition(":")
    # A head of this machine tells one address of it, and answers at all of them: localhost too.
    one_machine = bool(_addresses(host) & _addresses(place[0])) or (_is_here(host) and _is_here(place[0]))
    if int(port) != place[1] or not one_machine:
        raise ComputeError(
            f"{field} is {address}, but this process is connected to the Ray cluster at {connected} already; leave that first (ray.shutdown()), or remove {field}"
        )


def _addresses(host: str) -> set[str]:
    return {str(found[4][0]) for found in _found(host)} or {host}


def _found(host: str) -> list[Any]:
    try:
        return socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return []


def _is_here(host: str) -> bool:
    """Whether it names this machine: only its own addresses can be bound."""
    for family, kind, protocol, _, place in _found(host):
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as line:
            line.bind(place)
            return True
    return False


def _knock(address: str, field: str) -> None:
    """Raises ComputeError within seconds where no cluster answers at this address, or at the one that `auto` finds."""
    if address != "auto":
        knock(address, field)
    elif found := ray._private.utils.read_ray_address():  # of the last head that was started on this machine
        knock(found, f"{field} is auto, and Ray's record of this machine's cluster")


def is_own(compute: ComputeConfig, owns: bool) -> bool:
    """Whether the cluster is a local one of this process alone, where nobody else has tasks. owns: what `connect` gave."""
    return owns and compute.ray_address in (None, "local") and launcher_variables.ray_address() is None


def disconnect() -> None:
    """Leave the cluster, and stop it if it is a local one. With a raylet that hangs, Ray would wait for minutes."""
    run_interruptibly(ray.shutdown, _PATIENCE_AFTER_SIGNAL_S if signals.requested() else _PATIENCE_S)
    _remove_folder()


def _connect(address: str | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            with working("starting Ray"):
                _start_local(options)
        elif not _joined(address, options):
            raise ComputeError(
                f"the Ray cluster at {address} has not let this process in for {_CONNECT_S:g} s; check that its head is well and of the same Ray version ({ray.__version__}), or use compute.executor=inline"
            )
    except EnsembleError:
        raise
    except Exception as error:  # Ray raises this very class where a node does not start in time
        where = f"the Ray cluster at {address}" if address else "a local Ray"
        raise ComputeError(
            f"{where} could not be reached: {error}; {_remedy(error)}, or use compute.executor=inline"
        ) from error


def _joined(address: str, options: dict[str, Any]) -> bool:
    with working(f"connecting to the Ray cluster at {shown(address)}"):
        return run_interruptibly(lambda: ray.init(address=address, **options), _CONNECT_S)


def _remedy(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return f"Ray keeps its token in the home folder ({os.environ.get('HOME') or 'HOME is not set'}): set HOME to a folder that can be written, or RAY_AUTH_TOKEN_PATH to a file with a token, or RAY_AUTH_MODE=disabled on a machine that only you use"
    if "timed out" in str(error):
        return "the machine may be too busy or have too little memory: start the same command again"
    return "check compute.ray_address and RAY_AUTH_MODE"


def _start_local(options: dict[str, Any]) -> None:
    """Start a Ray of this process alone; see `local_ray`."""
    _State.folder = folder = local_ray.LocalFolder()

    def start() -> None:
        with local_ray.loopback_only():
            ray.init(**local_ray.options(folder), **options)
        folder.ends_with(_raylet())

    try:
        run_interruptibly(start, groups=folder.groups)
    except BaseException:
        _remove_folder()
        raise


def _raylet() -> int:
    """The process that Ray has begun on this machine, which leads a group of its own (`native_calls`)."""
    number: int = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
    return number


def _remove_folder() -> None:
    if _State.folder is not None:
        _State.folder.remove()
        _State.folder = None


class _State:
    folder: local_ray.LocalFolder | None = None


def gpus_of_cluster() -> float:
    """GPUs of the nodes that are there now."""
    return float(ray.cluster_resources().get("GPU", 0))


def slots_of_cluster(
    compute: ComputeConfig, device: str, workers: int | None = None, avoided: Collection[str] = ()
) -> int:
    """How many tasks the nodes that are there now can hold at a time; 0 where none can hold one.

    workers: processes that train each task together, each with the CPUs of a task and, on a GPU, a GPU of its own; by
    default as many as compute.gpus_per_task says. avoided: nodes that do not count.
    """
    gpus = compute.gpus_per_task if device == "cuda" else 0.0
    workers, kind = workers or max(1, int(gpus)), wanted_type(compute, device)
    if workers == 1:
        return fitting(compute.threads_per_task, gpus, avoided, kind)
    return fitting(compute.threads_per_task, min(gpus, 1.0), avoided, kind) // workers  # they may lie on several nodes


def wait_for_slots(
    compute: ComputeConfig, device: str, workers: int | None = None, avoided: Collection[str] = ()
) -> int:
    """As `slots_of_cluster`, after waiting on a cluster for nodes that can hold a task.

    Raises ComputeError where none fits in compute.placement_timeout_s; a local Ray gets no new nodes, and so no time.
    """
    on_cluster = bool(compute.ray_address or launcher_variables.ray_address())
    deadline = time.monotonic() + (compute.placement_timeout_s if on_cluster else 0.0)
    demand: list[Any] = []
    with working("waiting for a node that can hold a task"):
        fits = _wait(compute, device, workers, avoided, deadline, demand)
    for task in demand:
        ray.cancel(task, force=True)
    if fits == 0:
        raise ComputeError(_no_room(compute, device, workers))
    return fits


def _wait(
    compute: ComputeConfig,
    device: str,
    workers: int | None,
    avoided: Collection[str],
    deadline: float,
    demand: list[Any],
) -> int:
    """Slots, once there are any or the time is over. demand: takes the empty tasks that show an autoscaler what is wanted."""
    while (fits := slots_of_cluster(compute, device, workers, avoided)) == 0 and time.monotonic() < deadline:
        demand += [] if demand else _demand(compute, device, workers)
        signals.check()
        time.sleep(0.5)
    return fits


def _demand(compute: ComputeConfig, device: str, workers: int | None) -> list[Any]:
    """Empty tasks with the resources of a training task: an autoscaler adds nodes for tasks that wait, and only then."""
    gpus = compute.gpus_per_task if device == "cuda" else 0.0
    options = {
        "num_cpus": compute.threads_per_task,
        "num_gpus": min(gpus, 1.0),
        **of_type(wanted_type(compute, device)),
    }
    empty = ray.remote(max_retries=0, **options)(_nothing)
    return [empty.remote() for _ in range(workers or max(1, int(gpus)))]


def _nothing() -> None: ...


def _no_room(compute: ComputeConfig, device: str, workers: int | None) -> str:
    threads, gpus = compute.threads_per_task, compute.gpus_per_task if device == "cuda" else 0.0
    has = "; ".join(map(_has, _nodes())) or "no node"
    kind = wanted_type(compute, device)
    type_of, lower = ("", "") if kind is None else (f" of type {kind}", ", or leave compute.gpu_type out")
    workers = workers or max(1, int(gpus))
    if workers == 1:
        return f"no node can hold one task of {threads} CPUs and {gpus:g} GPUs{type_of}; the cluster has: {has}; lower compute.threads_per_task or compute.gpus_per_task{lower}"
    each = f"{threads} CPUs and {min(gpus, 1.0):g} GPUs{type_of}"
    fit = fitting(threads, min(gpus, 1.0), kind=kind)
    return f"no room for one task of {workers} workers with {each} each (compute.gpus_per_task, compute.threads_per_task); the nodes hold {fit} such workers: {has}; lower one of the two{lower}"


def _has(node: Mapping[str, float]) -> str:
    """What a node has, in words."""
    kinds = gpu_types(node)
    type_of = f" of type {', '.join(kinds)}" if kinds else ""
    return f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs{type_of}"


def wanted_type(compute: ComputeConfig, device: str) -> str | None:
    """The type of GPU that tasks are to have; None for any, and on CPUs."""
    return compute.gpu_type if device == "cuda" else None


def gpu_types(resources: Mapping[str, float]) -> list[str]:
    """The types of a node's GPUs, as Ray names them among its resources."""
    return sorted(name.removeprefix(_TYPE) for name in resources if name.startswith(_TYPE))


def of_type(kind: str | None) -> dict[str, Any]:
    """Options of a Ray task, that it is to have a GPU of this type."""
    return {} if kind is None else {"accelerator_type": kind}


def fitting(threads: int, gpus: float, avoided: Collection[str] = (), kind: str | None = None) -> int:
    """How many tasks of so many CPUs and GPUs the nodes there are now can hold at a time.

    gpus: several tasks share a GPU below 1, but no task lies across two. avoided: nodes that do not count. kind: of their GPUs.
    """
    return sum(fitting_on(node, threads, gpus, kind) for node in _nodes(avoided))


def fitting_on(node: Mapping[str, float], threads: float, gpus: float, kind: str | None = None) -> int:
    """How many tasks of so many CPUs, and GPUs of a type, fit on a node with these resources."""
    if kind is not None and kind not in gpu_types(node):
        return 0
    by_cpu = int(node.get("CPU", 0) / threads)
    by_gpu = int(node.get("GPU", 0) / gpus) if gpus >= 1 else by_cpu
    if 0 < gpus < 1:
        whole = int(node.get("GPU", 0))  # of a GPU that is shared already, what is left counts by itself
        by_gpu = whole * int(1 / gpus + _ALMOST) + int((node.get("GPU", 0) - whole) / gpus + _ALMOST)
    return min(by_cpu, by_gpu)


def _nodes(avoided: Collection[str] = ()) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in avoided]
