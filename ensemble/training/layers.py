"""Layers of K networks side by side in one tensor.

Activations are [B, K*C, H, W] or [B, K*F]: member k owns channels k*C to (k+1)*C. Because flattening keeps that order,
any network built from these layers runs unchanged for K members. A layer whose input is not yet per member (the shared
images at evaluation) computes all members from the one input, which is a single wide layer and quicker still.

On a CPU, chains of narrow layers are trained another way, see `batch_last`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _stacked(tensors: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([tensor.detach() for tensor in tensors]))


# How PyTorch computes K convolutions: as one grouped one, in either memory layout; one after the other; or as a batched
# product of matrices. `training.ways` finds the quickest; the first is the usual one.
CONVOLUTION_WAYS = ("channels_last", "contiguous", "apart", "matmul")


class StackedConv2d(nn.Module):
    """K convolutions. weight: [K*O, I/groups, kh, kw], bias: [K*O] or None; way: one of CONVOLUTION_WAYS."""

    def __init__(self, layers: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        first = layers[0]
        self.num_members = len(layers)
        self.in_channels, self.groups = first.in_channels, first.groups
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation
        self.way = CONVOLUTION_WAYS[0]
        weight = _stacked([layer.weight for layer in layers]).flatten(0, 1)
        self.weight = nn.Parameter(weight.detach().contiguous(memory_format=torch.channels_last))
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(_stacked(biases).detach().flatten()) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        side_by_side = x.shape[1] // self.in_channels
        groups = self.groups * self.num_members
        if side_by_side == 1 and self.groups > 1:
            x = x.repeat(1, self.num_members, 1, 1)
        elif side_by_side == 1:
            groups = 1
        if self.way == "apart" and groups > self.groups:
            return self._apart(x)
        if self.way == "matmul" and groups == self.num_members:
            return self._by_products(x)
        weight: Tensor = self.weight
        if self.way == "contiguous":
            x, weight = x.contiguous(), weight.contiguous()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, groups)

    def possible_ways(self) -> tuple[str, ...]:
        """Those that this layer has, the usual one first."""
        some = CONVOLUTION_WAYS if self.num_members > 1 else tuple(w for w in CONVOLUTION_WAYS if w != "apart")
        return (
            some if self.groups == 1 and not isinstance(self.padding, str) else tuple(w for w in some if w != "matmul")
        )

    def _apart(self, x: Tensor) -> Tensor:
        biases = [None] * self.num_members if self.bias is None else self.bias.chunk(self.num_members)
        parts = zip(x.chunk(self.num_members, 1), self.weight.chunk(self.num_members), biases, strict=True)
        each = [
            F.conv2d(own, weight, bias, self.stride, self.padding, self.dilation, self.groups)
            for own, weight, bias in parts
        ]
        return torch.cat(each, 1)

    def _by_products(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[2:]
        assert not isinstance(self.padding, str)
        height, width = (
            (x.shape[2 + axis] + 2 * self.padding[axis] - self.dilation[axis] * (kernel[axis] - 1) - 1)
            // self.stride[axis]
            + 1
            for axis in (0, 1)
        )
        windows = F.unfold(x, (kernel[0], kernel[1]), self.dilation, self.padding, self.stride)
        x_KIN = torch.unflatten(windows, 1, (self.num_members, -1)).permute(1, 2, 0, 3).flatten(2)
        y_KON = torch.bmm(torch.unflatten(self.weight, 0, (self.num_members, -1)).flatten(2), x_KIN)
        if self.bias is not None:
            y_KON = y_KON + self.bias.view(self.num_members, -1, 1)
        return torch.unflatten(y_KON, 2, (len(x), height, width)).permute(2, 0, 1, 3, 4).flatten(1, 2)

    def member_state(self, member: int) -> dict[str, Tensor]:
        """The tensors of one member, under the names of nn.Conv2d."""
        state = {"weight": torch.unflatten(self.weight, 0, (self.num_members, -1))[member]}
        if self.bias is not None:
            state["bias"] = self.bias.view(self.num_members, -1)[member]
        return state


class StackedLinear(nn.Module):
    """K linear layers. weight: [K, O, I], bias: [K, O] or None."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.num_members, self.in_features = len(layers), layers[0].in_features
        self.weight = _stacked([layer.weight for layer in layers])
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = _stacked(biases) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == self.in_features:  # shared input (or K = 1): one wide layer
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
    """K batch normalisations as one over K*C channels. Every channel has its own statistics, so members never mix."""

    def __init__(self, layers: Sequence[nn.BatchNorm1d | nn.BatchNorm2d]) -> None:
        super().__init__()
        first = layers[0]
        self.num_members = len(layers)
        self.momentum, self.eps = first.momentum, first.eps
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.cat([_buffer(layer.running_mean) for layer in layers]))
        self.register_buffer("running_var", torch.cat([_buffer(layer.running_var) for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        momentum = 0.1 if self.momentum is None else self.momentum
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, momentum, self.eps
        )

    def member_state(self, member: int) -> dict[str, Tensor]:
        """The tensors of one member, under the names of nn.BatchNorm2d."""
        names = ("weight", "bias", "running_mean", "running_var")
        return {name: getattr(self, name).view(self.num_members, -1)[member] for name in names}


class StackedDropout(nn.Module):
    """Dropout in which every member draws its own mask from its own generator."""

    def __init__(self, layers: Sequence[nn.Dropout]) -> None:
        super().__init__()
        self.num_members, self.p = len(layers), layers[0].p
        self.generators: list[torch.Generator] = []  # one per member, set by `seed_dropout` at the start of an epoch

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        x_BK: Tensor = torch.unflatten(x, 1, (self.num_members, -1))
        return (x_BK * self._masks(x_BK.transpose(0, 1)).transpose(0, 1)).flatten(1, 2)

    def batch_last(self, x: Tensor, rows: int) -> Tensor:
        """The same of the first `rows` images of x [K, ..., B], with the same masks; the others become zero."""
        if not self.training or self.p == 0:
            return x
        masks = self._masks(x[..., :rows].movedim(-1, 1)).movedim(1, -1)
        return x * F.pad(masks, (0, x.shape[-1] - rows))

    def _masks(self, x_KB: Tensor) -> Tensor:
        """Numbers to multiply [K, B, ...] with: contiguous draws, the same as when the member trains alone."""
        assert len(self.generators) == self.num_members, "dropout was not seeded for this epoch"
        masks = torch.empty(x_KB.shape, dtype=x_KB.dtype, device=x_KB.device)
        for member, generator in enumerate(self.generators):
            masks[member].bernoulli_(1 - self.p, generator=generator)
        return masks.div_(1 - self.p)

    def member_state(self, _member: int) -> dict[str, Tensor]:
        """Dropout has no tensors."""
        return {}


def _buffer(buffer: Tensor | None) -> Tensor:
    assert buffer is not None, "batch norm without running statistics cannot be evaluated"
    return buffer


StackedLayer = StackedConv2d | StackedLinear | StackedBatchNorm | StackedDropout
