"""Narrow networks trained by the C kernels: the same networks as by PyTorch's, and PyTorch's where there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ensemble.training.loop as loop
import ensemble.training.stack as stack_module
from ensemble.config.recipe import AugmentationConfig
from ensemble.config.schema import ComputeConfig
from ensemble.events import Notice
from ensemble.native.kernels import load, obstacle
from ensemble.training.batch_last import Chain, suits, worthwhile
from ensemble.training.batches import Batches
from ensemble.training.layers import BatchPlace
from ensemble.training.placement import Placement
from ensemble.training.resident import Resident
from ensemble.training.stack import Stack
from ensemble.types import MemberSpec
from tests.training.helpers import arrays as arrays
from tests.training.helpers import experiment, results, specs, train

needs_kernels = pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")

NETWORKS: dict[str, dict[str, Any]] = {
    "lenet5": {"name": "lenet5"},
    "tanh, averages": {
        "name": "layers",
        "layers": (
            {"kind": "conv", "channels": 7, "padding": 1, "activation": "tanh"},
            {"kind": "average_pool", "size": 2},
            {"kind": "conv", "channels": 9, "kernel_size": 1, "activation": "gelu", "dropout": 0.2},
            {"kind": "max_pool", "size": 3, "stride": 2},
            {"kind": "linear", "width": "classes"},
        ),
    },
    "batch norm": {
        "name": "layers",
        "layers": (
            {"kind": "conv", "channels": 5, "batch_norm": True, "activation": "relu", "dropout": 0.1},
            {"kind": "conv", "channels": 6, "batch_norm": True},
            {"kind": "max_pool", "size": 2},
            {"kind": "conv", "channels": "classes", "kernel_size": 1, "bias": True},
            {"kind": "average_pool", "size": 5},
        ),
    },
    "cnn": {"name": "cnn", "widths": (6, 8), "batch_norm": True, "dropout": 0.25, "fully_connected": (16,)},
    "mlp": {"name": "mlp", "widths": (20, 7), "activation": "tanh", "dropout": 0.2},
    "regression": {"name": "mlp", "widths": ()},
    "sigmoid": {"name": "cnn", "widths": (4, 8), "kernel_size": 5, "padding": 2, "activation": "sigmoid"},
}


def build(model: dict[str, Any], shape: tuple[int, int, int], batch_last: bool) -> Stack:
    stack = Stack.build(experiment(model).groups[0].model, shape, 10, [1, 2, 3]).train()
    stack.batch_last = batch_last
    stack.seed_dropout(torch.arange(3))
    return stack


DEFORMED: dict[str, dict[str, Any]] = {
    "moved": {"rotation_degrees": 15.0, "scale": 0.2, "shear_degrees": 10.0, "shift": 0.1},
    "by whole pixels": {"crop_padding": 4, "horizontal_flip": True},
    "elastic": {"elastic_alpha": 2.0, "elastic_sigma": 3.0},
    "tone": {"brightness": 0.4, "contrast": 0.4},
    "everything, far out": {
        "rotation_degrees": 180.0, "scale": 0.9, "shift": 0.5, "crop_padding": 3, "horizontal_flip": True,
        "elastic_alpha": 30.0, "elastic_sigma": 1.0, "brightness": 0.9, "contrast": 0.9,
    },
}  # fmt: skip


def batches(augmentation: dict[str, Any], shape: tuple[int, int, int], members: int, by_kernels: bool) -> Batches:
    """Random images of that shape, 45 to a batch."""
    stream = np.random.default_rng(3)
    arrays = {
        "train_images": stream.integers(0, 256, (90, *shape), np.uint8), "train_labels": np.zeros(90, np.int64),
        "validation_rows": np.arange(1), "test_images": stream.integers(0, 256, (1, *shape), np.uint8),
        "mean": np.linspace(0.2, 0.4, shape[0], dtype=np.float32), "std": np.linspace(0.3, 0.2, shape[0], dtype=np.float32),
    }  # fmt: skip
    placement = Placement.create(ComputeConfig(device="cpu"))
    drawn = tuple(MemberSpec(index, "r", np.arange(90)[::-1].copy()) for index in range(members))
    data, config = Resident.load(arrays, placement.device), AugmentationConfig(**augmentation)
    return Batches(data, drawn, 0, 45, config, placement, None, load() if by_kernels else None)


@needs_kernels
@pytest.mark.parametrize("augmentation", DEFORMED.values(), ids=DEFORMED)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 15, 13), (2, 2, 3), (1, 20, 28), (3, 28, 20)], ids=str)
def test_deformed_batches_are_those_of_pytorch(augmentation: dict[str, Any], shape: tuple[int, int, int]) -> None:
    ours, right = (list(batches(augmentation, shape, 3, by_kernels).epoch(1)) for by_kernels in (True, False))
    assert len(ours) == len(right) == 2
    for mine, wanted in zip(ours, right, strict=True):
        assert mine.batch_last == 45
        assert mine.images.shape == (3, *shape, 48)
        assert not mine.images[..., 45:].any()
        found = mine.images[..., :45].movedim(-1, 1)
        torch.testing.assert_close(found, wanted.images, rtol=0, atol=2e-4)  # of some 5 between black and white
        if "crop_padding" in augmentation and len(augmentation) == 2:
            torch.testing.assert_close(found, wanted.images, rtol=1e-6, atol=1e-6)


@needs_kernels
def test_a_member_in_a_stack_gets_the_deformed_bits_it_gets_alone() -> None:
    results, before = [], torch.get_num_threads()
    try:
        for members, threads in ((1, 1), (4, 1), (4, 3)):
            several = batches(DEFORMED["everything, far out"], (3, 15, 13), members, True)
            torch.set_num_threads(threads)
            results.append([batch.images[0] for batch in several.epoch(0)])
    finally:
        torch.set_num_threads(before)
    for one, of_four, by_threads in zip(*results, strict=True):
        assert torch.equal(one, of_four)
        assert torch.equal(one, by_threads)


@needs_kernels
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 14, 14), (3, 15, 13), (1, 20, 28), (2, 28, 12)], ids=str)
@pytest.mark.parametrize("rows", [16, 45])
def test_the_same_as_in_float64_by_pytorch(network: str, shape: tuple[int, int, int], rows: int) -> None:
    """Logits, gradients and running statistics; the loss weighs every image differently, so that an order shows."""
    if network == "batch norm" and shape[2] != 14:
        shape = (3, 14, 14)  # its last pooling wants so many
    torch.manual_seed(0)
    ours, right = build(NETWORKS[network], shape, True), build(NETWORKS[network], shape, False).double()
    assert suits(ours.network)
    assert worthwhile(rows)
    images, labels = torch.randn(3, rows, *shape), torch.arange(rows) % 10
    found: list[list[Tensor]] = []
    for stack, batch in ((ours, images), (right, images.double())):
        stack.place_dropout(BatchPlace(90, rows))
        logits = stack(batch)
        assert logits.shape == (rows, 3, 10)
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.repeat_interleave(3), reduction="none"
        ).view(rows, 3)
        (losses * torch.arange(1.0, rows + 1).unsqueeze(1) * torch.tensor([1.0, 2.0, 3.0])).sum().div(rows).backward()
        gradients = [parameter.grad for parameter in stack.parameters() if parameter.grad is not None]
        found.append([logits.detach(), *gradients, *stack.buffers()])
        assert len(gradients) == len(list(stack.parameters()))
    for mine, wanted in zip(*found, strict=True):
        scale = float(wanted.abs().max()) + 1e-3
        np.testing.assert_allclose(mine.double() / scale, wanted / scale, atol=3e-5)


@needs_kernels
@pytest.mark.parametrize("model", [NETWORKS["lenet5"], NETWORKS["cnn"], NETWORKS["mlp"]], ids=["lenet5", "cnn", "mlp"])
def test_a_training_by_either_kernels_agrees(model: dict[str, Any], arrays: dict[str, Any]) -> None:
    found = [
        results(
            train(experiment(model, kernels, optimizer="sgd", lr=0.02, batch_size=52, epochs=1), specs([0, 1]), arrays)
        )
        for kernels in ("auto", "torch")
    ]
    for index in (0, 1):
        ours, theirs = found[0][index], found[1][index]
        for name in ours.weights:
            np.testing.assert_allclose(ours.weights[name], theirs.weights[name], atol=1e-3, err_msg=name)
        np.testing.assert_allclose(ours.votes.test_NK, theirs.votes.test_NK, atol=5e-3)


@needs_kernels
def test_which_batches_and_networks_take_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    way = Chain.__call__
    monkeypatch.setattr(Chain, "__call__", lambda chain, x, n, k: taken.append(n) or way(chain, x, n, k))
    stack = build(NETWORKS["lenet5"], (1, 28, 28), True)
    for rows in (64, 40, 17, 8):
        stack(torch.randn(3, rows, 1, 28, 28))
    stack(torch.randn(48, 1, 28, 28))
    assert taken == [64, 40, 48]
    with torch.inference_mode():
        expected = build(NETWORKS["lenet5"], (1, 28, 28), False)(torch.ones(3, 64, 1, 28, 28))
    torch.testing.assert_close(stack(torch.ones(3, 64, 1, 28, 28)), expected)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ({"name": "lenet5"}, True),
        ({"name": "lenet4"}, True),
        ({"name": "cnn"}, True),
        ({"name": "cnn", "widths": (4, 8), "kernel_size": 4}, False),
        ({"name": "cnn", "widths": (256,)}, False),
        ({"name": "mlp"}, True),
        ({"name": "resnet18"}, False),
    ],
    ids=str,
)
def test_which_networks_are_known(model: dict[str, Any], wanted: bool) -> None:
    assert suits(build(model, (1, 28, 28), False).network) is wanted


@pytest.mark.parametrize(
    ("model", "members", "threads", "batch_size", "wanted"),
    [
        ("cnn", 1, 1, 64, True),
        ("cnn", 1, 2, 64, False),  # one thread would stay idle
        ("cnn", 2, 2, 64, True),
        ("cnn", 1, 1, 512, False),  # 64 maps of 512 images leave the caches
        ("cnn", 2, 1, 512, True),
        ("lenet5", 1, 2, 512, True),
        ("lenet5", 1, 3, 64, False),
        ("mlp", 1, 1, 64, False),  # a linear layer of one member is what PyTorch does best
        ("mlp", 2, 1, 64, True),
        ("mlp", 2, 2, 64, True),
        ("mlp", 2, 3, 64, False),
    ],
)
def test_threads_that_would_stay_idle_and_large_batches_are_left_to_pytorch(
    model: str, members: int, threads: int, batch_size: int, wanted: bool
) -> None:
    """Measured by `python -m benchmarks.alone`: docs/results/alone.md."""
    stack = Stack.build(experiment({"name": model}).groups[0].model, (1, 28, 28), 10, list(range(members)))
    assert suits(stack.network, threads, batch_size) is wanted


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_without_a_compiler_pytorch_trains_and_says_so(
    kernels: str, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "obstacle", lambda: "no C compiler on this machine: install gcc")
    monkeypatch.setattr(stack_module, "load", lambda: None)
    items = train(experiment(None, kernels), specs([0, 1]), arrays)
    assert len(results(items)) == 2
    said = [item.message for item in items if isinstance(item, Notice)]
    assert said == (
        ["networks such as this one train at about half the speed: no C compiler on this machine: install gcc"]
        if kernels == "auto"
        else []
    )


def test_bf16_and_data_of_no_gpu_stay_with_pytorch(arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("mixed precision goes another way")

    monkeypatch.setattr(Chain, "__call__", never)
    values = experiment().model_dump()
    values["compute"]["precision"] = "bf16"
    config = type(experiment()).model_validate(values)
    assert len(results(train(config, specs([0]), arrays))) == 1


@needs_kernels
def test_a_pass_keeps_what_its_own_way_back_needs() -> None:
    """Another pass in between, of another batch or with other numbers in it, changes no gradient."""
    torch.manual_seed(0)
    first, second = torch.randn(3, 64, 1, 28, 28), torch.randn(3, 48, 1, 28, 28)
    found = []
    for between in (None, first + 1, second):
        stack = build(NETWORKS["lenet5"], (1, 28, 28), True)
        logits = stack(first)
        if between is not None:
            stack(between)
        logits.square().sum().backward()
        found.append([parameter.grad for parameter in stack.parameters()])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@needs_kernels
def test_tensors_that_move_are_followed() -> None:
    """`to` and `double` give a network other tensors, also after it has been computed."""
    images = torch.randn(3, 64, 1, 28, 28)
    stack = build(NETWORKS["lenet5"], (1, 28, 28), True)
    before = stack(images)
    stack.double().float()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(2)
    stack.batch_last = False
    wanted = stack(images)
    stack.batch_last = True
    torch.testing.assert_close(stack(images), wanted)
    assert not torch.allclose(before, wanted)
