"""Peak memory of training with few images to predict and with a whole test set, and what is left after the task.

Predicting should need no more room than training, or stacks are halved in their first validation though they would fit.
"""

from __future__ import annotations

import gc
from typing import Any

import torch

from benchmarks.gpu.bench import LENET5, Bench
from benchmarks.gpu.cases import Cases

_RESNET = {"name": "resnet18", "stem": "small"}


def run(bench: Bench, cases: Cases) -> None:
    """LeNet-5 in wide stacks, ResNet-18 in a narrow one."""
    networks: tuple[tuple[str, dict[str, Any], int, tuple[int, int, int]], ...] = (
        ("LeNet-5 K=64", LENET5, 64, (1, 28, 28)), ("LeNet-5 K=256", LENET5, 256, (1, 28, 28)),
        ("ResNet-18 K=4", _RESNET, 4, (3, 32, 32)),
    )  # fmt: skip
    for name, model, count, shape in networks[:1] if bench.small else networks:
        with cases.case(name) as values:
            values.update(_peaks(bench, bench.size(count, 2), model, shape))


def _peaks(bench: Bench, count: int, model: dict[str, Any], shape: tuple[int, int, int]) -> dict[str, Any]:
    few = bench.random_arrays(bench.size(1280, 256), shape)
    tests = bench.size(10_000, 256)
    many = {
        **few,
        "test_images": few["test_images"][:1].repeat(tests, 0),
        "test_labels": few["test_labels"][:1].repeat(tests),
    }
    found: dict[str, Any] = {"images": tests}
    for name, arrays in (("training_gib", few), ("with_prediction_gib", many)):
        trained = bench.train(count, model, {"epochs": 1}, arrays)
        found[name] = trained.peak_gib
        if bench.on_gpu:
            gc.collect()
            found[f"left_after_{name.removesuffix('_gib')}_gib"] = torch.cuda.memory_reserved() / 2**30
    if bench.on_gpu:
        found["ratio"] = found["with_prediction_gib"] / found["training_gib"]
    return found
