"""Kernels chosen per layer by trying them: every way is the same convolution, and what was found is kept."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ensemble.training.layers as layers_module
import ensemble.training.ways as ways_module
from ensemble.errors import ComputeError
from ensemble.native.kernels import obstacle
from ensemble.run.planning import Plan, make_plan
from ensemble.training import Trainer
from ensemble.training.job import Job, Ways
from ensemble.training.layers import CONVOLUTION_WAYS, StackedConv2d
from ensemble.training.placement import Placement
from ensemble.training.stack import Stack
from ensemble.training.stack_run import StackRun
from ensemble.training.step_timing import fastest
from ensemble.training.ways import find_ways, use
from ensemble.types import Task
from tests.training.helpers import arrays as arrays
from tests.training.helpers import experiment, results, specs

WIDE: dict[str, Any] = {"name": "cnn", "widths": (6, 200), "batch_norm": True}
LAYERS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3, "padding": 1},
    "strided, no bias": {"kernel_size": (3, 5), "stride": 2, "padding": (1, 2), "bias": False},
    "strided along rows only": {"kernel_size": (5, 2), "stride": (1, 3), "padding": (4, 1)},
    "dilated": {"kernel_size": 3, "dilation": 2},
    "dilated, padded, strided": {"kernel_size": 3, "dilation": (2, 3), "padding": (3, 1), "stride": (2, 2)},
    "one by one": {"kernel_size": 1},
    "each map alone": {"kernel_size": 3, "padding": 1, "groups": 4},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ways"


def parse_model(model: dict[str, Any]) -> Any:
    return experiment(model).groups[0].model


def job_of(model: dict[str, Any], **training: Any) -> Job:
    config = experiment(model, "measured", **training)
    return Trainer.create(config, "cpu", 10).jobs[config.groups[0].name]


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("shared", [False, True], ids=["own images", "shared images"])
def test_every_way_is_the_same_convolution(options: dict[str, Any], members: int, shared: bool) -> None:
    torch.manual_seed(0)
    layer = StackedConv2d([nn.Conv2d(4, 8, **options) for _ in range(members)]).double()
    images = torch.randn(5, 4 if shared else members * 4, 9, 12, dtype=torch.float64)
    found = []
    assert layer.possible_ways()[0] == layer.way == CONVOLUTION_WAYS[0]
    for way in layer.possible_ways():
        layer.way, x = way, images.clone().requires_grad_()
        layer.zero_grad()
        y = layer(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        found.append([y.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())])
    assert len(found) >= 2
    for other in found[1:]:
        for one, wanted in zip(other, found[0], strict=True):
            torch.testing.assert_close(one, wanted)


def test_ways_that_a_layer_does_not_have() -> None:
    alone = StackedConv2d([nn.Conv2d(4, 8, 3)])
    assert "apart" not in alone.possible_ways()
    assert {"windows", "rows"} < set(alone.possible_ways())
    grouped = StackedConv2d([nn.Conv2d(4, 8, 3, groups=2) for _ in range(2)])
    assert {"windows", "rows"}.isdisjoint(grouped.possible_ways())
    assert "apart" in grouped.possible_ways()
    by_name = StackedConv2d([nn.Conv2d(4, 8, 3, padding="same") for _ in range(2)])
    assert {"windows", "rows"}.isdisjoint(by_name.possible_ways())
    strided = StackedConv2d([nn.Conv2d(4, 8, 3, stride=2)])
    assert "windows" in strided.possible_ways()
    assert "rows" not in strided.possible_ways()
    wide = StackedConv2d([nn.Conv2d(4, 64, 3)])
    assert "rows" not in wide.possible_ways()


def quickest(milliseconds: dict[str, float]) -> tuple[str, dict[str, int]]:
    """Which of several waits is taken for the quickest, and how often each was tried."""
    tried = dict.fromkeys(milliseconds, 0)

    def step(name: str) -> Any:
        def wait() -> None:
            tried[name] += 1
            time.sleep(milliseconds[name] / 1000)

        return wait

    found = fastest({name: step(name) for name in milliseconds}, torch.device("cpu"))
    assert found is not None
    return found, tried


def test_the_quickest_way_is_taken_and_hopeless_ones_are_soon_left() -> None:
    found, tried = quickest({"usual": 40, "quick": 5, "slow": 100})
    assert found == "quick"
    assert tried == {"usual": 1, "quick": 4, "slow": 1}


def test_the_usual_way_stays_where_another_is_hardly_quicker() -> None:
    assert quickest({"usual": 40.0, "other": 39.8})[0] == "usual"


def test_a_step_that_raises_is_passed_over() -> None:
    def broken() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def sound() -> None:
        time.sleep(0.001)

    cpu = torch.device("cpu")
    assert fastest({"usual": broken, "other": sound}, cpu) == "other"
    assert fastest({"usual": sound, "other": broken}, cpu) == "usual"
    assert fastest({"usual": broken, "other": broken}, cpu) is None


def test_a_way_that_raises_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution by windows that does not fit into memory is no reason to end the run."""

    def too_large(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setitem(layers_module._PRODUCTS, "windows", too_large)
    found = find_ways(job_of(WIDE), (1, 12, 12), 2)
    assert "windows" not in found.convolutions.values()


def test_a_stack_that_no_way_can_train_gets_the_default_and_is_measured_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(ways_module, "_whole", too_large)
    assert find_ways(job_of(WIDE), (1, 12, 12), 2) == Ways(False, {})
    assert not list(cache.iterdir())


def test_found_once_and_then_remembered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    found = find_ways(job_of(WIDE), (1, 12, 12), 2)
    assert torch.get_num_threads() == before
    assert set(found.convolutions.values()) < set(CONVOLUTION_WAYS)
    (file,) = cache.iterdir()
    assert Ways(**json.loads(file.read_text())) == found

    def refused(*_: object) -> Ways:
        raise AssertionError("measured again")

    monkeypatch.setattr(ways_module, "_measured", refused)
    assert find_ways(job_of(WIDE), (1, 12, 12), 2) == found
    for other in ((job_of(WIDE, batch_size=16), 2), (job_of(WIDE), 1), (job_of({**WIDE, "batch_norm": False}), 2)):
        with pytest.raises(AssertionError, match="measured again"):
            find_ways(other[0], (1, 12, 12), other[1])


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "file"))
    assert set(find_ways(job_of(WIDE), (1, 12, 12), 1).convolutions.values()) < set(CONVOLUTION_WAYS)


@pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")
def test_kernels_for_narrow_networks_are_tried_where_the_rule_is_against_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of 200 maps: by the rule PyTorch's; whichever wins, both were tried."""
    tried: set[bool] = set()
    whole = ways_module._whole

    def noted(ways: Ways, *rest: Any) -> None:
        tried.add(ways.batch_last)
        whole(ways, *rest)

    monkeypatch.setattr(ways_module, "_whole", noted)
    find_ways(job_of(WIDE), (1, 12, 12), 2)
    assert tried == {True, False}


def test_layers_that_cannot_be_stacked_are_tried_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensemble.training.trial.obstacles", lambda *_: ("first (Strange)",))
    assert isinstance(find_ways(job_of(WIDE), (1, 12, 12), 3), Ways)


def test_a_gpu_that_is_not_here_cannot_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    job = Trainer.create(experiment(WIDE, "measured"), "cuda", 10).jobs["cnn"]
    with pytest.raises(ComputeError, match=r"use compute\.kernels=auto, or start the run there"):
        find_ways(job, (1, 12, 12), 2)


def test_training_goes_the_planned_ways_and_ends_with_the_same_network(arrays: dict[str, Any]) -> None:
    """LeNet-5 in the ways of a plan, all of them others than it would choose; weights agree to rounding."""
    config = experiment(None, "measured", optimizer="sgd", lr=0.05, epochs=1)
    usual = Trainer.create(config, "cpu", 10)
    convolutions = [
        name
        for name, layer in _stack(usual.jobs["lenet5"], arrays).network.named_modules()
        if isinstance(layer, StackedConv2d)
    ]
    planned = Plan(
        {"lenet5": 2}, "cpu", 1, {"lenet5": Ways(False, dict(zip(convolutions, ("rows", "apart"), strict=True)))}
    )
    assert Plan.from_json(json.loads(json.dumps(planned.to_json()))) == planned
    ours = Trainer.create(config, "cpu", 10, planned.ways)
    stack = _stack(ours.jobs["lenet5"], arrays)
    assert not stack.batch_last
    assert [stack.network.get_submodule(name).way for name in convolutions] == ["rows", "apart"]
    trained = [results(list(trainer(Task("task", "lenet5", specs([0, 1])), arrays))) for trainer in (usual, ours)]
    for member in (0, 1):
        one, other = (each[member].weights for each in trained)
        for name, weights in one.items():
            assert abs(weights - other[name]).max() < 1e-3


def test_plans_that_name_the_former_product_are_computed_by_windows(arrays: dict[str, Any]) -> None:
    """As {"ways": {..., "convolutions": {"0": "matmul"}}} stands in run folders of earlier versions."""
    stored = {
        "stack_sizes": {"lenet5": 2}, "device": "cpu", "threads_per_task": 1,
        "ways": {"lenet5": {"batch_last": False, "convolutions": {"0": "matmul", "3": "matmul"}}},
    }  # fmt: skip
    plan = Plan.from_json(json.loads(json.dumps(stored)))
    trainer = Trainer.create(experiment(None, "measured", epochs=1), "cpu", 10, plan.ways)
    stack = _stack(trainer.jobs["lenet5"], arrays)
    assert [stack.network.get_submodule(name).way for name in ("0", "3")] == ["windows", "windows"]
    assert len(results(list(trainer(Task("task", "lenet5", specs([0, 1])), arrays)))) == 2


def test_a_way_that_does_not_exist_is_named(arrays: dict[str, Any]) -> None:
    stack = _stack(job_of({"name": "lenet5"}), arrays)
    with pytest.raises(ComputeError, match=r"layer 3 as 'winograd'; expected one of channels_last"):
        use(Ways(False, {"3": "winograd"}), stack)


def test_a_planned_way_that_a_layer_cannot_take_is_told() -> None:
    model = {"name": "cnn", "widths": (6, 200)}
    stack = Stack.build(parse_model(model), (1, 12, 12), 10, [0, 1])
    (notice,) = use(Ways(False, {"0": "rows", "3": "rows"}), stack)
    assert notice == "layer 3 is computed as channels_last, not as rows as planned: it has more than 32 channels"
    assert [layer.way for _, layer in stack.stacked_layers() if isinstance(layer, StackedConv2d)] == [
        "rows",
        "channels_last",
    ]
    assert use(Ways(False, {"0": "apart"}), Stack.build(parse_model(model), (1, 12, 12), 10, [0])) == []


def test_plans_from_before_there_were_ways_are_still_read() -> None:
    assert Plan.from_json({"stack_sizes": {"a": 2}, "device": "cpu", "threads_per_task": 1}).ways == {}
    assert make_plan(experiment(), "cpu").to_json()["ways"] == {}


def _stack(job: Job, arrays: dict[str, Any]) -> Any:
    task = Task("task", job.group.name, specs([0, 1]))
    return StackRun(task, job, arrays, Placement.create(job.compute)).stack


@pytest.mark.parametrize("on_gpu", [False, True])
def test_on_a_gpu_the_bias_waits_for_the_pooling(on_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU it does not: there the bias costs nothing, and results keep their last bits."""
    if on_gpu:
        monkeypatch.setattr(nn.Parameter, "is_cuda", True, raising=False)
    stack = Stack.build(parse_model({"name": "lenet5"}), (1, 28, 28), 10, [0, 1])
    names = list(stack.member_state(1))
    use(Ways(False, {}), stack)
    pooled = [layer.pooling is not None for _, layer in stack.stacked_layers() if isinstance(layer, StackedConv2d)]
    assert pooled == [on_gpu, on_gpu]
    assert list(stack.member_state(1)) == names
