"""The worker's side of the Ray executors: take the GPU that Ray gave, train, and say how a task failed.

Worker processes are kept for the next task, since importing torch and starting CUDA take longer than a small task. But
CUDA numbers a process's GPUs once, when it starts: were CUDA_VISIBLE_DEVICES set anew for each task, as Ray does, a kept
process would stay on its first GPU. So these workers see all GPUs of their node (`kept_process`), and each task makes the
one that Ray assigned to it the current device.

A MIG instance cannot be chosen that way: CUDA shows a process the first one only. There each task gets a process of its
own (`single_process`).
"""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from ensemble.errors import EnsembleError
from ensemble.executors.base import Item, Train
from ensemble.executors.diagnosis import GpuUnusableError, breaks_process, explain, failure_kind, finds_no_gpu
from ensemble.executors.ray_stop import stops_by
from ensemble.types import FailureKind, Task

_LEFT_ALONE = ("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES")
_DELIVERY_S = 1.0  # for the last item of a process that ends itself to reach the driver


@dataclass(frozen=True, slots=True)
class Broke:
    """The last item of a task that an exception ended, told apart where the exception still has its causes.

    node: Ray's identifier of the worker's node.
    """

    kind: FailureKind
    reason: str
    details: str
    node: str


@dataclass(frozen=True, slots=True)
class NeedsOwnProcess:
    """The only item of a task that a kept process cannot train: its GPU is a MIG instance."""


def kept_process() -> dict[str, Any]:
    """Options of a Ray task that computes on a GPU in a process that is kept for the next one."""
    return {"max_calls": 0, "runtime_env": {"env_vars": dict.fromkeys(_LEFT_ALONE, "1")}}


def single_process() -> dict[str, Any]:
    """Options of a Ray task whose process ends with it, and which Ray shows its own GPU only."""
    return {"max_calls": 1}


def train_remotely(
    train: Train, task: Task, share: float, stop_key: str, names: Sequence[str], *arrays: Any
) -> Iterator[Item | Broke | NeedsOwnProcess]:
    """Train a task on the GPU that Ray gave, if it gave one.

    share: of the GPU's memory, the most that the task may take. stop_key: see `ray_stop`. A process that can no longer use its GPU ends here, so
    that the next task gets a new one. Raises EnsembleError as `train` does.
    """
    if _on_mig() and _keeps_process():
        yield NeedsOwnProcess()
        return
    broke, ends = None, False
    try:
        take_gpu(share)
        with stops_by(stop_key):
            yield from train(task, dict(zip(names, arrays, strict=True)))
    except Exception as error:
        gave_gpu = bool(ray.get_gpu_ids())
        if isinstance(error, EnsembleError) and not (gave_gpu and finds_no_gpu(error)):
            raise
        broke = describe(error, gave_gpu)
        ends = broke.kind == "lost_node" or breaks_process(error)
    if broke is not None:
        yield broke
    if ends:
        time.sleep(_DELIVERY_S)
        os._exit(1)


def describe(error: Exception, gave_gpu: bool) -> Broke:
    """What ended a task, in a form that travels; an exception would lose its causes when it is pickled."""
    kind, reason = failure_kind(error, gave_gpu), explain(error)
    if kind == "lost_node":
        reason = f"{platform.node()} cannot use its GPU: {reason}"
    elif kind == "crash":
        reason = f"the process cannot use its GPU any more: {reason}"
    details = "".join(traceback.format_exception(error))
    return Broke(kind, reason, details, ray.get_runtime_context().get_node_id())


def take_gpu(share: float) -> None:
    """Make the GPU that Ray gave to this task the current device, with a limit to its memory.

    share: in (0, 1]; above 1, all of it. Raises GpuUnusableError where torch has no such GPU.
    """
    given = ray.get_gpu_ids()
    if not given:
        return
    import torch

    visible = [name for name in _visible().split(",") if name]
    place = visible.index(str(given[0])) if visible else int(given[0])
    count = torch.cuda.device_count()
    if place >= count:
        raise GpuUnusableError(f"Ray gave GPU {given[0]}, but torch sees {count} GPUs ({_visible() or 'all'} visible)")
    torch.cuda.set_device(place)
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), place)


def _visible() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES") or os.environ.get("HIP_VISIBLE_DEVICES") or ""


def _on_mig() -> bool:
    return "MIG-" in _visible() and bool(ray.get_gpu_ids())


def _keeps_process() -> bool:
    return os.environ.get(_LEFT_ALONE[0]) == "1"
