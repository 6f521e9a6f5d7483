"""What trainings do to the memory of a pretended device.

    python tests/gpu/run.py --mib 8192 python tests/gpu/measure_memory.py '[["tasks", true, "float32"], ["halving", true, "bf16"]]'

tasks      what is held after each of three tasks; Python's garbage collector does not run on its own
failure    what is held after a task that did not fit, while its error is looked at
halving    64 networks in one task on a device that cannot hold them: how many are trained in the end
prediction peak of a training with few images to predict, and with many
variants   compute.kernels=measured on a device in which not every way to compute a convolution fits
"""

from __future__ import annotations

import gc
import math
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from cases import answer
from gpu_log import faults, recorded, set_memory, used
from recipes import Recipe
from small_training import arrays, experiment, no_numbers, train

from ensemble.config import parse_experiment
from ensemble.executors import build_executor
from ensemble.run.run import run_ensemble
from ensemble.training import Trainer
from ensemble.training.job import Job
from ensemble.training.stack import Stack
from ensemble.training.ways import find_ways
from ensemble.types import Failure, MemberResult

MIB = 1 << 20
SMALL = 700 * MIB  # for 64 of the networks of `halving` too small, for 16 large enough
NETWORKS: dict[str, tuple[dict[str, Any], int, tuple[int, int]]] = {
    "lenet5": ({"name": "lenet5"}, 64, (1, 28)),
    "lenet5 rgb": ({"name": "lenet5"}, 64, (3, 32)),
    "cnn rgb": ({"name": "cnn", "widths": (32, 64)}, 16, (3, 32)),
    "resnet18": ({"name": "resnet18", "stem": "small"}, 4, (1, 28)),
}


def after_tasks(graph: bool, precision: str) -> dict[str, Any]:
    """Bytes held on the device before, and after each of three like tasks."""
    recipe = Recipe(count=64, training={"batch_size": 128, "epochs": 2})
    before, after = used(), []
    gc.disable()
    try:
        for _ in range(3):
            assert sum(isinstance(i, MemberResult) for i in train(recipe, cuda_graph=graph, precision=precision)) == 64
            after.append(used())
    finally:
        gc.enable()
    return {"before": before, "after": after}


def after_a_failure(graph: bool, precision: str) -> dict[str, Any]:
    """Bytes held after a task that found no room, while its error is still looked at, as executors do."""
    recipe = Recipe(model={"name": "cnn", "widths": (32, 64)}, count=64, training={"batch_size": 128, "epochs": 2})
    set_memory(SMALL)
    before = used()
    try:
        list(train(recipe, cuda_graph=graph, precision=precision))
    except torch.OutOfMemoryError:
        return {"before": before, "held": used()}
    finally:
        set_memory(_whole_device())
    raise AssertionError("everything fits: this says nothing; take a smaller device")


class _Nobody:
    """A tracker that listens to nothing."""

    def handle(self, event: object, now: float) -> None: ...
    def close(self, ok: bool) -> None: ...


def halving(graph: bool, precision: str) -> dict[str, Any]:
    """A whole run whose plan is too large for the device."""
    set_memory(SMALL)
    with tempfile.TemporaryDirectory() as folder:
        config = parse_experiment({
            "name": "halved", "output_dir": folder, "num_members": 64, "method": {"name": "deep_ensemble"},
            "model": {"name": "cnn", "widths": (32, 64)}, "training": {"epochs": 1, "batch_size": 128},
            "compute": {
                "device": "cuda", "executor": "inline", "stack_size": 64, "cuda_graph": graph, "precision": precision,
                "checkpoint_every_s": 0,
            },
            "tracking": {"wandb": {"mode": "disabled"}},
        })  # fmt: skip
        try:
            with recorded() as records, no_numbers():
                outcome = run_ensemble(
                    config, lambda *given: build_executor(config.compute, *given), lambda _folder: [_Nobody()]
                )
        finally:
            set_memory(_whole_device())
    return {
        "trained": outcome.trained,
        "failures": [failure.reason for failure in outcome.failures],
        "too_large": sum(fault.startswith("out of memory") for fault in faults(records)),
    }


def prediction(network: str) -> dict[str, Any]:
    """Peak of what tensors take, in bytes, with few images to predict and with 5000; and what those take themselves."""
    model, count, shape = NETWORKS[network]
    recipe = Recipe(model=model, count=count, shape=shape, training={"epochs": 1, "batch_size": 128})
    peaks = []
    for test in (50, 5000):
        given = arrays(shape, rows=300, test=test)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found = list(train(recipe, given, cuda_graph=False))
        assert not [item for item in found if isinstance(item, Failure)]
        peaks.append(torch.cuda.max_memory_allocated())
    images, votes = 5000 * math.prod((*shape, shape[1])), 4 * 5000 * count * 10
    # Votes exist as logits in parts, joined, and as probabilities.
    return {"training": peaks[0], "with_prediction": peaks[1], "data": images + 4 * votes}


def variants(network: str) -> dict[str, Any]:
    """Try all ways on a device that holds the usual one, and little more."""
    model, count, shape = NETWORKS[network]
    config = experiment(Recipe(model=model, count=count, shape=shape, training={"batch_size": 128}), kernels="measured")
    job: Job = Trainer.create(config, "cuda", 10).jobs[config.groups[0].name]
    image_shape = (shape[0], shape[1], shape[1])
    set_memory(int(_usual_peak(job, image_shape, count) * 1.2))
    try:
        with tempfile.TemporaryDirectory() as cache, recorded() as records:
            os.environ["ENSEMBLE_CACHE"] = cache
            ways = find_ways(job, image_shape, count)
    finally:
        set_memory(_whole_device())
    too_large = sum(fault.startswith("out of memory") for fault in faults(records))
    return {"ways": ways.convolutions, "too_large": too_large, "left": used()}


def _usual_peak(job: Job, image_shape: tuple[int, int, int], count: int) -> int:
    """Bytes reserved at most by forward and backward of the stack in the usual way."""
    torch.cuda.reset_peak_memory_stats()
    stack = Stack.build(job.group.model, image_shape, job.num_classes, [0] * count).to("cuda").train()
    images = torch.randn(count, job.group.training.batch_size, *image_shape, device="cuda")
    for _ in range(2):
        stack(images).float().sum().backward()
    peak = torch.cuda.max_memory_reserved()
    del stack, images
    clean_up()
    return int(peak)


def _whole_device() -> int:
    return int(torch.cuda.get_device_properties(0).total_memory)  # torch asked once, when the device had its first size


def clean_up() -> None:
    """What one case leaves is not the next one's."""
    gc.collect()
    torch.cuda.empty_cache()


WHAT: dict[str, Callable[..., dict[str, Any]]] = {
    "tasks": after_tasks, "failure": after_a_failure, "halving": halving, "prediction": prediction, "variants": variants,
}  # fmt: skip


def look_at(what: str, *given: Any) -> dict[str, Any]:
    """One measurement, on an empty device."""
    _whole_device()
    clean_up()
    return WHAT[what](*given)


if __name__ == "__main__":
    answer(look_at)
