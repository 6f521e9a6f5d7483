"""Ray on pretended GPUs: does every task compute on the GPU that it was given, also after a worker died?

    python tests/gpu/run.py --gpus 2 python tests/gpu/train_by_ray.py GPUS SHARE TASKS CRASHED

GPUS: of the one node. SHARE: of a GPU that a task reserves. TASKS: how many, in two halves; one of the first half ends its
process. CRASHED: a file that says so, not there at first. Prints one line of JSON: where the tasks computed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from pretended_gpu import HERE, ROOT
from ray.cluster_utils import Cluster
from recipes import Recipe
from small_training import arrays, experiment, task

from ensemble.executors.ray_tasks import RayExecutor
from ensemble.training import Trainer
from ensemble.types import Failure, MemberSpec, Task

NET = Recipe(model={"name": "mlp", "widths": (16,)}, count=1, training={"epochs": 1}, compute={"executor": "ray"})


class Watched:
    """A trainer that reports on which GPU of the machine it worked, and that crashes once."""

    def __init__(self, trainer: Trainer, crashed: str, crash_at: str) -> None:
        self.trainer, self.crashed, self.crash_at = trainer, crashed, crash_at

    def __call__(self, given: Task, data: Any) -> Iterator[Any]:
        from gpu_log import physical, recorded  # in the worker: the driver may be started without
        from torch.cuda import get_per_process_memory_fraction

        if given.id == self.crash_at and not Path(self.crashed).exists():
            Path(self.crashed).touch()
            os._exit(1)
        with recorded() as records:
            list(self.trainer(given, data))
        # Long and short tasks, so that GPUs become free in another order than they were given out.
        time.sleep(0.1 + 0.2 * (given.members[0].index * 7 % 5))
        worked = sorted({physical(record.device) for record in records if record.kind == "kernel"})
        mine = sorted({int(float(identifier)) for identifier in ray.get_gpu_ids()})
        facts = {"given": mine, "worked": worked, "pid": os.getpid(), "memory": get_per_process_memory_fraction()}
        yield Failure(given.members[0].index, "error", json.dumps(facts))


def main() -> None:
    gpus, share, count, crashed = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE)])
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": max(4, int(gpus / share)), "num_gpus": gpus, "include_dashboard": False},
    )
    config = experiment(NET, ray_address=cluster.address, gpus_per_task=share)
    executor = RayExecutor(config.compute, "cuda")
    watched = Watched(Trainer.create(config, "cuda", 10), crashed, f"t{count // 4}")
    like, data = task(config), arrays()
    tasks = [
        Task(
            f"t{k}",
            like.recipe,
            (MemberSpec(k, like.recipe, like.members[0].rows, vote_rows=like.members[0].vote_rows),),
        )
        for k in range(count)
    ]
    found: list[dict[str, Any]] = []
    for half in (tasks[: count // 2], tasks[count // 2 :]):
        for outcome in executor.run(half, watched, data, lambda _event: None):
            for failure in outcome.failures:
                facts = {"kind": failure.kind} if failure.kind != "error" else json.loads(failure.reason)
                found.append({"task": outcome.task.id, **facts})
    executor.close()
    print("found: " + json.dumps({"slots": executor.slots, "tasks": found}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
