"""Steps as CUDA graphs: on the CPU with a stand-in for the graph, on a GPU with the graph itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from ensemble.config import Experiment
from ensemble.config.schema import ComputeConfig
from ensemble.events import Notice
from ensemble.training import Trainer
from ensemble.training.cuda_graph import GraphedStep, Step, obstacle
from ensemble.training.placement import Placement
from ensemble.training.stack_run import StackRun
from ensemble.types import EpochRecord, Task
from tests.training.helpers import arrays as arrays
from tests.training.helpers import cut, experiment, results, specs

CONFIGS: dict[str, dict[str, Any]] = {
    "adam, one cycle": {"schedule": {"name": "one_cycle"}, "lr": 3e-3},
    "sgd with momentum, clipped": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "gradient_clip_norm": 0.1},
    "adamw, deformed": {
        "optimizer": "adamw", "weight_decay": 0.1,
        "augmentation": {"rotation_degrees": 10, "scale": 0.1, "elastic_alpha": 1.0, "brightness": 0.2, "contrast": 0.2},
    },
    "photographs": {"augmentation": {"shift": 0.1, "randaugment_operations": 2, "blur_probability": 0.5}},
    "averaged": {"ema_decay": 0.9, "keep": "best_validation"},
    "plateau": {"schedule": {"name": "plateau", "patience": 0, "threshold": 0.9, "gamma": 0.5}, "epochs": 4},
    "batches of uneven size": {"batch_size": 100, "epochs": 4},
    "less than a batch": {"batch_size": 300, "epochs": 6},
    "adamax": {"optimizer": "adamax"},
    "adadelta": {"optimizer": "adadelta"},
    "rmsprop": {"optimizer": "rmsprop"},
}  # fmt: skip
BATCH_NORM: dict[str, Any] = {"name": "cnn", "widths": (6, 8), "batch_norm": True}
DROPOUT: dict[str, Any] = {"name": "cnn", "widths": (6,), "dropout": 0.3, "fully_connected": (16,)}


def replayed(step: Step) -> Step:
    """What a CUDA graph is to the loop: made without taking a step, and every call takes one on the same addresses."""
    return step


def _fail(_step: Step) -> Step:
    raise RuntimeError("operation not permitted\nand a long story")


def run_of(config: Experiment, arrays: dict[str, Any], capture: Callable[[Step], Step] | None) -> StackRun:
    recipe = config.groups[0].name
    job = Trainer.create(config, "cpu", 10).jobs[recipe]
    run = StackRun(Task("task", recipe, specs([0, 1], recipe=recipe)), job, arrays, Placement.create(job.compute))
    if capture is not None:
        run.use_graph(GraphedStep(run.step_on_device, run.tensors, capture))
    return run


def trained(run: StackRun) -> tuple[list[Any], list[Notice]]:
    """All tensors and the losses of a run's epochs; notices on the way."""
    found = [item for epoch in range(run.recipe.epochs) for item in run.train_epoch(epoch)]
    records = [replace(item[1], seconds=0.0) for item in found if isinstance(item, tuple)]
    assert all(isinstance(record, EpochRecord) for record in records)
    tensors = [tensor.clone() for tensor in run.stack.state_dict().values()]
    return [tensors, records], [item for item in found if isinstance(item, Notice)]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(map(torch.equal, one[0], other[0])) and one[1] == other[1]


@pytest.mark.parametrize("training", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("model", [None, BATCH_NORM, DROPOUT], ids=["lenet5", "batch norm", "dropout"])
def test_steps_that_take_nothing_from_the_host_are_the_plain_ones(
    training: dict[str, Any], model: dict[str, Any] | None, arrays: dict[str, Any]
) -> None:
    """The table, the orders and the keys reach a step; a graph is used for all whole batches but the first few.

    Equal to the last bit, but where the learning rate (float64 on the host) is rounded to the table's float32.
    """
    config, used = experiment(model, **training), [0]

    def counting(step: Step) -> Step:
        def call() -> None:
            used[0] += 1
            step()

        return call

    run = run_of(config, arrays, counting)
    graphed, notices = trained(run)
    plain, _ = trained(run_of(config, arrays, None))
    assert not notices
    for mine, wanted in zip(graphed[0], plain[0], strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=2e-3)
    assert [r.train_error for r in graphed[1]] == pytest.approx([r.train_error for r in plain[1]], abs=0.01)
    whole = max(1, 260 // run.recipe.batch_size)  # in an epoch, which ends with a smaller batch
    assert used[0] == run.recipe.epochs * whole - 3


@pytest.mark.parametrize("size", [(20, 28), (28, 20)], ids=str)
@pytest.mark.parametrize("model", [None, BATCH_NORM], ids=["lenet5", "batch norm"])
def test_steps_on_images_that_are_no_squares(
    size: tuple[int, int], model: dict[str, Any] | None, arrays: dict[str, Any]
) -> None:
    moves = {"rotation_degrees": 10, "shift": 0.1, "elastic_alpha": 1.0, "crop_area": 0.5, "cutmix_alpha": 1.0}
    config = experiment(model, augmentation=moves)
    graphed, notices = trained(run_of(config, cut(arrays, *size), replayed))
    plain, _ = trained(run_of(config, cut(arrays, *size), None))
    assert not notices
    for mine, wanted in zip(graphed[0], plain[0], strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("capture", "message"),
    [
        (lambda _step: lambda: None, "strays from an eager one by 100.0%"),
        (lambda step: lambda: (step(), step()), "strays from an eager one"),
        (_fail, "cannot be captured (operation not permitted)"),
    ],
    ids=["does nothing", "twice as far", "fails"],
)  # fmt: skip
def test_a_wrong_graph_is_found_and_training_stays_eager(capture: Any, message: str, arrays: dict[str, Any]) -> None:
    config = experiment()
    found, notices = trained(run_of(config, arrays, capture))
    eager = run_of(config, arrays, replayed)
    assert eager.graphed is not None
    eager.graphed.refused = eager.no_graph = "eager from the first step on"
    assert same(found, trained(eager)[0])
    assert len(notices) == 1
    assert message in notices[0].message
    assert notices[0].message.startswith("trained without a CUDA graph: ")


def test_a_member_with_a_loss_that_is_not_finite_does_not_spoil_the_comparison(arrays: dict[str, Any]) -> None:
    run = run_of(experiment(optimizer="sgd", lr=0.05), arrays, replayed)
    for tensor in run.stack.member_tensors():
        tensor[1].fill_(float("nan"))
    assert not trained(run)[1]


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        ("adam", None),
        ("adagrad", "adagrad has no capturable form in torch; expected adadelta, adam, adamax, adamw, rmsprop, sgd"),
    ],
)
def test_what_cannot_be_captured_is_named(optimizer: str, reason: str | None, arrays: dict[str, Any]) -> None:
    run = run_of(experiment(optimizer=optimizer), arrays, None)
    assert obstacle(run.recipe, run.placement) == "its device is no GPU"
    assert obstacle(run.recipe, replace(run.placement, device=torch.device("cuda"))) == reason


def test_on_a_cpu_the_default_is_no_matter(arrays: dict[str, Any]) -> None:
    assert ComputeConfig().cuda_graph
    config = experiment(epochs=1)
    items = list(Trainer.create(config, "cpu", 10)(Task("task", "lenet5", specs([0])), arrays))
    assert not [item for item in items if isinstance(item, Notice)]
    assert results(items)


def test_a_member_has_the_dropout_masks_it_has_alone_whatever_the_batches(arrays: dict[str, Any]) -> None:
    """Masks are addressed by the image's position in the epoch: by one batch of 8, and by two of 3 and 5."""
    run = run_of(experiment(DROPOUT), arrays, None)
    layer = run.stack.dropout[0]
    run.batches.begin(0)
    run.stack.seed_dropout(torch.tensor([5, 9]))
    x = torch.ones(8, 2 * 7)
    run.stack.place_dropout(replace(run.batches.at(0, 8).place, first=20))
    whole = layer(x)
    parts = []
    for first, rows in ((20, 3), (23, 5)):
        run.stack.place_dropout(replace(run.batches.at(0, rows).place, first=torch.tensor([first])))
        parts.append(layer(x[:rows]))
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole[:, :7], whole[:, 7:])
    assert set(whole.unique().tolist()) == {0.0, float(torch.tensor(2**16 / round(0.7 * 2**16)))}


def test_the_share_that_dropout_keeps(arrays: dict[str, Any]) -> None:
    run = run_of(experiment(DROPOUT), arrays, None)
    run.stack.seed_dropout(torch.tensor([5, 9]))
    run.stack.place_dropout(replace(run.batches._place(0, 1000), first=0))
    kept = (run.stack.dropout[0](torch.ones(1000, 200)) > 0).float().mean()
    assert abs(kept - 0.7) < 4 * (0.3 * 0.7 / 200_000) ** 0.5


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
