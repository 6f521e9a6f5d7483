"""Ray tasks on two pretended devices, some of which end their process: prints where each task computed, a line each."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import torch

from ensemble.config.schema import ComputeConfig
from ensemble.events import Event, Notice
from ensemble.executors.ray_tasks import RayExecutor
from ensemble.training.placement import Placement
from ensemble.types import Failure, MemberResult, MemberSpec, Task


def where(task: Task, arrays: Any) -> Iterator[Event | MemberResult | Failure]:
    """Compute something where a training task would; every sixth task ends its process before it says so."""
    index = task.members[0].index
    compute = ComputeConfig(device="cuda")
    used = torch.zeros(1, device=Placement.create(compute, data_parallel=False).device).device.index
    if index % 6 == 4:
        os._exit(1)
    place = {
        "given": int(ray.get_gpu_ids()[0]),
        "used": ctypes.CDLL(None).pretended_physical(used),
        "process": os.getpid(),
        "share": torch.cuda.get_per_process_memory_fraction(used),
    }
    yield Notice(json.dumps(place))
    yield Failure(index, "error", "enough seen")


def main() -> None:
    share, count = float(sys.argv[1]), int(sys.argv[2])
    slots = int(2 / share)
    ray.init(
        address="local", num_cpus=slots, num_gpus=2, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR", _node_ip_address="127.0.0.1",
    )  # fmt: skip
    executor = RayExecutor(ComputeConfig(executor="ray", gpus_per_task=share), "cuda")
    assert executor.slots == slots
    tasks = [Task(f"t{index}", "r", (MemberSpec(index, "r", np.arange(2)),)) for index in range(count)]
    kinds: list[str] = []
    for outcome in executor.run(tasks, where, {}, lambda event: print(event.message, flush=True)):  # type: ignore[union-attr]
        kinds += [failure.kind for failure in outcome.failures]
    assert sorted(kinds) == sorted("crash" if index % 6 == 4 else "error" for index in range(count)), kinds
    ray.shutdown()


if __name__ == "__main__":
    main()
