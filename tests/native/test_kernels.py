"""The C kernels against PyTorch in float64."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble.native.kernels import Kernels, load, obstacle

pytestmark = pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")


@pytest.fixture(params=[1, 3], ids=["one_thread", "three_threads"])
def kernels(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield load()
    torch.set_num_threads(before)


def batch_first(x_CHWB: Tensor) -> Tensor:
    return x_CHWB.permute(3, 0, 1, 2).double().contiguous()


def batch_last(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.permute(1, 2, 3, 0)


def close(found: Tensor | None, wanted: Tensor | None) -> None:
    assert found is not None
    assert wanted is not None
    assert found.shape == wanted.shape
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    assert error < 2e-6, float(error)


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, dy: Tensor, padding: tuple[int, int], after: Any) -> Any:
    """Per member: result and gradients of input, weight and bias, by PyTorch in float64."""
    found = []
    for k in range(len(weight)):
        leaves = [batch_first(x[k]), weight[k].double(), None if bias is None else bias[k].double()]
        for leaf in leaves:
            if leaf is not None:
                leaf.requires_grad_()
        y = after(F.conv2d(leaves[0], leaves[1], leaves[2], padding=padding))
        y.backward(batch_first(dy[k]))
        grads = [None if leaf is None else leaf.grad for leaf in leaves]
        found.append((batch_last(y.detach()), batch_last(grads[0]), grads[1], grads[2]))
    return [None if part[0] is None else torch.stack(part) for part in zip(*found, strict=True)]


SHAPES = [  # maps in, maps out, height, width, kernel, padding, batch
    (1, 6, 28, 28, (5, 5), (2, 2), 64),
    (6, 16, 14, 14, (5, 5), (0, 0), 112),
    (3, 13, 9, 7, (3, 3), (1, 1), 16),
    (5, 7, 8, 6, (7, 7), (3, 3), 48),
    (4, 9, 6, 5, (1, 1), (0, 0), 32),
    (2, 1, 7, 9, (2, 3), (0, 2), 80),
    (16, 10, 5, 5, (5, 5), (4, 4), 16),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("laid_out", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels_last"])
def test_convolution(kernels: Kernels, shape: Any, laid_out: torch.memory_format) -> None:
    ins, outs, height, width, size, padding, batch = shape
    torch.manual_seed(0)
    x = torch.randn(2, ins, height, width, batch)
    weight = torch.randn(2 * outs, ins, *size).contiguous(memory_format=laid_out).unflatten(0, (2, outs))
    bias = torch.randn(2, outs)
    y = kernels.convolve(x, weight, bias, padding)
    dy = torch.randn_like(y)
    wanted = reference(x, weight, bias, dy, padding, lambda y: y)
    dw, db = kernels.convolve_weights(x, dy, weight, padding, bias=True)
    assert dw.stride() == weight.stride()
    for found, right in zip([y, kernels.convolve_input(dy, weight, padding), dw, db], wanted, strict=True):
        close(found, right)
    assert kernels.convolve_weights(x, dy, weight, padding, bias=False)[1] is None


@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
@pytest.mark.parametrize(("pool", "relu"), [(1, True), (2, True), (2, False), (3, True)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_convolution_pooled(kernels: Kernels, shape: Any, pool: int, relu: bool, with_bias: bool) -> None:
    ins, outs, height, width, size, padding, batch = shape
    torch.manual_seed(1)
    x, weight = torch.randn(2, ins, height, width, batch), torch.randn(2, outs, ins, *size)
    bias = torch.randn(2, outs) if with_bias else None
    y, which = kernels.convolve_pool(x, weight, bias, padding, pool, relu)
    dy = torch.randn_like(y)

    def after(y: Tensor) -> Tensor:
        pooled = F.max_pool2d(y, pool)
        return pooled.relu() if relu else pooled

    wanted = reference(x, weight, bias, dy, padding, after)
    dx, dw, db = kernels.convolve_pool_back(x, weight, dy, which, padding, pool, with_bias, inputs=True)
    for found, right in zip([y, dx, dw], wanted, strict=False):
        close(found, right)
    if with_bias:
        close(db, wanted[3])
    without, again, _ = kernels.convolve_pool_back(x, weight, dy, which, padding, pool, with_bias, inputs=False)
    assert without is None
    assert torch.equal(again, dw)


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 3), (3, 2), (2, 3), (3, 1)])
@pytest.mark.parametrize("relu", [False, True])
def test_max_pool(kernels: Kernels, size: int, stride: int, relu: bool) -> None:
    torch.manual_seed(2)
    x = torch.randn(5, 8, 11, 48)
    y, which = kernels.max_pool(x, size, stride, relu)
    dy = torch.randn_like(y)
    leaf = batch_first(x).requires_grad_()
    wanted = F.max_pool2d(leaf, size, stride)
    wanted = wanted.relu() if relu else wanted
    wanted.backward(batch_first(dy))
    close(y, batch_last(wanted.detach()))
    assert leaf.grad is not None
    close(kernels.max_pool_input(dy, which, tuple(x.shape), size, stride), batch_last(leaf.grad))


@pytest.mark.parametrize("relu", [False, True])
def test_a_value_that_is_no_number_stays_one(kernels: Kernels, relu: bool) -> None:
    x = torch.zeros(1, 4, 4, 16)
    x[0, 0, 1, 3] = x[0, 2, 2, 5] = float("nan")
    y, _ = kernels.max_pool(x, 2, 2, relu)
    assert y.isnan().nonzero().tolist() == [[0, 0, 0, 3], [0, 1, 1, 5]]


@pytest.mark.parametrize("rows", [64, 50, 7])
@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm(kernels: Kernels, rows: int, relu: bool) -> None:
    torch.manual_seed(3)
    x = 3 * torch.randn(5, 6, 7, 64) + torch.arange(5).view(5, 1, 1, 1)
    x[..., rows:] = 0
    layer = SimpleNamespace(
        weight=torch.rand(5) + 0.5, bias=torch.randn(5), running_mean=torch.randn(5), running_var=torch.rand(5),
        momentum=0.1, eps=1e-5,
    )  # fmt: skip
    leaves = [batch_first(x[..., :rows]), layer.weight.double(), layer.bias.double()]
    leaf, scale, shift = (tensor.requires_grad_() for tensor in leaves)
    running = [layer.running_mean.double(), layer.running_var.double()]
    wanted = F.batch_norm(leaf, *running, scale, shift, True, 0.1, 1e-5)
    wanted = wanted.relu() if relu else wanted
    y, mean, inverse = kernels.batch_norm(x, layer, rows, relu)
    close(y[..., :rows], batch_last(wanted.detach()))
    close(layer.running_mean, running[0])
    close(layer.running_var, running[1])
    dy = torch.randn_like(x)
    dy[..., rows:] = 0
    wanted.backward(batch_first(dy[..., :rows]))
    dx, d_scale, d_shift = kernels.batch_norm_back(x, dy, layer.weight, layer.bias, mean, inverse, rows, relu)
    assert leaf.grad is not None
    close(dx[..., :rows], batch_last(leaf.grad))
    assert not dx[..., rows:].any()
    close(d_scale, scale.grad)
    close(d_shift, shift.grad)


def test_batch_to_last(kernels: Kernels) -> None:
    images = torch.randn(3, 21, 2, 5, 7)
    moved = kernels.batch_to_last(images, 32)
    assert torch.equal(moved[..., :21], images.movedim(1, -1))
    assert not moved[..., 21:].any()


def test_gather(kernels: Kernels) -> None:
    images = torch.randint(0, 256, (40, 3, 4, 5), dtype=torch.uint8)
    rows = torch.randint(0, 40, (2, 21))
    mean, std = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([60.0, 70.0, 80.0])
    found = kernels.gather(images, rows, mean, std, 32)
    wanted = (images[rows].float() - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert torch.equal(found[..., :21], wanted.movedim(1, -1))
    assert not found[..., 21:].any()
    with pytest.raises(AssertionError):
        kernels.gather(images[:, :, ::2], rows, mean, std, 32)


def test_the_threads_change_no_bit() -> None:
    kernels, before = load(), torch.get_num_threads()
    assert kernels is not None
    torch.manual_seed(4)
    x, weight, bias = torch.randn(3, 4, 12, 12, 64), torch.randn(3, 10, 4, 3, 3), torch.randn(3, 10)
    found: list[list[Tensor]] = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y, which = kernels.convolve_pool(x, weight, bias, (1, 1), 2, True)
            back = kernels.convolve_pool_back(x, weight, y, which, (1, 1), 2, True, inputs=True)
            dy = kernels.convolve(x, weight, bias, (1, 1))
            found.append([y, which, dy, *kernels.convolve_weights(x, dy, weight, (1, 1), True), *back])  # type: ignore[list-item]
    finally:
        torch.set_num_threads(before)
    for one, other in itertools.pairwise(found):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
