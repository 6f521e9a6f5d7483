"""Which executor a configuration gets."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.executors.base import Executor
from ensemble.executors.inline import InlineExecutor
from ensemble.outside import launcher_variables
from ensemble.outside.foreign_variables import settle_variables
from ensemble.outside.processors import cpus_here
from ensemble.training import Job, device_kind
from ensemble.training.gpu_cards import Card, local_card
from ensemble.training.job import Ways
from ensemble.types import Task

# Work from which several slots make up for their start, by device. On a CPU, in training images of any network: processes are there
# in about two seconds (docs/log.md). On a GPU, in training images of LeNet-5: some 30 s of one GPU (estimated, to be measured), for there
# a local Ray, torch and CUDA have to start.
SLOTS_PAY_FROM = {"cpu": 50_000, "cuda": 100_000_000}
# Training images from which a cluster is asked that only RAY_ADDRESS names: connecting and the start of its workers take about ten seconds.
CLUSTER_PAYS_FROM = 500_000


def uses_cluster(compute: ComputeConfig) -> bool:
    """True where tasks go to a Ray cluster that is named, by compute.ray_address or RAY_ADDRESS."""
    settle_variables()
    named = compute.ray_address is not None or launcher_variables.ray_address() is not None
    suits = compute.executor in ("auto", "ray") and compute.parallel != "data" and launcher_variables.world_size() == 1
    return named and suits and importlib.util.find_spec("ray") is not None


def stays_here(compute: ComputeConfig, work: float) -> bool:
    """True where a run that leaves its place open is so small that no cluster is asked, though RAY_ADDRESS names one.

    work: training images in all (`planning.training_work` on a CPU). A compute.ray_address is meant for the run, and is used.
    """
    open_place = compute.executor == "auto" and compute.ray_address is None and compute.device != "cuda"
    return open_place and work < CLUSTER_PAYS_FROM and uses_cluster(compute)


@contextmanager
def connected(compute: ComputeConfig) -> Iterator[None]:
    """Inside, the connection to a cluster that is named is held, so that asking it several things needs one only.

    Raises ComputeError when it cannot be reached.
    """
    if not uses_cluster(compute):
        yield
        return
    from ensemble.executors.ray_cluster import connection

    with connection(compute.ray_address):
        yield


def planned_device(compute: ComputeConfig) -> str:
    """ "cpu" or "cuda": what the tasks of a new run train on.

    On a cluster its nodes decide, not the machine of the driver, which is often a head without a GPU. Raises
    ComputeError when a GPU is asked for and none can be had, and when the cluster cannot be reached.
    """
    if compute.device == "cpu" or not uses_cluster(compute):
        return device_kind(compute)
    if compute.device == "cuda":
        return "cuda"  # its nodes may still be on their way: the executor waits for them
    from ensemble.executors.ray_cluster import gpus_of_cluster

    with connected(compute):
        return "cuda" if gpus_of_cluster() > 0 else "cpu"


def planned_card(compute: ComputeConfig, device: str) -> Card | None:
    """The GPU that the tasks of a new run train on; None on CPUs.

    On a cluster the one with the least memory that they may get, and None where its nodes do not say which they have.
    """
    if device == "cpu":
        return None
    if not uses_cluster(compute):
        return local_card()
    from ensemble.executors.ray_cards import smallest_card

    with connected(compute):
        return smallest_card(compute)


def expected_slots(compute: ComputeConfig, device: str, work: float) -> int:
    """How many tasks can be under way at a time where a run begins: what its plan should reckon with.

    work: see `build_executor`. Connects for a moment to the cluster that is named, if one is. Raises ComputeError when
    that cannot be reached.
    """
    if compute.executor == "inline" or compute.parallel == "data":
        return 1
    launched = launcher_variables.world_size()
    if launched > 1 or compute.executor == "accelerate":
        return launched
    on_cluster = uses_cluster(compute)
    pays = on_cluster or compute.executor in ("ray", "processes") or work >= SLOTS_PAY_FROM[device]
    by_ray = on_cluster or compute.executor == "ray" or (compute.executor == "auto" and device == "cuda")
    if not pays or (by_ray and importlib.util.find_spec("ray") is None):
        return 1
    if not by_ray:
        return _processes(compute)
    if compute.slots is not None:
        return compute.slots
    if on_cluster:
        from ensemble.executors.ray_cluster import slots_of_cluster

        with connected(compute):
            return max(1, slots_of_cluster(compute, device))
    return max(1, _local_slots(compute, device))


def measure_ways(
    compute: ComputeConfig,
    jobs: Mapping[str, Job],
    image_shape: tuple[int, int, int],
    counts: Mapping[str, int],
    run: str = "",
) -> dict[str, Ways]:
    """The quickest kernels for the stacks of each group, measured where tasks will train.

    jobs, counts: how to train each group, and its stack size. image_shape: [C, H, W]. run: the name of whose tasks these are. On a cluster that is a node
    which holds a task, elsewhere this process. Raises ComputeError where none of the kind can be had.
    """
    if uses_cluster(compute):
        from ensemble.executors.ray_measuring import ways_on_cluster

        with connected(compute):
            return ways_on_cluster(compute, jobs, image_shape, counts, run)
    from ensemble.training.ways import find_ways  # imports torch, which the driver of a CPU run can do without

    return {name: find_ways(job, image_shape, counts[name]) for name, job in jobs.items()}


def _processes(compute: ComputeConfig) -> int:
    """How many processes train on this machine: no more than there are processors for, whatever compute.slots says."""
    fit = max(1, _local_slots(compute, "cpu"))
    return min(fit, compute.slots or fit)


def _local_slots(compute: ComputeConfig, device: str) -> int:
    if device == "cpu":
        return cpus_here() // compute.threads_per_task
    import torch  # a run on GPUs has imported it already, to see whether there are any

    return int(torch.cuda.device_count() / compute.gpus_per_task)


def build_executor(compute: ComputeConfig, device: str, tasks: Sequence[Task], work: float, run: str = "") -> Executor:
    """The executor asked for; `auto` takes a cluster that is named, and on this machine, where several slots and enough work make it pay,
    processes for CPUs and Ray for GPUs.

    work: training images seen in all, over members and epochs, see `planning.training_work`. run: the name by which a
    cluster shows whose tasks these are.
    Raises ComputeError when Ray is asked for and not installed, or cannot place a task, or processes are asked for and a GPU is.
    """
    if compute.executor == "accelerate" or compute.parallel == "data":
        what = "compute.parallel: data" if compute.parallel == "data" else "compute.executor: accelerate"
        raise ComputeError(
            f"{what} needs processes that a launcher started; use: accelerate launch --config_file configs/accelerate/cpu_2.yaml -m ensemble.launch.accelerate_run CONFIG"
        )
    installed = importlib.util.find_spec("ray") is not None
    choice: str = compute.executor
    spread = device == "cuda" and compute.gpus_per_task > 1
    if spread and choice == "inline":
        raise ComputeError(
            f"compute.gpus_per_task is {compute.gpus_per_task:g}, but the inline executor is one process on one GPU; use compute.executor=ray, or: accelerate launch --multi_gpu -m ensemble.launch.accelerate_run CONFIG compute.parallel=data"
        )
    if spread:
        choice = "ray"
    if choice == "auto":
        choice = _of_open_place(compute, device, len(tasks), work, installed)
    if choice == "inline":
        return InlineExecutor()
    if choice == "processes":
        if device == "cuda":
            raise ComputeError(
                "compute.executor is processes, which train on CPUs, but the device is a GPU; use compute.executor=ray, which gives each task its own, or compute.device=cpu"
            )
        from ensemble.executors.processes import ProcessExecutor

        return ProcessExecutor(compute, _processes(compute), len(tasks), run)
    if not installed:
        raise ComputeError(
            "compute.executor is ray, but the package ray is not installed; pip install 'ray[default]', or use compute.executor=inline"
        )
    if spread:
        from ensemble.executors.ray_groups import RayGroupExecutor

        return RayGroupExecutor(compute, device, run=run)
    from ensemble.executors.ray_tasks import RayExecutor

    return RayExecutor(compute, device, run)


def _of_open_place(compute: ComputeConfig, device: str, tasks: int, work: float, ray: bool) -> str:
    """The executor of a run that leaves it open. ray: whether that is installed."""
    local = _local_slots(compute, device)
    if ray and uses_cluster(compute) and not (local > 0 and stays_here(compute, work)):
        return "ray"
    if uses_cluster(compute) or min(local, compute.slots or local, tasks) < 2 or work < SLOTS_PAY_FROM[device]:
        return "inline"
    if device == "cuda":
        return "ray" if ray else "inline"
    return "processes"
