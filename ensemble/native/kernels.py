"""Kernels in C for what PyTorch's are slow at on a CPU: networks with few maps (see batch_last.c).

Compiled once per machine (see `compiling`) and called through ctypes. Without a compiler there are none, and everything
runs on PyTorch's kernels.

    kernels = load()            # None without a compiler: `obstacle()` says why
    y_KOHWB = kernels.convolve(x_KIHWB, weight_KOIYX, bias_KO, padding=(2, 2))
"""

from __future__ import annotations

import ctypes
import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ensemble.native.compiling import compiled

LANES = 16  # the batch axis is a multiple of it
WIDTHS = (1, 3, 5, 7)  # columns of a kernel there is code for


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("K", "I", "O", "H", "W", "B", "KH", "KW", "pad_y", "pad_x")),
        *((name, ctypes.c_int64) for name in ("x_member", "w_member", "w_out", "w_in", "w_row", "w_column")),
    )


class Kernels:
    """The compiled functions. Tensors are float32 on the CPU, activations contiguous with the batch last.

    The work is shared out over torch's threads; the numbers do not depend on how many there are.
    """

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))  # releases the interpreter's lock while a function runs

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        """Convolutions [K, O, OH, OW, B] of x [K, I, H, W, B] with weight [K, O, I, KH, KW] and bias [K, O].

        The members may share x: one that is expanded to [K, ...] is not copied.
        """
        members, out_channels, in_channels = weight.shape[:3]
        shape = _shape(x, weight, in_channels, out_channels, padding)
        return self._convolve(shape, x, weight, bias, turned=False, like=(members, out_channels))

    def convolve_input(self, dy: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        """The gradient [K, I, H, W, B] of `convolve`'s x from that of its result."""
        members, out_channels, in_channels = weight.shape[:3]
        shape = _shape(dy, weight, out_channels, in_channels, _turned(weight, padding))
        return self._convolve(shape, dy, weight, None, turned=True, like=(members, in_channels))

    def _convolve(
        self, shape: _Shape, x: Tensor, weight: Tensor, bias: Tensor | None, turned: bool, like: tuple[int, int]
    ) -> Tensor:
        y = x.new_empty((*like, *_outer(shape), shape.B))
        self._run("convolve", ctypes.byref(shape), x, weight, bias, y, int(turned))
        return y

    def convolve_weights(
        self, x: Tensor, dy: Tensor, weight: Tensor, padding: tuple[int, int], bias: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of `convolve`'s weight (laid out as `weight` is) and, where there is one, of its bias [K, O]."""
        members, out_channels, in_channels = weight.shape[:3]
        shape = _shape(x, weight, in_channels, out_channels, padding)
        dw = _like(weight)
        db = dy.new_empty((members, out_channels)) if bias else None
        self._run("convolve_weights", ctypes.byref(shape), x, dy, dw, db)
        return dw, db

    def convolve_pool(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], size: int, relu: bool
    ) -> tuple[Tensor, Tensor]:
        """max_pool(convolve(...)) with windows side by side, [K, O, PH, PW, B] both; less passes through memory."""
        members, out_channels, in_channels = weight.shape[:3]
        shape = _shape(x, weight, in_channels, out_channels, padding)
        height, width = _outer(shape)
        y = x.new_empty((members, out_channels, height // size, width // size, shape.B))
        which = torch.empty(y.shape, dtype=torch.int8)
        tensors = (x, weight, bias, y, which)
        self._run("convolve_pool", ctypes.byref(shape), *tensors, size, int(relu))
        return y, which

    def convolve_pool_back(
        self,
        x: Tensor,
        weight: Tensor,
        dy: Tensor,
        which: Tensor,
        padding: tuple[int, int],
        size: int,
        bias: bool,
        inputs: bool,
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Gradients of `convolve_pool`'s x (where `inputs`), weight and bias (where there is one)."""
        members, out_channels, in_channels = weight.shape[:3]
        shape = _shape(x, weight, in_channels, out_channels, padding)
        height, width = _outer(shape)
        if torch.get_num_threads() > members:  # the function below shares out whole members
            d = self.max_pool_input(
                dy.flatten(0, 1), which, (members * out_channels, height, width, shape.B), size, size
            )
            d = torch.unflatten(d, 0, (members, -1))
            dw, db = self.convolve_weights(x, d, weight, padding, bias)
            return self.convolve_input(d, weight, padding) if inputs else None, dw, db
        back = _shape(dy, weight, out_channels, in_channels, _turned(weight, padding))
        back.H, back.W = height, width
        dw, db = _like(weight), dy.new_empty((members, out_channels)) if bias else None
        dx = dy.new_empty(x.shape) if inputs else None
        tensors = (x, weight, dy, which, dw, db, dx)
        self._run("convolve_pool_back", ctypes.byref(shape), ctypes.byref(back), *tensors, size)
        return dx, dw, db

    def max_pool(self, x: Tensor, size: int, stride: int, relu: bool = False) -> tuple[Tensor, Tensor]:
        """Maxima [C, OH, OW, B] of the windows of x [C, H, W, B], and where in its window each one stood (int8).

        relu: of the maxima their positive part; where that is zero, the place is -1, and no gradient goes back.
        """
        channels, height, width, batch = x.shape
        shape = (channels, (height - size) // stride + 1, (width - size) // stride + 1, batch)
        y, which = x.new_empty(shape), torch.empty(shape, dtype=torch.int8)
        self._run("max_pool", x, y, which, channels, height, width, batch, size, stride, int(relu))
        return y, which

    def max_pool_input(self, dy: Tensor, which: Tensor, like: tuple[int, ...], size: int, stride: int) -> Tensor:
        """The gradient of `max_pool`'s x, of that shape."""
        dx = dy.new_empty(like)
        self._run("max_pool_back", dy, which, dx, *like, size, stride)
        return dx

    def batch_norm(self, x: Tensor, layer: BatchNorm, rows: int, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
        """x [C, ..., B] normalised over all but the first axis and the first `rows` images, by a layer that trains.

        Brings the layer's running statistics up to date. Returns the result (relu: its positive part), and per channel
        the mean and one over the standard deviation.
        """
        y, mean, inverse = torch.empty_like(x), x.new_empty(len(x)), x.new_empty(len(x))
        momentum = 0.1 if layer.momentum is None else layer.momentum
        tensors = (x, y, layer.weight, layer.bias, mean, inverse, layer.running_mean, layer.running_var)
        numbers = (ctypes.c_double(momentum), ctypes.c_double(layer.eps), *_pixels(x))
        self._run("batch_norm", *tensors, *numbers, rows, int(relu))
        return y, mean, inverse

    def batch_norm_back(
        self, x: Tensor, dy: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse: Tensor, rows: int, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of `batch_norm`'s x, scale (weight) and shift (bias)."""
        gradients = torch.empty_like(x), torch.empty_like(scale), torch.empty_like(shift)
        tensors = (x, dy, gradients[0], scale, shift, mean, inverse, *gradients[1:])
        self._run("batch_norm_back", *tensors, *_pixels(x), rows, int(relu))
        return gradients

    def batch_to_last(self, images: Tensor, batch: int) -> Tensor:
        """Images [K, rows, ...] as [K, ..., batch], with zeros beyond the rows."""
        members, rows, *rest = images.shape
        y = images.new_empty((members, *rest, batch))
        numbers = ctypes.c_int64(y[0].numel() // batch)
        self._run("batch_to_last", images, y, members, rows, numbers, batch)
        return y

    def gather(self, images: Tensor, rows: Tensor, mean: Tensor, std: Tensor, batch: int) -> Tensor:
        """(images[rows] - mean) / std as [K, C, H, W, batch], zero beyond the rows.

        images: [N, C, H, W] uint8; rows: [K, R] int64; mean and std: per channel, of numbers from 0 to 255.
        """
        assert images.is_contiguous(), images.stride()
        assert images.dtype == torch.uint8, images.dtype
        assert rows.dtype == torch.int64, rows.dtype
        members, count = rows.shape
        channels, height, width = images.shape[1:]
        y = torch.empty((members, channels, height, width, batch))
        tensors = (images, rows.contiguous(), mean.contiguous(), std.contiguous(), y)
        pixels = ctypes.c_int64(height * width)
        self._run("gather", *tensors, members, count, channels, pixels, batch)
        return y

    def _run(self, name: str, *given: object) -> None:
        """Call a function with numbers and with tensors, which stay alive in `given` until it is done."""
        function = getattr(self._library, name)
        arguments = [_data(value) if value is None or isinstance(value, Tensor) else value for value in given]
        parts = torch.get_num_threads()

        def share(part: int) -> int:
            failed: int = function(*arguments, part, parts)
            return failed

        others = [_threads(parts - 1).submit(share, part) for part in range(1, parts)]
        if any([share(0), *(other.result() for other in others)]):
            raise MemoryError(f"no memory for the scratch of {name}")


class BatchNorm(Protocol):
    """What the kernels need of a layer."""

    @property
    def weight(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor: ...

    running_mean: Tensor
    running_var: Tensor
    momentum: float | None
    eps: float


def _pixels(x: Tensor) -> tuple[int, ctypes.c_int64, int]:
    channels, batch = len(x), x.shape[-1]
    return channels, ctypes.c_int64(x.numel() // (channels * batch)), batch


def _shape(x: Tensor, weight: Tensor, ins: int, outs: int, padding: tuple[int, int]) -> _Shape:
    assert x[0].is_contiguous(), x.stride()
    assert x.dtype == weight.dtype == torch.float32, (x.dtype, weight.dtype)
    members, _, _, rows, columns = weight.shape
    height, width, batch = x.shape[-3:]
    assert batch % LANES == 0, batch
    assert columns in WIDTHS, columns
    return _Shape(members, ins, outs, height, width, batch, rows, columns, *padding, x.stride(0), *weight.stride())


def _outer(shape: _Shape) -> tuple[int, int]:
    """Height and width of a convolution's result."""
    return shape.H + 2 * shape.pad_y - shape.KH + 1, shape.W + 2 * shape.pad_x - shape.KW + 1


def _turned(weight: Tensor, padding: tuple[int, int]) -> tuple[int, int]:
    """The padding with which the turned weights take a convolution's result back to its input."""
    return weight.shape[3] - 1 - padding[0], weight.shape[4] - 1 - padding[1]


def _like(weight: Tensor) -> Tensor:
    return torch.empty_strided(weight.shape, weight.stride(), dtype=weight.dtype)


def _data(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="kernel")


@functools.cache
def load() -> Kernels | None:
    """The kernels for this machine, compiled where that has not been done yet; None where that cannot be done."""
    found = compiled()
    return Kernels(found) if isinstance(found, Path) else None


def obstacle() -> str | None:
    """Why there are no kernels on this machine, and what to do about it; None where there are."""
    found = compiled()
    return found if isinstance(found, str) else None
