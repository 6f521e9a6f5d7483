"""Which executor a configuration gets."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.executors.base import Executor
from ensemble.executors.inline import InlineExecutor
from ensemble.types import Task

# Starting a local Ray takes about ten seconds; with less work than this (images times epochs, over all members) the
# inline executor is done by then on one core, even with networks ten times the size of LeNet-5.
RAY_PAYS_FROM = 500_000


def expected_slots(compute: ComputeConfig, device: str, member_images: int) -> int:
    """How many tasks can be under way at a time where a run begins: what its plan should reckon with.

    member_images: see `build_executor`. Connects for a moment to the cluster that is named, if one is. Raises
    ComputeError when that cannot be reached.
    """
    if compute.executor == "inline" or compute.parallel == "data":
        return 1
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1 or compute.executor == "accelerate":
        return launched
    on_cluster = compute.ray_address is not None or "RAY_ADDRESS" in os.environ
    pays = on_cluster or compute.executor == "ray" or member_images >= RAY_PAYS_FROM
    if not pays or importlib.util.find_spec("ray") is None:
        return 1
    if compute.slots is not None:
        return compute.slots
    if on_cluster:
        from ensemble.executors.ray_tasks import slots_of_cluster

        return max(1, slots_of_cluster(compute, device))
    return max(1, _local_slots(compute, device))


def _local_slots(compute: ComputeConfig, device: str) -> int:
    if device == "cpu":
        return (os.cpu_count() or 1) // compute.threads_per_task
    import torch  # a run on GPUs has imported it already, to see whether there are any

    return int(torch.cuda.device_count() / compute.gpus_per_task)


def build_executor(compute: ComputeConfig, device: str, tasks: Sequence[Task], member_images: int) -> Executor:
    """The executor asked for; `auto` takes Ray where several slots and enough work make it pay.

    member_images: training images seen in all, over members and epochs.
    Raises ComputeError when Ray is asked for and not installed, or cannot place a task.
    """
    if compute.executor == "accelerate" or compute.parallel == "data":
        what = "compute.parallel: data" if compute.parallel == "data" else "compute.executor: accelerate"
        raise ComputeError(
            f"{what} needs processes that a launcher started; use: accelerate launch --config_file configs/accelerate/cpu_2.yaml -m launch.accelerate_run CONFIG"
        )
    installed = importlib.util.find_spec("ray") is not None
    choice = compute.executor
    spread = device == "cuda" and compute.gpus_per_task > 1
    if spread and choice == "inline":
        raise ComputeError(
            f"compute.gpus_per_task is {compute.gpus_per_task:g}, but the inline executor is one process on one GPU; use compute.executor=ray, or: accelerate launch --multi_gpu -m launch.accelerate_run CONFIG compute.parallel=data"
        )
    if spread:
        choice = "ray"
    if choice == "auto":
        local = _local_slots(compute, device)
        slots = min(local, compute.slots or local, len(tasks))
        pays = compute.ray_address is not None or (slots > 1 and member_images >= RAY_PAYS_FROM)
        choice = "ray" if installed and pays else "inline"
    if choice == "inline":
        return InlineExecutor()
    if not installed:
        raise ComputeError(
            "compute.executor is ray, but the package ray is not installed; pip install 'ray[default]', or use compute.executor=inline"
        )
    if spread:
        from ensemble.executors.ray_groups import RayGroupExecutor

        return RayGroupExecutor(compute, device)
    from ensemble.executors.ray_tasks import RayExecutor

    return RayExecutor(compute, device)
