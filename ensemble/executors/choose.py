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


def build_executor(
    compute: ComputeConfig, device: str, tasks: Sequence[Task], member_images: int, gpus: int = 0
) -> Executor:
    """The executor asked for; `auto` takes Ray where several slots and enough work make it pay.

    member_images: training images seen in all, over members and epochs. gpus: visible GPUs when device is "cuda".
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
        local = (
            (gpus / compute.gpus_per_task) if device == "cuda" else ((os.cpu_count() or 1) / compute.threads_per_task)
        )
        slots = min(int(local), compute.slots or int(local), len(tasks))
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
