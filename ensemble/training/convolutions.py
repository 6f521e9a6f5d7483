"""Convolutions of K narrow networks as batched matrix products.

    y = by_windows(x, weight, bias, shape)      # one product; every window of the input is copied out first
    y = by_rows(x, weight, bias, shape)         # one product per row of the kernel; nothing is copied out

Libraries are slow at grouped convolutions with few channels per group: on a GPU tensor cores stay idle, on a CPU vector
units do. Both functions here are the same convolution, with gradients, by matrix products of the whole batch. They keep
the dtype that comes in (or that of autocast) and return channels-last tensors, as `F.conv2d` does here.

`by_windows` copies the windows once, through a sliding view; they take kernel height times kernel width as much memory as
the input. `by_rows` computes a row of the output from one row of the input at a time, by a banded matrix that holds the
kernel's row once per column of the output. That is (padded width / kernel width) times the arithmetic and mostly zeros,
but tensor cores have it to spare, and no windows pass through memory.

Shapes: B images, K members, I and O channels of each, R x C the kernel, H x W the input, h x w the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Pair = tuple[int, int]


@dataclass(frozen=True)
class ConvolutionShape:
    """What all members' convolutions have in common. Padding, stride and dilation as in `F.conv2d`, always pairs."""

    members: int
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def output_size(self, x: Tensor, weight: Tensor) -> Pair:
        """Height and width of the output for x [B, K*I, H, W] and weight [K*O, I, R, C]."""
        height, width = (
            (x.shape[axis] + 2 * self.padding[axis - 2] - self.dilation[axis - 2] * (weight.shape[axis] - 1) - 1)
            // self.stride[axis - 2]
            + 1
            for axis in (2, 3)
        )
        return height, width


def by_windows(x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvolutionShape) -> Tensor:
    """Convolutions as one batched product of all windows with the weights.

    x: [B, K*I, H, W]; weight: [K*O, I, R, C]; bias: [K*O] or None; returns [B, K*O, h, w].
    """
    y: Tensor = _WindowProducts.apply(*as_autocast(x, weight, bias), shape)
    return y


def by_rows(x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvolutionShape) -> Tensor:
    """Convolutions as one batched product per row of the kernel; the vertical stride must be 1.

    Shapes as in `by_windows`. In bfloat16 each of the R partial sums is rounded.
    """
    assert shape.stride[0] == 1, "by_rows has no vertical stride"
    y: Tensor = _RowProducts.apply(*as_autocast(x, weight, bias), shape)
    return y


def as_autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands in the dtype of the surrounding autocast, where there is one."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return x, weight, bias


class _WindowProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvolutionShape) -> Tensor:
        height, width = shape.output_size(x, weight)
        windows_KNT = _windows(x, weight, shape)
        weight_KTO = _as_matrices(weight, shape).transpose(1, 2)
        y = x.new_empty((len(x), height, width, len(weight)))
        y_KNO = y.view(len(x) * height * width, shape.members, weight_KTO.shape[2]).transpose(0, 1)
        if bias is None:
            torch.bmm(windows_KNT, weight_KTO, out=y_KNO)
        else:
            torch.baddbmm(bias.view(shape.members, 1, -1), windows_KNT, weight_KTO, out=y_KNO)
        ctx.save_for_backward(windows_KNT, weight)
        ctx.shape, ctx.input_shape = shape, x.shape
        return y.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        windows_KNT, weight = ctx.saved_tensors
        shape: ConvolutionShape = ctx.shape
        per_member = (windows_KNT.shape[1], shape.members, len(weight) // shape.members)
        dy_KNO = dy.permute(0, 2, 3, 1).reshape(per_member).transpose(0, 1)
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = _sum_of_windows(torch.bmm(dy_KNO, _as_matrices(weight, shape)), ctx.input_shape, weight, shape)
        if ctx.needs_input_grad[1]:
            dweight = _as_weight(torch.bmm(dy_KNO.transpose(1, 2), windows_KNT), weight)
        if ctx.needs_input_grad[2]:
            dbias = dy_KNO.sum(1).flatten()
        return dx, dweight, dbias, None


def _as_matrices(weight: Tensor, shape: ConvolutionShape) -> Tensor:
    """Weights [K*O, I, R, C] as [K, O, R*C*I]; a view where their channels are last in memory."""
    return weight.permute(0, 2, 3, 1).reshape(shape.members, len(weight) // shape.members, -1)


def _as_weight(matrices_KOT: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_as_matrices`: [K, O, R*C*I] as [K*O, I, R, C] with channels last in memory."""
    outputs, channels, height, width = like.shape
    return matrices_KOT.reshape(outputs, height, width, channels).permute(0, 3, 1, 2)


def _windows(x: Tensor, weight: Tensor, shape: ConvolutionShape) -> Tensor:
    """All windows of the input as [K, B*h*w, R*C*I]: one copy of a strided view."""
    down, across = shape.padding
    _, channels, rows, columns = weight.shape
    padded = torch.nn.functional.pad(x, (across, across, down, down)) if down or across else x
    height, width = shape.output_size(x, weight)
    padded_BKIHW = torch.unflatten(padded, 1, (shape.members, channels))
    b, k, i, y, z = padded_BKIHW.stride()
    (step_y, step_z), (apart_y, apart_z) = shape.stride, shape.dilation
    view = padded_BKIHW.as_strided(
        (shape.members, len(x), height, width, rows, columns, channels),
        (k, b, y * step_y, z * step_z, y * apart_y, z * apart_z, i),
    )
    return view.reshape(shape.members, len(x) * height * width, rows * columns * channels)


def _sum_of_windows(windows_KNT: Tensor, input_shape: torch.Size, weight: Tensor, shape: ConvolutionShape) -> Tensor:
    """The transpose of `_windows`: every element of every window added to the pixel it is a copy of."""
    images, _, height, width = input_shape
    _, channels, rows, columns = weight.shape
    out_height, out_width = shape.output_size(windows_KNT.new_empty(input_shape, device="meta"), weight)
    windows = windows_KNT.view(shape.members, images, out_height, out_width, rows, columns, channels)
    windows_BhwKRCI = windows.permute(1, 2, 3, 0, 4, 5, 6)
    dx_BHWKI = windows_KNT.new_zeros((images, height, width, shape.members, channels))
    for r in range(rows):
        pixels_y, outputs_y = _overlap(r, 0, height, out_height, shape)
        for c in range(columns):
            pixels_x, outputs_x = _overlap(c, 1, width, out_width, shape)
            dx_BHWKI[:, pixels_y, pixels_x] += windows_BhwKRCI[:, outputs_y, outputs_x, :, r, c]
    return dx_BHWKI.flatten(3).permute(0, 3, 1, 2)


def _overlap(tap: int, axis: int, size: int, out_size: int, shape: ConvolutionShape) -> tuple[slice, slice]:
    """Which pixels along an axis one tap of the kernel reads, leaving out the padding, and for which outputs."""
    stride, offset = shape.stride[axis], tap * shape.dilation[axis] - shape.padding[axis]
    first = max(0, -(offset // stride))  # the first output whose pixel is not before the image
    end = max(first, min(out_size, (size - 1 - offset) // stride + 1))
    start = first * stride + offset
    return slice(start, start + (end - first - 1) * stride + 1 if end > first else start, stride), slice(first, end)


class _RowProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvolutionShape) -> Tensor:
        height, width = shape.output_size(x, weight)
        padded_KHBV = _padded_rows(x, shape)
        band_KRVU = _band(weight, padded_KHBV, width, shape)
        y_KNU = x.new_empty(())
        for r in range(weight.shape[2]):
            rows_KNV = _row_slice(padded_KHBV, r, height, shape)
            y_KNU = torch.bmm(rows_KNV, band_KRVU[:, r]) if r == 0 else y_KNU.baddbmm_(rows_KNV, band_KRVU[:, r])
        maps = len(weight) // shape.members
        y_BhwKO = y_KNU.view(shape.members, height, len(x), width, maps).permute(2, 1, 3, 0, 4)
        y = torch.empty(y_BhwKO.shape, dtype=x.dtype, device=x.device)
        if bias is None:
            y.copy_(y_BhwKO)
        else:
            torch.add(y_BhwKO, bias.view(shape.members, -1), out=y)
        ctx.save_for_backward(padded_KHBV, band_KRVU, weight)
        ctx.shape, ctx.input_shape = shape, x.shape
        return y.flatten(3).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        padded_KHBV, band_KRVU, weight = ctx.saved_tensors
        shape: ConvolutionShape = ctx.shape
        height, taps = dy.shape[2], range(weight.shape[2])
        dy_KhBwO = torch.unflatten(dy, 1, (shape.members, len(weight) // shape.members)).permute(1, 3, 0, 4, 2)
        dy_KNU = dy_KhBwO.reshape(shape.members, height * len(dy), band_KRVU.shape[3])
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dpadded_KHBV = torch.zeros_like(padded_KHBV)
            for r in taps:
                rows_KNV = _row_slice(dpadded_KHBV, r, height, shape)
                rows_KNV.baddbmm_(dy_KNU, band_KRVU[:, r].transpose(1, 2))
            dx = _without_padding(dpadded_KHBV, ctx.input_shape, shape)
        if ctx.needs_input_grad[1]:
            dband_KRVU = torch.empty_like(band_KRVU)
            for r in taps:
                rows_KNV = _row_slice(padded_KHBV, r, height, shape)
                torch.bmm(rows_KNV.transpose(1, 2), dy_KNU, out=dband_KRVU[:, r])
            matrices = _diagonals(dband_KRVU, weight, dy.shape[3], shape).sum(4)  # [K, R, C, I, O]
            dweight = _as_weight(matrices.permute(0, 4, 1, 2, 3), weight)
        if ctx.needs_input_grad[2]:
            dbias = dy_KhBwO.sum((1, 2, 3)).flatten()
        return dx, dweight, dbias, None


def _padded_rows(x: Tensor, shape: ConvolutionShape) -> Tensor:
    """The padded input as [K, H, B, V]: rows of V = W*I numbers, the same row of all images side by side."""
    down, across = shape.padding
    x_KHBWI = torch.unflatten(x, 1, (shape.members, -1)).permute(1, 3, 0, 4, 2)
    members, height, images, width, channels = x_KHBWI.shape
    padded = x.new_zeros((members, height + 2 * down, images, width + 2 * across, channels))
    padded[:, down : down + height, :, across : across + width] = x_KHBWI
    return padded.flatten(3)


def _without_padding(padded_KHBV: Tensor, input_shape: torch.Size, shape: ConvolutionShape) -> Tensor:
    """The transpose of `_padded_rows`, with channels last in memory."""
    images, channels, height, width = input_shape
    down, across = shape.padding
    padded_KHBWI = torch.unflatten(padded_KHBV, 3, (width + 2 * across, channels // shape.members))
    x_KHBWI = padded_KHBWI[:, down : down + height, :, across : across + width]
    return x_KHBWI.permute(2, 1, 3, 0, 4).reshape(images, height, width, channels).permute(0, 3, 1, 2)


def _row_slice(padded_KHBV: Tensor, tap: int, height: int, shape: ConvolutionShape) -> Tensor:
    """The rows that row `tap` of the kernel reads, as matrices [K, h*B, V]; a view."""
    first = tap * shape.dilation[0]
    return padded_KHBV[:, first : first + height].flatten(1, 2)


def _band(weight: Tensor, padded_KHBV: Tensor, width: int, shape: ConvolutionShape) -> Tensor:
    """The banded matrices [K, R, V, U] that make a row of the output, U = w*O, of a row of the input."""
    outputs, _, rows, _ = weight.shape
    band = weight.new_zeros((shape.members, rows, padded_KHBV.shape[3], width * outputs // shape.members))
    weight_KORCI = torch.unflatten(weight, 0, (shape.members, -1)).permute(0, 1, 3, 4, 2)
    _diagonals(band, weight, width, shape).copy_(weight_KORCI.permute(0, 2, 3, 4, 1).unsqueeze(4))
    return band


def _diagonals(band_KRVU: Tensor, weight: Tensor, width: int, shape: ConvolutionShape) -> Tensor:
    """The elements of banded matrices that hold weights, as a view [K, R, C, I, w, O]: the same weight in every column."""
    outputs, channels, rows, columns = weight.shape
    maps = outputs // shape.members
    member, row, number, _ = band_KRVU.stride()
    pixel = number * channels  # from a pixel of the input row to the next
    return band_KRVU.as_strided(
        (shape.members, rows, columns, channels, width, maps),
        (member, row, pixel * shape.dilation[1], number, pixel * shape.stride[1] + maps, 1),
    )
