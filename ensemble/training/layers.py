"""Layers of K networks side by side in one tensor.

Activations are [B, K*C, H, W] or [B, K*F]: member k owns channels k*C to (k+1)*C. Because flattening keeps that order,
any network built from these layers runs unchanged for K members. A layer whose input is not yet per member (the shared
images at evaluation) computes all members from the one input, which is a single wide layer and quicker still.

On a CPU, chains of narrow layers are trained another way, see `batch_last`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble.data.counter_random import random_bits
from ensemble.models.stochastic_depth import StochasticDepth
from ensemble.native.kernels import Kernels
from ensemble.training import triton_convolutions
from ensemble.training.convolutions import ConvolutionShape, by_rows, by_windows
from ensemble.training.plain import is_chain, oddity


def channels_last(tensor: Tensor) -> Tensor:
    """A tensor [B, C, H, W] with channels last in memory and in its strides.

    An axis of length 1 may have any stride, and kernels are chosen by strides: left as they come, one grey image could
    take another kernel, with other last bits, depending on where its memory came from. The gradient of a weight with one
    channel would have other strides than the weight, of which data-parallel training warns at every start.
    """
    laid_out = tensor.contiguous(memory_format=torch.channels_last)
    if torch.compiler.is_exporting():
        # The strides of an exported network are its runtime's business, and ONNX has no strides: its exporter writes
        # as_strided as a gather over contiguous memory, which is another image as soon as there are two channels.
        return laid_out
    _, channels, height, width = laid_out.shape
    return laid_out.as_strided(laid_out.shape, (height * width * channels, 1, width * channels, channels))


def _stacked(tensors: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([tensor.detach() for tensor in tensors]))


# How K convolutions are computed: as one grouped convolution of PyTorch's, in either memory layout; one after the other;
# as batched matrix products (see `convolutions`); or by kernels of our own (see `triton_convolutions`). `training.ways`
# finds the fastest; the first is the default.
CONVOLUTION_WAYS = ("channels_last", "contiguous", "apart", "windows", "rows", "triton")
_ROWS_UP_TO = 32  # channels; beyond, the banded matrices of "rows" are mostly arithmetic with zeros
_PRODUCTS = {"windows": by_windows, "rows": by_rows}


class StackedConv2d(nn.Module):
    """K convolutions. weight: [K*O, I/groups, kh, kw], bias: [K*O] or None; way: one of CONVOLUTION_WAYS.

    pooling: max-pooling that follows and that this layer does itself, see `pool_before_bias`.
    """

    def __init__(self, layers: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        first = layers[0]
        self.num_members = len(layers)
        self.in_channels, self.groups = first.in_channels, first.groups
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation
        self.way = CONVOLUTION_WAYS[0]
        self.pooling: nn.MaxPool2d | None = None
        weight = _stacked([layer.weight for layer in layers]).flatten(0, 1)
        self.weight = nn.Parameter(channels_last(weight.detach()))
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(_stacked(biases).detach().flatten()) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        side_by_side = x.shape[1] // self.in_channels
        groups = self.groups * self.num_members
        if side_by_side == 1 and self.groups > 1:
            x = x.repeat(1, self.num_members, 1, 1)
        elif side_by_side == 1:
            groups = 1
        if self.way == "triton" and groups == self.num_members:
            shape = self._shape()
            if triton_convolutions.misfit(x, self.weight, shape) is None:
                return self._by_triton(x, shape)
        if self.pooling is None or self.bias is None:
            return self._pooled(self._convolved(x, groups, self.bias))
        y = self._pooled(self._convolved(x, groups, None))
        return y + self.bias.to(y.dtype).view(-1, 1, 1)

    def _convolved(self, x: Tensor, groups: int, bias: Tensor | None) -> Tensor:
        if self.way == "apart" and groups > self.groups:
            return self._apart(x, bias)
        if self.way in _PRODUCTS and groups == self.num_members:
            return _PRODUCTS[self.way](x, self.weight, bias, self._shape())
        weight: Tensor = self.weight
        if self.way in ("contiguous", "triton"):
            x, weight = x.contiguous(), weight.contiguous()
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)

    def _by_triton(self, x: Tensor, shape: ConvolutionShape) -> Tensor:
        inside = self.pooling is not None and _halves(self.pooling) and min(shape.output_size(x, self.weight)) >= 2
        y = triton_convolutions.by_triton(x, self.weight, self.bias, shape, inside)
        return y if inside else self._pooled(y)

    def _pooled(self, y: Tensor) -> Tensor:
        return y if self.pooling is None else self.pooling(y)

    def possible_ways(self) -> tuple[str, ...]:
        """Those that this layer can take here, the default first."""
        return tuple(way for way in CONVOLUTION_WAYS if self.reason_against(way) is None)

    def reason_against(self, way: str) -> str | None:
        """Why this layer cannot be computed in one of CONVOLUTION_WAYS; None where it can."""
        if way == "apart" and self.num_members == 1:
            return "it has one member"
        if way in (*_PRODUCTS, "triton") and not self._plain():
            return "it has groups of channels, or padding by name"
        if way == "rows" and self.stride[0] != 1:
            return "it has a vertical stride"
        if way == "rows" and max(self.in_channels, len(self.weight) // self.num_members) > _ROWS_UP_TO:
            return f"it has more than {_ROWS_UP_TO} channels"
        if way == "triton":
            unsuited = triton_convolutions.unsuited(self.weight, self._shape())
            return unsuited or triton_convolutions.obstacle(self.weight.device.type)
        return None

    def _plain(self) -> bool:
        """True where each member is one convolution over all its channels, with padding in numbers."""
        return self.groups == 1 and not isinstance(self.padding, str)

    def _shape(self) -> ConvolutionShape:
        assert not isinstance(self.padding, str)
        stride, padding, dilation = ((pair[0], pair[1]) for pair in (self.stride, self.padding, self.dilation))
        return ConvolutionShape(self.num_members, stride, padding, dilation)

    def _apart(self, x: Tensor, bias: Tensor | None) -> Tensor:
        biases = [None] * self.num_members if bias is None else bias.chunk(self.num_members)
        parts = zip(x.chunk(self.num_members, 1), self.weight.chunk(self.num_members), biases, strict=True)
        each = [
            F.conv2d(own, weight, own_bias, self.stride, self.padding, self.dilation, self.groups)
            for own, weight, own_bias in parts
        ]
        return torch.cat(each, 1)

    def member_state(self, member: int) -> dict[str, Tensor]:
        """The tensors of one member, under the names of nn.Conv2d."""
        state = {"weight": torch.unflatten(self.weight, 0, (self.num_members, -1))[member]}
        if self.bias is not None:
            state["bias"] = self.bias.view(self.num_members, -1)[member]
        return state


def pool_before_bias(network: nn.Module) -> None:
    """Let convolutions with a bias do the max-pooling behind them, and add the bias only to what is left of the pixels.

    The largest of some numbers plus a bias is the largest of the sums, to the last bit, so no activation changes; of the
    pixels that are equal only after rounding another may get the gradient. Calling it again changes nothing. Only where the
    whole network is a chain: what lies between two layers may be used elsewhere in any other.
    """
    if not (isinstance(network, nn.Sequential) and is_chain(network)):
        return
    for place, (layer, behind) in enumerate(pairwise([*network, None])):
        if isinstance(layer, nn.Sequential):
            pool_before_bias(layer)
        elif (
            isinstance(layer, StackedConv2d)
            and layer.bias is not None
            and type(behind) is nn.MaxPool2d
            and not oddity(behind)
        ):
            layer.pooling, network[place + 1] = behind, nn.Identity()


def _halves(pooling: nn.MaxPool2d) -> bool:
    """Whether it takes the largest of every 2x2 pixels and leaves out a last odd row or column."""
    found = (pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation)
    pairs = [(size, size) if isinstance(size, int) else tuple(size) for size in found]
    return pairs == [(2, 2), (2, 2), (0, 0), (1, 1)] and not pooling.ceil_mode


class StackedLinear(nn.Module):
    """K linear layers. weight: [K, O, I], bias: [K, O] or None."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.num_members, self.in_features = len(layers), layers[0].in_features
        self.weight = _stacked([layer.weight for layer in layers])
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = _stacked(biases) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        if self.num_members == 1 or x.shape[1] == self.in_features:  # one wide layer, also for a shared input
            bias = None if self.bias is None else self.bias.flatten()
            return F.linear(x, self.weight.flatten(0, 1), bias)
        x_KBI = torch.unflatten(x, 1, (self.num_members, self.in_features)).transpose(0, 1)
        weight_KIO = self.weight.transpose(1, 2)
        if self.bias is None:
            y_KBO = torch.bmm(x_KBI, weight_KIO)
        else:
            y_KBO = torch.baddbmm(self.bias.unsqueeze(1), x_KBI, weight_KIO)
        return y_KBO.transpose(0, 1).flatten(1)

    def member_state(self, member: int) -> dict[str, Tensor]:
        """The tensors of one member, under the names of nn.Linear."""
        state = {"weight": self.weight[member]}
        if self.bias is not None:
            state["bias"] = self.bias[member]
        return state


class StackedBatchNorm(nn.Module):
    """K batch normalisations as one over K*C channels. Every channel has its own statistics, so members never mix.

    synchronized: in training take the statistics of a batch over all processes of the default process group, each of
    which holds a part of it.
    """

    def __init__(self, layers: Sequence[nn.BatchNorm1d | nn.BatchNorm2d]) -> None:
        super().__init__()
        first = layers[0]
        self.num_members = len(layers)
        self.momentum, self.eps = first.momentum, first.eps
        self.synchronized = False
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.cat([_buffer(layer.running_mean) for layer in layers]))
        self.register_buffer("running_var", torch.cat([_buffer(layer.running_var) for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        momentum = 0.1 if self.momentum is None else self.momentum
        if self.training and self.synchronized:
            return self._over_ranks(x, momentum)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, momentum, self.eps
        )

    def _over_ranks(self, x: Tensor, momentum: float) -> Tensor:
        """Batch norm of this rank's part of a batch, in float32; mean and variance are those of the whole batch.

        In two passes, since E[x^2] - E[x]^2 would lose digits. A rank may hold no row at all.
        """
        values, axes = x.float(), [0, *range(2, x.dim())]
        shape = (1, -1, *[1] * (x.dim() - 2))
        rows = torch.full_like(self.running_mean[:1], x.numel() // x.shape[1])
        total = sum_over_ranks(torch.cat([values.sum(axes), rows]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = values - mean.view(shape)
        variance = sum_over_ranks(centred.square().sum(axes)) / count
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))  # as torch keeps it; not finite for a single value, as in torch
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(unbiased.detach(), momentum)
        scaled = centred * (self.weight / (variance + self.eps).sqrt()).view(shape) + self.bias.view(shape)
        return scaled.to(x.dtype)

    def member_state(self, member: int) -> dict[str, Tensor]:
        """The tensors of one member, under the names of nn.BatchNorm2d."""
        names = ("weight", "bias", "running_mean", "running_var")
        return {name: getattr(self, name).view(self.num_members, -1)[member] for name in names}


BATCH_NORMS = (
    StackedBatchNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
)  # also of networks without K-fold layers


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all processes of the default process group; gradients are summed in the same way."""
    summed: Tensor = _SumOverRanks.apply(tensor)
    return summed


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        torch.distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        torch.distributed.all_reduce(summed)
        return summed


@dataclass(frozen=True)
class BatchPlace:
    """Where a batch lies in its epoch.

    first: position of its first image, an int or, inside a CUDA graph, an int64 tensor of one element on the device.
    rows: of the whole batch. part: which of them this rank has. kernels: compute random numbers, where they are loaded.
    """

    first: int | Tensor
    rows: int
    part: slice = field(default_factory=lambda: slice(None))
    kernels: Kernels | None = None


class StackedDraws(nn.Module):
    """What leaves things out at random in training, every member by draws of its own: dropout and stochastic depth.

    A draw is a function of the layer's key for the member and the epoch, and of the image's position in the epoch: the
    same for a member alone and in a stack, on one rank and on several, after a resume and inside a CUDA graph. Every
    number takes 16 random bits, so p is rounded to a multiple of 2^-16.
    """

    def __init__(self, layers: Sequence[nn.Dropout | StochasticDepth]) -> None:
        super().__init__()
        self.num_members = len(layers)
        self.leave_out(layers[0].p)
        self.keys_K: Tensor | None = None  # set by Stack.seed_dropout
        self.place: BatchPlace | None = None  # set by Stack.place_dropout
        self.calls = 0  # of this batch: a layer that a network calls twice draws twice

    def leave_out(self, p: float) -> None:
        """Set which share is left out."""
        self.p, self._kept = p, round((1 - p) * 2**16)  # of 2^16

    def factors(self, x_KB: Tensor) -> Tensor:
        """Numbers to multiply [K, B, ...] with: 0, or 1 over the share that is kept."""
        place = self.place
        assert place is not None, "dropout was not told where the batch lies"
        assert self.keys_K is not None, "dropout was not seeded for this epoch"
        numbers = x_KB[0, 0].numel() if len(x_KB[0]) else 0
        keys_K = self.keys_K
        if self.calls:
            call_1 = torch.full((1,), -self.calls, dtype=torch.int64, device=x_KB.device)
            keys_K = random_bits(keys_K, call_1, 1)[0, :, 0]
        self.calls += 1
        words = -(-numbers // 4)  # of 64 bits, for each image
        start_1 = torch.zeros(1, dtype=torch.int64, device=x_KB.device) + place.first * words
        draw_bits = random_bits if place.kernels is None else place.kernels.random_bits
        bits_1KN = draw_bits(keys_K, start_1, place.rows * words)
        draws_KBn = bits_1KN.view(torch.int16).view(self.num_members, place.rows, 4 * words)
        kept = draws_KBn[:, place.part, :numbers] <= self._kept - 2**15 - 1
        return kept.to(x_KB.dtype).mul_(2**16 / self._kept).reshape(x_KB.shape)

    def member_state(self, _member: int) -> dict[str, Tensor]:
        """It has no tensors."""
        return {}


class StackedDropout(StackedDraws):
    """Dropout: a number for every value."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        x_BK: Tensor = torch.unflatten(x, 1, (self.num_members, -1))
        masked: Tensor = x_BK * self.factors(x_BK.transpose(0, 1)).transpose(0, 1)
        return masked.flatten(1, 2)

    def batch_last(self, x: Tensor, rows: int) -> Tensor:
        """The same of the first `rows` images of x [K, ..., B], with the same masks; the others become zero."""
        if not self.training or self.p == 0:
            return x
        masks = self.factors(x[..., :rows].movedim(-1, 1)).movedim(1, -1)
        return x * F.pad(masks, (0, x.shape[-1] - rows))


class StackedStochasticDepth(StackedDraws):
    """Stochastic depth: a number for every image."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        x_BK: Tensor = torch.unflatten(x, 1, (self.num_members, -1))
        first_BK1 = x_BK.flatten(2)[..., :1]  # a place for one number of each image
        factors_BK1 = self.factors(first_BK1.transpose(0, 1)).transpose(0, 1)
        scaled: Tensor = x_BK * factors_BK1.view(*factors_BK1.shape, *[1] * (x.dim() - 2))
        return scaled.flatten(1, 2)


def _buffer(buffer: Tensor | None) -> Tensor:
    assert buffer is not None, "batch norm without running statistics cannot be evaluated"
    return buffer


StackedLayer = StackedConv2d | StackedLinear | StackedBatchNorm | StackedDraws
