"""The C kernels against PyTorch in float64."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble.data.counter_random import random_bits
from ensemble.native import kernels as kernels_module
from ensemble.native.kernels import Kernels, Layer, Passes, load, obstacle

pytestmark = pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")
MEMBERS = 2


@pytest.fixture(params=[(1, True), (3, True), (3, False)], ids=["one_thread", "three_of_torch", "three_of_our_own"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    before, (threads, of_torch) = torch.get_num_threads(), request.param
    torch.set_num_threads(threads)
    if not of_torch:
        monkeypatch.setattr(kernels_module, "_team", lambda: None)
    yield load()
    torch.set_num_threads(before)


def batch_first(x: Tensor) -> Tensor:
    return x.movedim(-1, 0).double().contiguous()


def close(found: Tensor | None, wanted: Tensor | None) -> None:
    assert found is not None
    assert wanted is not None
    assert found.shape == wanted.shape
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    assert error < 1e-5, float(error)


def agrees(
    kernels: Kernels,
    layers: Sequence[Layer],
    x: Tensor,
    right: Callable[[int, Tensor, list[Tensor]], Tensor],
    rows: int | None = None,
) -> None:
    """Results and all gradients equal those of right(member, x [B, ...], its parameters) in float64."""
    passes, rows = Passes(layers, x), x.shape[-1] if rows is None else rows
    y, room = passes.forward(kernels, x, rows, keep=True)
    dy = torch.randn_like(y)
    dy[..., rows:] = 0
    dx, gradients = passes.backward(kernels, x, y, room, dy, rows, inputs=True)
    assert dx is not None
    parameters = [parameter for layer in layers for parameter in layer.parameters]
    assert [gradient.stride() for gradient in gradients] == [parameter.stride() for parameter in parameters]
    for k in range(MEMBERS):
        leaf = batch_first(x[k, ..., :rows]).requires_grad_()
        own = [torch.unflatten(p, 0, (MEMBERS, -1))[k].squeeze(0).double().requires_grad_() for p in parameters]
        wanted = right(k, leaf, own)
        wanted.backward(batch_first(dy[k, ..., :rows]))
        close(y[k, ..., :rows], wanted.detach().movedim(0, -1))
        close(dx[k, ..., :rows], None if leaf.grad is None else leaf.grad.movedim(0, -1))
        assert not dx[k, ..., rows:].any()
        for gradient, leaf in zip(gradients, own, strict=True):
            close(torch.unflatten(gradient, 0, (MEMBERS, -1))[k].squeeze(0), leaf.grad)
    without, again = passes.backward(kernels, x, y, room, dy, rows, inputs=False)
    assert without is None
    assert all(torch.equal(one, other) for one, other in zip(gradients, again, strict=True))


SHAPES = [  # maps in, maps out, height, width, kernel, padding, batch
    (1, 6, 28, 28, (5, 5), (2, 2), 64),
    (6, 16, 14, 14, (5, 5), (0, 0), 112),
    (3, 13, 9, 7, (3, 3), (1, 1), 16),
    (5, 7, 8, 6, (7, 7), (3, 3), 48),
    (2, 1, 7, 9, (2, 3), (0, 2), 80),
    (4, 9, 6, 5, (1, 1), (0, 0), 32),
    (16, 10, 5, 5, (5, 5), (4, 4), 16),
]


def convolution(shape: Any, with_bias: bool = True, **more: Any) -> tuple[Layer, Tensor]:
    ins, outs, height, width, size, padding, batch = shape
    laid_out = torch.randn(MEMBERS * outs, ins, *size).contiguous(
        memory_format=more.pop("laid_out", torch.contiguous_format)
    )
    bias = torch.randn(MEMBERS, outs) if with_bias else None
    layer = Layer("convolution", laid_out.view(MEMBERS, outs, ins, *size), bias, padding, **more)
    return layer, torch.randn(MEMBERS, ins, height, width, batch)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("laid_out", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels_last"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_convolution(kernels: Kernels, shape: Any, laid_out: torch.memory_format, with_bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = convolution(shape, with_bias, laid_out=laid_out)
    agrees(kernels, [layer], x, lambda _, x, own: F.conv2d(x, *own, padding=layer.padding))


@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
@pytest.mark.parametrize(("pool", "relu"), [(1, True), (2, True), (2, False), (3, True)])
def test_convolution_pooled(kernels: Kernels, shape: Any, pool: int, relu: bool) -> None:
    torch.manual_seed(1)
    layer, x = convolution(shape, size=pool, relu=relu)

    def right(_: int, x: Tensor, own: list[Tensor]) -> Tensor:
        pooled = F.max_pool2d(F.conv2d(x, *own, padding=layer.padding), pool)
        return pooled.relu() if relu else pooled

    agrees(kernels, [layer], x, right)


@pytest.mark.parametrize(("ins", "outs", "batch"), [(400, 120, 64), (84, 10, 64), (37, 6, 16), (20, 33, 176)])
@pytest.mark.parametrize("relu", [False, True])
def test_linear(kernels: Kernels, ins: int, outs: int, batch: int, relu: bool) -> None:
    torch.manual_seed(2)
    layer = Layer("convolution", torch.randn(MEMBERS, outs, ins, 1, 1), torch.randn(MEMBERS, outs), relu=relu)

    def right(_: int, x: Tensor, own: list[Tensor]) -> Tensor:
        y = F.linear(x, own[0].flatten(1), own[1])
        return y.relu() if relu else y

    agrees(kernels, [layer], torch.randn(MEMBERS, ins, batch), right)


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 3), (3, 2), (2, 3), (3, 1)])
@pytest.mark.parametrize("relu", [False, True])
def test_max_pool(kernels: Kernels, size: int, stride: int, relu: bool) -> None:
    torch.manual_seed(3)

    def right(_: int, x: Tensor, _own: list[Tensor]) -> Tensor:
        y = F.max_pool2d(x, size, stride)
        return y.relu() if relu else y

    layer = Layer("max_pool", size=size, stride=stride, relu=relu)
    agrees(kernels, [layer], torch.randn(MEMBERS, 5, 8, 11, 48), right)


@pytest.mark.parametrize("relu", [False, True])
def test_a_value_that_is_no_number_stays_one(kernels: Kernels, relu: bool) -> None:
    x = torch.zeros(1, 1, 4, 4, 16)
    x[0, 0, 0, 1, 3] = x[0, 0, 2, 2, 5] = float("nan")
    for layer in (
        Layer("max_pool", size=2, stride=2, relu=relu),
        Layer("convolution", torch.ones(1, 1, 1, 1, 1), relu=relu),
        Layer("convolution", torch.tensor([0.0, 1, 0]).view(1, 1, 1, 1, 3), padding=(0, 1), size=2, relu=relu),
    ):
        y, _ = Passes([layer], x).forward(kernels, x, 16, keep=True)
        pooled = F.max_pool2d(batch_first(y[0]), 2).movedim(0, -1) if y.shape == x.shape else y[0]
        places = pooled.isnan().nonzero().tolist()
        assert [0, 0, 0, 3] in places
        assert [0, 1, 1, 5] in places
        assert pooled.isnan().sum() == pooled.isnan()[..., [3, 5]].sum()


@pytest.mark.parametrize("rows", [64, 50, 7])
@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm(kernels: Kernels, rows: int, relu: bool) -> None:
    torch.manual_seed(4)
    x = 3 * torch.randn(MEMBERS, 5, 6, 7, 64) + torch.arange(5).view(5, 1, 1, 1)
    x[..., rows:] = 0
    running = torch.randn(MEMBERS * 5), torch.rand(MEMBERS * 5)
    start = [statistic.double().view(MEMBERS, -1) for statistic in running]
    scale, shift = torch.rand(MEMBERS * 5) + 0.5, torch.randn(MEMBERS * 5)
    layer = Layer("batch_norm", scale, shift, relu=relu, running=running)
    kept = [statistic.clone() for statistic in running]

    def right(k: int, x: Tensor, own: list[Tensor]) -> Tensor:
        y = F.batch_norm(x, start[0][k], start[1][k], *own, True, 0.1, 1e-5)
        return y.relu() if relu else y

    agrees(kernels, [layer], x, right, rows)
    for mine, wanted in zip(running, start, strict=True):
        close(mine.view(MEMBERS, -1), wanted)
    for mine, before in zip(running, kept, strict=True):
        mine.copy_(before)
    y, _ = Passes([layer], x).forward(kernels, x, rows, keep=False, training=False)
    wanted = F.batch_norm(x.permute(4, 0, 1, 2, 3).flatten(1, 2), *kept, scale, shift, False, 0.1, 1e-5)
    wanted = (wanted.relu() if relu else wanted).view(64, MEMBERS, 5, 6, 7).movedim(0, -1).double()
    close(y[..., :rows], wanted[..., :rows])
    assert torch.equal(running[0], kept[0])


@pytest.mark.parametrize("shared", [True, False])
def test_layers_one_after_another(kernels: Kernels, shared: bool) -> None:
    """A whole network, of images that the members share or do not; keeping nothing changes no result."""
    torch.manual_seed(5)
    first, x = convolution((2, 6, 12, 12, (3, 3), (1, 1), 48), size=2, relu=True)
    second, _ = convolution((6, 7, 0, 0, (3, 3), (0, 0), 0), with_bias=False)
    weight, bias = torch.randn(MEMBERS, 10, 28, 1, 1) / 5, torch.randn(MEMBERS, 10)
    norm = Layer(
        "batch_norm", torch.rand(14) + 0.5, torch.randn(14), relu=True, running=(torch.zeros(14), torch.ones(14))
    )
    last = Layer("convolution", weight, bias)
    layers = [first, second, norm, Layer("max_pool", size=2, stride=2), Layer("flatten"), last]
    if shared:
        x = x[:1].expand(MEMBERS, -1, -1, -1, -1)

    def right(_: int, x: Tensor, own: list[Tensor]) -> Tensor:
        x = F.max_pool2d(F.conv2d(x, own[0], own[1], padding=1), 2).relu()
        x = F.batch_norm(F.conv2d(x, own[2]), None, None, own[3], own[4], True).relu()
        return F.linear(F.max_pool2d(x, 2).flatten(1), own[5].flatten(1), own[6])

    agrees(kernels, layers, x, right)
    passes = Passes(layers, x)
    kept, _ = passes.forward(kernels, x, 48, keep=True)
    assert torch.equal(kept, passes.forward(kernels, x, 48, keep=False)[0])


def test_batch_to_last(kernels: Kernels) -> None:
    images = torch.randn(3, 21, 2, 5, 7)
    moved = kernels.batch_to_last(images, 32)
    assert torch.equal(moved[..., :21], images.movedim(1, -1))
    assert not moved[..., 21:].any()


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 28, 28), (2, 3, 3), (1, 4, 4)], ids=str)
def test_gather(kernels: Kernels, shape: tuple[int, int, int]) -> None:
    images = torch.randint(0, 256, (40, *shape), dtype=torch.uint8)
    rows = torch.randint(0, 40, (2, 21))
    mean, std = torch.tensor([10.0, 20.0, 30.0])[: shape[0]], torch.tensor([60.0, 70.0, 80.0])[: shape[0]]
    found = kernels.gather(images, rows, mean, std, 32)
    wanted = (images[rows].float() - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    assert torch.equal(found[..., :21], wanted.movedim(1, -1))
    assert not found[..., 21:].any()
    with pytest.raises(AssertionError):
        kernels.gather(images[:, :, ::2], rows, mean, std, 32)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere libraries have other names")
def test_the_threads_are_those_that_torch_computes_with() -> None:
    """Of our own they would wait for a core that one of torch's holds though it has nothing to do: a step took half as long again."""
    assert kernels_module._team() is not None


def test_the_threads_change_no_bit() -> None:
    kernels, before = load(), torch.get_num_threads()
    assert kernels is not None
    torch.manual_seed(6)
    weight, bias = torch.randn(3, 10, 4, 3, 3), torch.randn(3, 10)
    x = torch.randn(3, 4, 12, 12, 64)
    passes = Passes([Layer("convolution", weight, bias, (1, 1), size=2, relu=True)], x)
    found: list[list[Tensor]] = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y, room = passes.forward(kernels, x, 64, keep=True)
            dx, gradients = passes.backward(kernels, x, y, room, y, 64, inputs=True)
            assert dx is not None
            found.append([y, dx, *gradients])
    finally:
        torch.set_num_threads(before)
    for one, other in itertools.pairwise(found):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_random_bits_are_those_of_the_tensor_operations(kernels: Kernels) -> None:
    """For keys and counters of either sign, and counts that fill no vector."""
    keys = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), 123456789])
    starts = torch.tensor([0, 2**40, -7, 2**62])
    for count in (1, 5, 64, 1001):
        assert torch.equal(kernels.random_bits(keys, starts, count), random_bits(keys, starts, count))
