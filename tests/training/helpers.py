"""Small real data for training tests: the digits of scikit-learn, cut down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ensemble.config import Experiment, parse_experiment
from ensemble.training import Trainer
from ensemble.types import Failure, MemberResult, MemberSpec, Task


@pytest.fixture(scope="session")
def arrays() -> dict[str, Any]:
    from ensemble.config.schema import DataConfig
    from ensemble.data import load_dataset

    digits = load_dataset(DataConfig(name="digits"))
    rows = np.arange(300)
    unit = digits.train_images_NCHW[:260] / 255.0
    return {
        "train_images": digits.train_images_NCHW[rows],
        "train_labels": digits.train_labels_N[rows],
        "validation_rows": np.arange(260, 300),
        "test_images": digits.test_images_NCHW[:50],
        "mean": np.float32(unit.mean((0, 2, 3))),
        "std": np.float32(unit.std((0, 2, 3))),
    }


def cut(arrays: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """The same with the middle [height, width] of every image."""
    top, left = (28 - height) // 2, (28 - width) // 2
    cut_out = {
        name: np.ascontiguousarray(arrays[name][:, :, top : top + height, left : left + width])
        for name in ("train_images", "test_images")
    }
    return {**arrays, **cut_out}


def experiment(
    model: dict[str, Any] | None = None, kernels: str = "auto", device: str = "cpu", **training: Any
) -> Experiment:
    """A deep ensemble on digits with small defaults."""
    return parse_experiment({
        "name": "test", "num_members": 4, "method": {"name": "deep_ensemble"}, "model": model or {"name": "lenet5"},
        "training": {"epochs": 2, "batch_size": 32, **training}, "compute": {"device": device, "kernels": kernels},
    })  # fmt: skip


def specs(indices: list[int], rows: int = 260, recipe: str = "lenet5") -> tuple[MemberSpec, ...]:
    """Members on their own bootstrap samples, whatever else is in the stack."""
    return tuple(
        MemberSpec(i, recipe, np.sort(np.random.default_rng(i).integers(0, 260, rows)), vote_rows=np.arange(i, 20 + i))
        for i in indices
    )


def train(config: Experiment, members: tuple[MemberSpec, ...], arrays: dict[str, Any]) -> list[Any]:
    """Everything one task yields."""
    recipe = config.groups[0].name
    members = tuple(MemberSpec(m.index, recipe, m.rows, m.weights, m.vote_rows) for m in members)
    return list(Trainer.create(config, config.compute.device, 10)(Task("task", recipe, members), arrays))


def results(items: list[Any]) -> dict[int, MemberResult]:
    return {item.index: item for item in items if isinstance(item, MemberResult)}


def failures(items: list[Any]) -> dict[int, Failure]:
    return {item.index: item for item in items if isinstance(item, Failure)}
