"""Steps by a recording: on the CPU with a stand-in for the CUDA graph, on a GPU with the graph itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest_training import arrays as arrays
from conftest_training import experiment, results, specs

from ensemble.config import Experiment
from ensemble.config.schema import ComputeConfig
from ensemble.events import Notice
from ensemble.training import Trainer
from ensemble.training.loop import StackRun
from ensemble.training.placement import Placement
from ensemble.training.recorded import RecordedStep, Step, obstacle
from ensemble.types import EpochRecord, Task

CONFIGS: dict[str, dict[str, Any]] = {
    "adam, one cycle": {"schedule": {"name": "one_cycle"}, "lr": 3e-3},
    "sgd with momentum, clipped": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "gradient_clip_norm": 0.1},
    "adamw, deformed": {"optimizer": "adamw", "weight_decay": 0.1, "augmentation": {"rotation_degrees": 10}},
    "batches of uneven size": {"batch_size": 100, "epochs": 4},
}
BATCH_NORM: dict[str, Any] = {"name": "cnn", "widths": (6, 8), "batch_norm": True}


def replayed(step: Step) -> Step:
    """What a CUDA graph is to the loop: made without taking a step, and every call takes one on the same addresses."""
    return step


def _fail(_step: Step) -> Step:
    raise RuntimeError("operation not permitted\nand a long story")


def run_of(config: Experiment, arrays: dict[str, Any], record: Callable[[Step], Step] | None) -> StackRun:
    recipe = config.groups[0].name
    job = Trainer.create(config, "cpu", 10).jobs[recipe]
    run = StackRun(Task("task", recipe, specs([0, 1], recipe=recipe)), job, arrays, Placement.create(job.compute))
    if record is not None:
        rows = min(run.recipe.batch_size, run.batches.rows_per_epoch)
        run.recorded = RecordedStep(run.plain_step, run.tensors, rows, record)
    return run


def trained(run: StackRun) -> tuple[list[Any], list[Notice]]:
    """All tensors and the losses of a run's epochs; notices on the way."""
    found = [item for epoch in range(run.recipe.epochs) for item in run.train_epoch(epoch)]
    records = [replace(item[1], seconds=0.0) for item in found if isinstance(item, tuple)]
    assert all(isinstance(record, EpochRecord) for record in records)
    tensors = [tensor.clone() for tensor in run.tensors()]
    return [tensors, records], [item for item in found if isinstance(item, Notice)]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(map(torch.equal, one[0], other[0])) and one[1] == other[1]


@pytest.mark.parametrize("training", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("model", [None, BATCH_NORM], ids=["lenet5", "batch norm"])
def test_repeated_steps_are_the_plain_ones(
    training: dict[str, Any], model: dict[str, Any] | None, arrays: dict[str, Any]
) -> None:
    """To the last bit: inputs, rates and sums reach the recording; it is used for all whole batches but the first few."""
    config, used = experiment(model, **training), [0]

    def counting(step: Step) -> Step:
        def call() -> None:
            used[0] += 1
            step()

        return call

    run = run_of(config, arrays, counting)
    recorded, notices = trained(run)
    plain, _ = trained(run_of(config, arrays, None))
    assert same(recorded, plain)
    assert not notices
    whole = 260 // run.recipe.batch_size  # in an epoch, which ends with a smaller batch
    assert used[0] == run.recipe.epochs * whole - min(3, whole)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (lambda _step: lambda: None, "strays from a plain one by 100.0%"),
        (lambda step: lambda: (step(), step()), "strays from a plain one"),
        (_fail, "cannot be recorded (operation not permitted)"),
    ],
    ids=["does nothing", "twice as far", "fails"],
)  # fmt: skip
def test_a_wrong_recording_is_found_and_training_goes_on_without(
    record: Any, told: str, arrays: dict[str, Any]
) -> None:
    config = experiment()
    recorded, notices = trained(run_of(config, arrays, record))
    plain, _ = trained(run_of(config, arrays, None))
    assert same(recorded, plain)
    assert len(notices) == 1
    assert told in notices[0].message
    assert notices[0].message.startswith("trained without a CUDA graph: ")


def test_a_member_whose_loss_is_no_number_does_not_spoil_the_comparison(arrays: dict[str, Any]) -> None:
    run = run_of(experiment(optimizer="sgd", lr=0.05), arrays, replayed)
    for tensor in run.stack.member_tensors():
        tensor[1].fill_(float("nan"))
    assert not trained(run)[1]


@pytest.mark.parametrize(
    ("training", "model", "reason"),
    [
        ({}, None, None),
        ({"optimizer": "adagrad"}, None, "adagrad has no fused form; expected adam, adamw, sgd"),
        ({"schedule": {"name": "plateau"}}, None, "its schedule gives every member a rate of its own"),
        ({"ema_decay": 0.9}, None, "its averaged weights (ema_decay) count steps"),
        ({}, {"name": "cnn", "widths": (4,), "dropout": 0.5}, "dropout draws anew in every step"),
    ],
)  # fmt: skip
def test_what_cannot_be_recorded_is_named(
    training: dict[str, Any], model: Any, reason: str | None, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(experiment(model, **training), arrays, None)
    assert obstacle(run.recipe, run.stack, run.placement) == "its device is no GPU"
    monkeypatch.setattr(Placement, "device", torch.device("cuda"))
    assert obstacle(run.recipe, run.stack, run.placement) == reason


def test_on_a_cpu_the_wish_is_answered_in_words(arrays: dict[str, Any]) -> None:
    config = experiment(epochs=1)
    config = config.model_copy(update={"compute": ComputeConfig(device="cpu", cuda_graph=True)})
    items = list(Trainer.create(config, "cpu", 10)(Task("task", "lenet5", specs([0])), arrays))
    assert [item.message for item in items if isinstance(item, Notice)] == [
        "trained without a CUDA graph: its device is no GPU"
    ]
    assert results(items)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("training", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_on_a_gpu_a_graph_trains_the_same_networks(
    training: dict[str, Any], precision: str, arrays: dict[str, Any]
) -> None:
    found = []
    for graph in (False, True):
        compute = ComputeConfig(device="cuda", precision=precision, cuda_graph=graph)  # type: ignore[arg-type]
        config = experiment(BATCH_NORM, device="cuda", **training).model_copy(update={"compute": compute})
        items = list(Trainer.create(config, "cuda", 10)(Task("task", "cnn", specs([0, 1], recipe="cnn")), arrays))
        assert not [item for item in items if isinstance(item, Notice)]
        found.append(results(items))
    for member in (0, 1):
        for name, weights in found[0][member].weights.items():
            assert abs(weights - found[1][member].weights[name]).max() < (1e-3 if precision == "float32" else 3e-2)
