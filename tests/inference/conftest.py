"""One small run of mixed members on the digits, trained once for all tests of this room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ensemble.config import parse_experiment
from ensemble.executors import InlineExecutor
from ensemble.run.run import run_ensemble


def train(folder: Path, **values: Any) -> Path:
    """A quick run; returns its folder."""
    experiment = parse_experiment({
        "name": "small", "output_dir": str(folder), "method": {"name": "bagging"},
        "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}}, **values,
    })  # fmt: skip
    return run_ensemble(experiment, lambda _d, _t, _i: InlineExecutor(), _nobody).path


def _nobody(_folder: Any) -> Sequence[Any]:
    return ()


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stacked LeNet-5 of which two share a stack, and a network with batch norm and dropout, one epoch each."""
    return train(
        tmp_path_factory.mktemp("runs"),
        aggregator="weighted",
        training={"epochs": 1, "batch_size": 32, "lr": 3e-3},
        members=(
            {"count": 3, "model": {"name": "lenet5"}},
            {"count": 1, "model": {"name": "cnn", "widths": (4, 4), "batch_norm": True, "dropout": 0.2}},
        ),
        compute={"executor": "inline", "device": "cpu", "stack_size": 2},
    )
