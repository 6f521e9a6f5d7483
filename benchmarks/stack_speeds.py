"""The table behind the planner: member-images per second of one slot, by network, batch size and stack size.

    ENSEMBLE_DATA=FOLDER OMP_NUM_THREADS=1 python -m benchmarks.stack_speeds [--device cuda] [--seconds 14]
        [--models lenet,mlp,narrow,wide] [--batches 16,64,256] [--stacks 1,2,3,4,6,8,12,16,32]

Steps of the real loop on MNIST (gathering, forward, backward, optimiser); the stack sizes of a cell take turns, and the
median step counts. What it prints goes into `_CPU_SPEED` in ensemble/run/planning.py by hand.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.mnist import load_mnist
from ensemble.config import parse_experiment
from ensemble.training import Trainer
from ensemble.training.placement import Placement
from ensemble.training.stack_run import StackRun
from ensemble.types import MemberSpec, Task

_NARROW = ({"kind": "conv", "channels": 10, "activation": "relu"},)
MODELS: dict[str, dict[str, Any]] = {
    "lenet": {"name": "lenet5"},
    "mlp": {"name": "mlp"},
    "narrow": {  # a light one: the deeper such a network, the less it matters how many are together
        "name": "layers",
        "layers": (*((*_NARROW, {"kind": "max_pool"}) * 2), {"kind": "conv", "channels": "classes", "kernel_size": 5}),
    },
    "medium": {"name": "cnn"},
    "wide": {"name": "cnn", "widths": (256, 256)},
}


def stepper(model: dict[str, Any], count: int, batch_size: int, device: str) -> Callable[[], float]:
    """A function that does one step of a stack of `count` members and returns its seconds."""
    experiment = parse_experiment({
        "name": "speeds", "num_members": count, "method": {"name": "deep_ensemble"}, "model": model,
        "data": {"name": "mnist"}, "training": {"batch_size": batch_size},
        "compute": {"device": device, "threads_per_task": torch.get_num_threads(), "deterministic": False},
    })  # fmt: skip
    arrays, rows = load_mnist()
    recipe = experiment.groups[0].name
    task = Task("speeds", recipe, tuple(MemberSpec(index, recipe, rows) for index in range(count)))
    job = Trainer.create(experiment, device, 10).jobs[recipe]
    run = StackRun(task, job, arrays, Placement.create(job.compute))
    run.model.train()

    def batches() -> Any:
        while True:
            yield from run.batches.epoch(0)

    endless = batches()

    def step() -> float:
        started = time.perf_counter()
        run.plain_step(next(endless), 0.0)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return step


def measure(model: dict[str, Any], stacks: list[int], batch_size: int, device: str, seconds: float) -> dict[int, float]:
    """Thousands of member-images per second by stack size."""
    steps = {count: stepper(model, count, batch_size, device) for count in stacks}
    spent: dict[int, list[float]] = {count: [] for count in stacks}
    for step in steps.values():
        step(), step()
    end = time.monotonic() + seconds
    while time.monotonic() < end or min(map(len, spent.values())) < 5:
        for count, step in steps.items():
            spent[count] += [step() for _ in range(max(1, 8 // count))]
    return {count: count * batch_size / statistics.median(spent[count]) / 1000 for count in stacks}


def main() -> None:
    """Print a cell per line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seconds", type=float, default=14.0)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batches", default="16,64,256")
    parser.add_argument("--stacks", default="1,2,3,4,6,8,12,16,32")
    options = parser.parse_args()
    stacks = [int(count) for count in options.stacks.split(",")]
    for name in options.models.split(","):
        for batch_size in map(int, options.batches.split(",")):
            found = measure(MODELS[name], stacks, batch_size, options.device, options.seconds)
            rates = ", ".join(f"{count}: {rate:.3g}" for count, rate in found.items())
            print(f"{name} {batch_size}: {{{rates}}}", flush=True)


if __name__ == "__main__":
    main()
