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
from ensemble.events import Event, Notice
from ensemble.executors import build_executor
from ensemble.executors.inline import InlineExecutor
from ensemble.executors.ray_groups import RayGroupExecutor
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.storage import RunFolder
from ensemble.types import Failure, MemberResult, Task
from tests.contracts.executor_contract import arrays_read_only, tasks

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
# Workers unpickle the task functions of this suite by module name.
ROOT = str(Path(__file__).parents[2])
CONFIG: dict[str, Any] = {
    "name": "group", "seed": 3, "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": (32,)}, "training": {"epochs": 2},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        _node_ip_address="127.0.0.1", runtime_env={"env_vars": {"PYTHONPATH": ROOT}},
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
        ComputeError,
        match=r"no room for one task of 4 workers with 1 CPUs and 0 GPUs each .*hold 3 such workers: 3 CPUs and 0 GPUs",
    ):
        RayGroupExecutor(ComputeConfig(executor="ray", gpus_per_task=4), "cpu")
    with pytest.raises(ComputeError, match=r"2 workers with 1 CPUs and 1 GPUs each .*the nodes hold 0 such workers"):
        RayGroupExecutor(ComputeConfig(executor="ray", gpus_per_task=2), "cuda")


@pytest.mark.usefixtures("cluster")
def test_a_full_gpu_behind_another_error_is_recognised_in_a_group() -> None:
    made = RayGroupExecutor(ComputeConfig(executor="ray", gpus_per_task=2), "cpu")
    (outcome,) = made.run(tasks(2), too_large, arrays_read_only(), lambda _: None)
    assert [(f.kind, f.reason) for f in outcome.failures] == [("out_of_memory", "ValueError: the step failed")] * 2
    assert "CUDA out of memory" in outcome.failures[0].details


def too_large(task: Task, given: Any) -> Iterator[Event | MemberResult | Failure]:
    """Fails on one worker only; the other waits for it in the barrier behind its last item."""
    import torch.distributed as dist

    yield Notice(task.id)
    if dist.get_rank() == 1:
        try:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.50 GiB")
        except RuntimeError as error:
            raise ValueError("the step failed") from error


def test_what_needs_a_group_and_cannot_have_one_says_so() -> None:
    with pytest.raises(ComputeError, match=r"use compute\.executor=ray, or: accelerate launch --multi_gpu"):
        build_executor(ComputeConfig(executor="inline", gpus_per_task=2), "cuda", [], 0)
    with pytest.raises(ConfigError, match=r"expected a share of one GPU or a whole number"):
        parse_experiment({**CONFIG, "compute": {"gpus_per_task": 1.5}})
