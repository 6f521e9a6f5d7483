"""Ray Train groups on CPUs: two workers train each task together, and what they train is what one trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from ensemble.config import parse_experiment
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError, ConfigError
from ensemble.executors import build_executor
from ensemble.executors.inline import InlineExecutor
from ensemble.executors.ray_groups import RayGroupExecutor
from ensemble.run import RunOutcome, run_ensemble
from ensemble.storage import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
CONFIG: dict[str, Any] = {
    "name": "group", "seed": 3, "num_members": 2, "method": {"name": "bagging"}, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": (32,)}, "training": {"epochs": 2},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    yield
    ray.shutdown()


def train(root: Path, executor: Any, gpus: float) -> RunOutcome:
    compute = {"device": "cpu", "gpus_per_task": gpus}
    experiment = parse_experiment({**CONFIG, "output_dir": str(root), "compute": compute})
    return run_ensemble(experiment, lambda *_: executor, lambda _: [])


@pytest.mark.usefixtures("cluster")
def test_two_workers_train_what_one_trains(tmp_path: Path) -> None:
    """Within the tolerance of sums taken in another order."""
    together = RayGroupExecutor(ComputeConfig(executor="ray", gpus_per_task=2), "cpu")
    assert together.slots == 1
    found = RunFolder.read(train(tmp_path / "group", together, 2).path)
    expected = RunFolder.read(train(tmp_path / "alone", InlineExecutor(), 1).path)
    for index in (0, 1):
        one, other = found.load_member(index), expected.load_member(index)
        np.testing.assert_allclose(one.votes.test_NK, other.votes.test_NK, atol=1e-4)
        for name, array in other.weights.items():
            np.testing.assert_allclose(one.weights[name], array, atol=1e-5)
        assert [record.epoch for record in one.history] == [1, 2]


@pytest.mark.usefixtures("cluster")
def test_a_group_that_never_fits_fails_at_once() -> None:
    with pytest.raises(
        ComputeError, match=r"no room for one task of 4 workers with 1 CPU each; the cluster has 3 CPUs"
    ):
        RayGroupExecutor(ComputeConfig(executor="ray", gpus_per_task=4), "cpu")
    with pytest.raises(ComputeError, match=r"the cluster has 0 GPUs; lower compute\.gpus_per_task"):
        RayGroupExecutor(ComputeConfig(executor="ray", gpus_per_task=2), "cuda")


def test_what_needs_a_group_and_cannot_have_one_says_so() -> None:
    with pytest.raises(ComputeError, match=r"use compute\.executor=ray, or: accelerate launch --multi_gpu"):
        build_executor(ComputeConfig(executor="inline", gpus_per_task=2), "cuda", [], 0)
    with pytest.raises(ConfigError, match=r"expected a share of one GPU or a whole number"):
        parse_experiment({**CONFIG, "compute": {"gpus_per_task": 1.5}})
