"""Our Triton kernels in Triton's interpreter, beside PyTorch: run by test_triton_convolutions in a process of its own.

Triton decides when it is imported whether it interprets, and it would then do so for everything else in the process.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble.training.convolutions import ConvolutionShape
from ensemble.training.layers import StackedConv2d
from ensemble.training.triton_convolutions import by_triton, misfit, obstacle

# Members, channels, maps, height, width, kernel, padding, images.
SIZES = {
    "LeNet-5's first layer": (2, 1, 6, 6, 6, (5, 5), (2, 2), 2),
    "LeNet-5's second layer": (1, 6, 16, 6, 6, (5, 5), (0, 0), 2),
    "one member, odd sides": (1, 3, 4, 5, 9, (3, 3), (1, 1), 3),
    "three members, kernel not square": (3, 2, 3, 4, 7, (1, 2), (0, 1), 3),
    "one pixel": (2, 1, 1, 1, 1, (1, 1), (0, 0), 1),
}


def against_pytorch(name: str, pooled: bool) -> None:
    members, channels, maps, height, width, kernel, padding, images = SIZES[name]
    torch.manual_seed(0)
    x = torch.randn(images, members * channels, height, width, requires_grad=True)
    weight = torch.randn(members * maps, channels, *kernel, requires_grad=True)
    bias = None if name == "one pixel" else torch.randn(members * maps, requires_grad=True)
    operands = (x, weight) if bias is None else (x, weight, bias)
    wanted = F.conv2d(x, weight, bias, padding=padding, groups=members)
    wanted = F.max_pool2d(wanted, 2) if pooled else wanted
    found = by_triton(x, weight, bias, ConvolutionShape(members, padding=padding), pooled)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    dy = torch.randn_like(wanted)
    for one, other in zip(*(torch.autograd.grad(y, operands, dy) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def half_precision() -> None:
    """Sums are float32, what goes out has the dtype of what came in. (The interpreter cannot multiply bfloat16 matrices.)"""
    torch.manual_seed(0)
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 1e-2)):
        x, weight = torch.randn(2, 4, 5, 6).to(dtype).requires_grad_(), torch.randn(6, 2, 3, 3).to(dtype)
        weight.requires_grad_(dtype == torch.float16)
        y = by_triton(x, weight, None, ConvolutionShape(2, padding=(1, 1)))
        operands = [tensor for tensor in (x, weight) if tensor.requires_grad]
        dy = torch.randn_like(y)
        doubles = [tensor.detach().double().requires_grad_(tensor.requires_grad) for tensor in (x, weight)]
        wanted = F.conv2d(*doubles, padding=1, groups=2)
        theirs = torch.autograd.grad(wanted, [t for t in doubles if t.requires_grad], dy.double())
        for one, other in zip((y, *torch.autograd.grad(y, operands, dy)), (wanted, *theirs), strict=True):
            assert one.dtype == dtype
            assert (one.double() - other).norm() < tolerance * other.norm(), (dtype, one, other)


def not_a_number() -> None:
    """One pixel that is not a number makes its pool so, wherever it lies in it."""
    x, weight = torch.zeros(4, 1, 2, 2), torch.ones(1, 1, 1, 1)
    for place in range(4):
        x[place].view(-1)[place] = float("nan")
    assert by_triton(x, weight, None, ConvolutionShape(1), pooled=True).isnan().all()


def as_a_layer() -> None:
    """A layer takes them, and where a batch does not fit it takes PyTorch's instead."""
    layer = StackedConv2d([nn.Conv2d(2, 3, 3, padding=1) for _ in range(2)])
    usual = copy.deepcopy(layer)
    assert "triton" in layer.possible_ways()
    layer.way = "triton"
    own, shared = torch.randn(2, 4, 5, 5), torch.randn(2, 2, 5, 5)
    for x, pooling in ((own, None), (shared, None), (own, nn.MaxPool2d(2)), (own, nn.MaxPool2d(3, 2))):
        layer.pooling = pooling
        y, wanted = layer(x), usual(x) if pooling is None else pooling(usual(x))
        torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-5)
        for one, other in zip(*(_gradients(model, y) for model, y in ((layer, y), (usual, wanted))), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    layer.pooling, none = None, torch.zeros(0, 4, 5, 5)
    assert layer(none).shape == usual(none).shape
    double = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    assert "float64" in (misfit(double, layer.weight, ConvolutionShape(2, padding=(1, 1))) or "")
    torch.testing.assert_close(layer.double()(double), usual.double()(double))


def _gradients(layer: StackedConv2d, y: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y.square().sum(), tuple(layer.parameters()))


if __name__ == "__main__":
    assert obstacle("cpu") is None, obstacle("cpu")
    torch.set_num_threads(1)
    for size in SIZES:
        against_pytorch(size, pooled=False)
        if size != "one pixel":
            against_pytorch(size, pooled=True)
        print(size, flush=True)
    not_a_number()
    half_precision()
    as_a_layer()
    print("all equal")
