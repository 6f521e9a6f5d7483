"""A stack of narrow convolutional networks trained with the batch as the innermost axis, by kernels of our own.

Activations are [K, C, H, W, B] or [K, F, B]: a pixel is a run of images, so a CPU's vector units are full however few maps
a network has (PyTorch's kernels are full with 16 and more). The layers and their tensors are those of the stack; only the way
through them differs, in the last bits of the numbers. B is filled up to a multiple of 16 with empty images, whose
gradients are zero; layers that look at a batch as a whole do not see them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ensemble.native.kernels import LANES, WIDTHS, Kernels
from ensemble.training.layers import StackedBatchNorm, StackedConv2d, StackedDropout, StackedLinear

# Up to so many maps these kernels are the quicker ones, for one network and for several (docs/log.md).
WIDEST, WIDEST_STACKED = 64, 128
_ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Identity)


def suits(network: nn.Module) -> bool:
    """True for a chain of layers, narrow convolutions among them, that these kernels know and train more quickly."""
    layers = list(_chain(network))
    convolutions = [layer for layer in layers if isinstance(layer, StackedConv2d)]
    narrow = [
        len(layer.weight) <= layer.num_members * (WIDEST if layer.num_members == 1 else WIDEST_STACKED)
        for layer in convolutions
    ]
    return bool(narrow) and all(narrow) and all(map(_known, layers))


def worthwhile(rows: int) -> bool:
    """True where filling a batch up costs at most a third."""
    return 0 < filled(rows) <= rows * 4 / 3


def turned(images: Tensor, num_members: int, kernels: Kernels) -> Tensor:
    """Images [B, C, H, W] that the members share, or [K, B, C, H, W] of their own, as [K, C, H, W, B]."""
    own = images if images.dim() == 5 else images.unsqueeze(0)
    x = kernels.batch_to_last(own.contiguous(), filled(own.shape[1]))
    return x.expand(num_members, *x.shape[1:])


def forward(network: nn.Module, x: Tensor, rows: int, kernels: Kernels) -> Tensor:
    """Logits [rows, K, classes] of the first `rows` images of x [K, C, H, W, B]."""
    for run in _runs(list(_chain(network))):
        x = _through(run, x, rows, kernels)
    return x[..., :rows].permute(2, 0, 1)


def filled(rows: int) -> int:
    """The length of the batch axis for so many images."""
    return -(-rows // LANES) * LANES


def _chain(network: nn.Module) -> Iterator[nn.Module]:
    """The layers in the order in which they are passed; a network that is no chain is a layer nobody knows."""
    if isinstance(network, nn.Sequential):
        for layer in network:
            yield from _chain(layer)
    else:
        yield network


def _runs(layers: Sequence[nn.Module]) -> Iterator[Sequence[nn.Module]]:
    """The layers, with those in one run that one kernel computes.

    These are a convolution and the max-pooling of windows side by side, and ReLU after those and batch norm.
    """
    while layers:
        count, first = 1, layers[0]
        convolution = isinstance(first, StackedConv2d) and first.weight.shape[2:] != (1, 1)
        if convolution and _apart(layers[1:2]):
            count = 2
        if convolution or isinstance(first, nn.MaxPool2d | StackedBatchNorm):
            count += isinstance(next(iter(layers[count:]), None), nn.ReLU)
        yield layers[:count]
        layers = layers[count:]


def _apart(layers: Sequence[nn.Module]) -> int:
    """The size of a max-pooling's windows where these lie side by side; 0 for anything else."""
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d) and isinstance(layer.kernel_size, int) and layer.kernel_size == layer.stride:
            return layer.kernel_size
    return 0


def _known(layer: nn.Module) -> bool:
    match layer:
        case StackedConv2d():
            rows, columns = layer.weight.shape[2:]
            padding = layer.padding
            plain = layer.groups == 1 and layer.stride == (1, 1) and layer.dilation == (1, 1)
            within = not isinstance(padding, str) and padding[0] < rows and padding[1] < columns
            return plain and within and columns in WIDTHS
        case nn.MaxPool2d():
            square = isinstance(layer.kernel_size, int) and isinstance(layer.stride, int)
            return square and layer.padding == 0 and layer.dilation == 1 and not layer.ceil_mode
        case nn.AvgPool2d():
            apart = isinstance(layer.kernel_size, int) and layer.kernel_size == layer.stride
            return apart and layer.padding == 0 and not layer.ceil_mode
        case nn.Flatten():
            return layer.start_dim == 1
        case StackedLinear() | StackedBatchNorm() | StackedDropout():
            return True
        case _:
            return isinstance(layer, _ELEMENTWISE)


def _through(run: Sequence[nn.Module], x: Tensor, rows: int, kernels: Kernels) -> Tensor:
    layer, relu = run[0], isinstance(run[-1], nn.ReLU)
    match layer:
        case StackedConv2d():
            size = _apart(run[1:2]) or 1
            return _convolved(layer, x, size, relu, kernels)
        case StackedLinear():
            return _product(layer.weight, x, layer.bias)
        case nn.MaxPool2d():
            pooled: Tensor = _MaxPool.apply(x.flatten(0, 1), layer.kernel_size, layer.stride, relu, kernels)
            return torch.unflatten(pooled, 0, x.shape[:2])
        case nn.AvgPool2d():
            assert isinstance(layer.kernel_size, int)
            return _averaged(x, layer.kernel_size)
        case nn.Flatten():
            return x.flatten(1, -2)
        case StackedBatchNorm():
            return _normalized(layer, x, rows, relu, kernels)
        case StackedDropout():
            return layer.batch_last(x, rows)
        case _:
            passed: Tensor = layer(x)
            return passed


def _convolved(layer: StackedConv2d, x: Tensor, pool: int, relu: bool, kernels: Kernels) -> Tensor:
    """The convolution of x, of that the maxima of windows of pool x pool, and where `relu` the positive part of those."""
    members = layer.num_members
    weight = torch.unflatten(layer.weight, 0, (members, -1))
    bias = None if layer.bias is None else layer.bias.view(members, -1)
    if weight.shape[3:] == (1, 1):  # a matrix product, at which PyTorch is good
        return _product(weight.flatten(2), x.flatten(2), bias).view(*weight.shape[:2], *x.shape[2:])
    y: Tensor
    if pool > 1 or relu:
        y = _PooledConvolution.apply(x, weight, bias, layer.padding, pool, relu, kernels)
    else:
        y = _Convolution.apply(x, weight, bias, layer.padding, kernels)
    return y


def _product(weight_KOI: Tensor, x_KIB: Tensor, bias_KO: Tensor | None) -> Tensor:
    if bias_KO is None:
        return torch.bmm(weight_KOI, x_KIB)
    return torch.baddbmm(bias_KO.unsqueeze(2), weight_KOI, x_KIB)


def _averaged(x: Tensor, size: int) -> Tensor:
    """Means of windows that lie side by side; what is left over at the end is left out."""
    members, channels, height, width, batch = x.shape
    rows, columns = height // size, width // size
    whole = x[:, :, : rows * size, : columns * size]
    return whole.reshape(members, channels, rows, size, columns, size, batch).mean((3, 5))


def _normalized(layer: StackedBatchNorm, x: Tensor, rows: int, relu: bool, kernels: Kernels) -> Tensor:
    if layer.training:
        normal: Tensor = _BatchNorm.apply(x.flatten(0, 1), layer.weight, layer.bias, layer, rows, relu, kernels)
        return torch.unflatten(normal, 0, x.shape[:2])
    scale = layer.weight * (layer.running_var + layer.eps).rsqrt()
    shift = layer.bias - layer.running_mean * scale
    per_channel = (*x.shape[:2], *[1] * (x.dim() - 2))
    y = torch.addcmul(shift.view(per_channel), x, scale.view(per_channel))
    return y.relu_() if relu else y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], kernels: Kernels
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.kernels, ctx.has_bias = padding, kernels, bias is not None
        return kernels.convolve(x, weight, bias, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous()
        dw, db = ctx.kernels.convolve_weights(x, dy, weight, ctx.padding, ctx.has_bias)
        dx = ctx.kernels.convolve_input(dy, weight, ctx.padding) if ctx.needs_input_grad[0] else None
        return dx, dw, db, None, None


class _PooledConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        padding: tuple[int, int],
        size: int,
        relu: bool,
        kernels: Kernels,
    ) -> Tensor:
        y, which = kernels.convolve_pool(x, weight, bias, padding, size, relu)
        ctx.save_for_backward(x, weight, which)
        ctx.padding, ctx.size, ctx.kernels, ctx.has_bias = padding, size, kernels, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, which = ctx.saved_tensors
        inputs = ctx.needs_input_grad[0]
        gradients = ctx.kernels.convolve_pool_back(
            x, weight, dy.contiguous(), which, ctx.padding, ctx.size, ctx.has_bias, inputs
        )
        return *gradients, None, None, None, None


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        layer: StackedBatchNorm,
        rows: int,
        relu: bool,
        kernels: Kernels,
    ) -> Tensor:
        y, mean, inverse = kernels.batch_norm(x, layer, rows, relu)
        ctx.save_for_backward(x, scale, shift, mean, inverse)
        ctx.rows, ctx.relu, ctx.kernels = rows, relu, kernels
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, *facts = ctx.saved_tensors
        gradients = ctx.kernels.batch_norm_back(x, dy.contiguous(), *facts, ctx.rows, ctx.relu)
        return *gradients, None, None, None, None


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, stride: int, relu: bool, kernels: Kernels) -> Tensor:
        y, which = kernels.max_pool(x, size, stride, relu)
        ctx.save_for_backward(which)
        ctx.shape, ctx.window, ctx.kernels = x.shape, (size, stride), kernels
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (which,) = ctx.saved_tensors
        dx = ctx.kernels.max_pool_input(dy.contiguous(), which, tuple(ctx.shape), *ctx.window)
        return dx, None, None, None, None
