"""Kernels in C for what PyTorch's are slow at on a CPU: networks with few maps (see batch_last.c).

Compiled once per machine (see `compiling`) and called through ctypes. Without a compiler there are none, and everything
runs on PyTorch's kernels.

    kernels = load()            # None without a compiler: `obstacle()` says why
    passes = Passes([Layer("convolution", weight_KOIYX, bias_KO, padding=(2, 2), relu=True)], like=x_KIHWB)
    y_KOHWB, room = passes.forward(kernels, x_KIHWB, rows=64, keep=True)
    dx_KIHWB, gradients = passes.backward(kernels, x_KIHWB, y_KOHWB, room, dy_KOHWB, rows=64, inputs=True)
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ensemble import signals
from ensemble.native.compiling import compiled

LANES = 16  # the batch axis is a multiple of it
WIDTHS = (1, 3, 5, 7)  # columns of a kernel there is code for
_KINDS = ("convolution", "max_pool", "batch_norm")  # in the order of batch_last.c


@dataclass(frozen=True)
class Layer:
    """A layer of K members as the kernels know it.

    convolution: weight [K, O, I, KH, KW], bias [K, O] or none; stride 1. Its result is pooled in windows of `size` x
    `size` side by side. A linear layer is one with KH = KW = 1.
    max_pool: windows of `size` x `size`, one every `stride`.
    batch_norm: weight and bias [K, O], `running` mean and variance of the same size, which training brings up to date.
    flatten: what follows sees a pixel for every number.
    relu: of the result the positive part.
    """

    kind: Literal["convolution", "max_pool", "batch_norm", "flatten"]
    weight: Tensor | None = None
    bias: Tensor | None = None
    padding: tuple[int, int] = (0, 0)
    size: int = 1
    stride: int = 1
    relu: bool = False
    running: tuple[Tensor, Tensor] | None = None
    momentum: float = 0.1
    eps: float = 1e-5

    @property
    def parameters(self) -> list[Tensor]:
        """Weight and bias, as far as there are any."""
        return [tensor for tensor in (self.weight, self.bias) if tensor is not None]


@dataclass(frozen=True, eq=False)
class Deformation:
    """How each of N images is deformed; what is None is left out.

    source: [N, 2, 3] float32, from a pixel to where it comes from, both as (x, y) from the image's centre.
    noise: [N, 2, rows, columns] float32, (x, y) displacements in pixels at the nodes of a spline;
    down, across: for every row and column of pixels the first of the four nodes that move it [H] and [W], int32, and
    these nodes' weights [H, 4] and [W, 4], float32.
    brightness, contrast: [N] float32 factors, of contrast around the image's mean.
    """

    source: Tensor | None = None
    noise: Tensor | None = None
    down: tuple[Tensor, Tensor] | None = None
    across: tuple[Tensor, Tensor] | None = None
    brightness: Tensor | None = None
    contrast: Tensor | None = None


class _Deformation(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("source", "noise", "down", "across", "down_4", "across_4")),
        *((name, ctypes.c_int) for name in ("rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("brightness", "contrast")),
    )


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("I", "O", "H", "W", "B", "KH", "KW", "pad_y", "pad_x")),
        *((name, ctypes.c_int64) for name in ("w_out", "w_in", "w_row", "w_column")),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("kind", "relu", "size", "stride", "training")),
        ("s", _Shape),
        *((name, ctypes.c_int64) for name in ("w_member", "y_at", "which_at", "stats_at")),
        *((name, ctypes.c_void_p) for name in ("w", "bias", "dw", "db", "running_mean", "running_var")),
        *((name, ctypes.c_double) for name in ("momentum", "eps")),
    )


class Passes:
    """Forward and backward passes through layers, for inputs of one shape.

    like: an input [K, C, H, W, B] or, before linear layers, [K, F, B]. The members may share it: one that is expanded to
    [K, ...] is not copied. Tensors are float32 on the CPU.
    """

    def __init__(self, layers: Sequence[Layer], like: Tensor) -> None:
        assert like.shape[-1] % LANES == 0, like.shape
        self._layers = [layer for layer in layers if layer.kind != "flatten"]
        self._described = (_Layer * len(self._layers))()
        self.members, self._batch = like.shape[0], like.shape[-1]
        self._room = 0
        shape = tuple(like.shape[1:-1])
        described = iter(self._described)
        for layer in layers:
            flat = layer.kind == "flatten"
            shape = (math.prod(shape),) if flat else self._describe(layer, next(described), shape)
        self._results = (self.members, *shape, self._batch)

    def _describe(self, layer: Layer, into: _Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Fill in what C is told of a layer whose input has that shape [C, H, W] or [F]; returns its result's."""
        channels, height, width = (*shape, 1, 1)[:3]
        outs, kernel, strides = channels, (1, 1), [0, 0, 0, 0]
        into.kind, into.relu, into.size, into.stride = _KINDS.index(layer.kind), layer.relu, layer.size, layer.stride
        into.momentum, into.eps = layer.momentum, layer.eps
        if layer.kind == "convolution":
            assert layer.weight is not None
            assert layer.weight.shape[2] == channels, (layer.weight.shape, shape)
            outs, kernel = layer.weight.shape[1], (layer.weight.shape[3], layer.weight.shape[4])
            into.w_member, *strides = layer.weight.stride()
            assert kernel[1] in WIDTHS, kernel
            assert kernel != (1, 1) or (strides[1] == 1 and layer.size == 1), (layer.weight.stride(), layer.size)
        elif layer.kind == "batch_norm":
            into.w_member = channels
        into.s = _Shape(channels, outs, height, width, self._batch, *kernel, *layer.padding, *strides)
        result = [outs, height + 2 * layer.padding[0] - kernel[0] + 1, width + 2 * layer.padding[1] - kernel[1] + 1]
        if layer.kind == "convolution":
            result[1:] = [length // layer.size for length in result[1:]]
        elif layer.kind == "max_pool":
            result[1:] = [(length - layer.size) // layer.stride + 1 for length in result[1:]]
        numbers = math.prod(result) * self._batch
        into.y_at, into.which_at = self._room, self._room + numbers
        into.stats_at = into.which_at + (numbers + 3) // 4
        self._room = -(-(into.stats_at + 2 * outs) // LANES) * LANES
        return tuple(result[: len(shape)])

    def forward(
        self, kernels: Kernels, x: Tensor, rows: int, keep: bool, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Results [K, ..., B] of x, of whose images the first `rows` are real, and the room in which `backward` finds
        what lies between (where `keep`)."""
        y = x.new_empty(self._results)
        room = x.new_empty((self.members if keep else torch.get_num_threads(), self._room))
        for layer, described in zip(self._layers, self._described, strict=True):
            described.w, described.bias, described.training = _at(layer.weight), _at(layer.bias), training
            if layer.running is not None:
                described.running_mean, described.running_var = map(_at, layer.running)
        kernels.run("forward", *self._common(x, rows), room, self._room, y, y[0].numel(), int(keep))
        return y, room

    def backward(
        self, kernels: Kernels, x: Tensor, y: Tensor, room: Tensor, dy: Tensor, rows: int, inputs: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Gradients of x (where `inputs`) and of the layers' parameters, laid out as these are, in their order.

        For what `forward` with `keep` was given and gave; the gradient of images that are not real must be zero.
        """
        gradients = [[torch.empty_like(parameter) for parameter in layer.parameters] for layer in self._layers]
        for described, of_layer in zip(self._described, gradients, strict=True):
            described.dw, described.db = ([_at(gradient) for gradient in of_layer] + [None, None])[:2]
        dx = x.new_empty(x.shape) if inputs else None
        kernels.run("backward", *self._common(x, rows), room, self._room, y, y[0].numel(), dy.contiguous(), dx)
        return dx, [gradient for of_layer in gradients for gradient in of_layer]

    def _common(self, x: Tensor, rows: int) -> tuple[object, ...]:
        assert x.dtype == torch.float32, x.dtype
        assert x[0].is_contiguous(), x.stride()
        return self._described, len(self._described), self.members, rows, x, x.stride(0)


# What each function is given, as a structure: P a tensor, an array, a structure or nothing, else numbers.
_SIGNATURES = {
    "forward": "PiiiPqPqPqi",
    "backward": "PiiiPqPqPqPP",
    "batch_to_last": "PPiiqi",
    "signed_uniform": "PPPPiiq",
    "random_bits": "PPPiiq",
    "gather": "PPPPPiiiqi",
    "gather_deformed": "PPPPPPiiiiii",
}
_TYPES: dict[str, Any] = {"P": ctypes.c_void_p, "i": ctypes.c_int, "q": ctypes.c_int64}


class _Team(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("run", "number", "size"))


@functools.cache
def _team() -> _Team | None:
    """The threads that torch itself computes with; None where its library does not tell of any that C can use.

    Threads of our own would wait for a core: torch's, when they have nothing to do, do not give theirs up at once.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        functions = ctypes.CDLL(str(library))  # finds those of the OpenMP library it was linked to
        found = [functions[name] for name in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")]
    except (OSError, AttributeError):
        return None
    return _Team(*(ctypes.cast(function, ctypes.c_void_p) for function in found))


class Kernels:
    """The compiled functions.

    The work is shared out over torch's threads, by members; the numbers do not depend on how many there are.
    """

    def __init__(self, library: Path) -> None:
        functions = ctypes.CDLL(str(library))  # releases the interpreter's lock while a function runs
        self._functions = {name: getattr(functions, name) for name in _SIGNATURES}
        self._by_team = functions.by_team
        self._given = {name: _structure(letters) for name, letters in _SIGNATURES.items()}

    def batch_to_last(self, images: Tensor, batch: int) -> Tensor:
        """Images [K, rows, ...] as [K, ..., batch], with zeros beyond the rows."""
        members, rows, *rest = images.shape
        y = images.new_empty((members, *rest, batch))
        self.run("batch_to_last", images, y, members, rows, y[0].numel() // batch, batch)
        return y

    def signed_uniform(
        self, keys_K: Tensor, starts_N: Tensor, count: int, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """What `signed_uniform` of ensemble/data/counter_random.py gives, to the bit: [N, K, count] of that type."""
        assert keys_K.dtype == starts_N.dtype == torch.int64, (keys_K.dtype, starts_N.dtype)
        numbers = torch.empty((len(starts_N), len(keys_K), count), dtype=dtype)
        doubles, floats = (numbers, None) if dtype == torch.float64 else (None, numbers)
        tensors = (keys_K.contiguous(), starts_N.contiguous(), doubles, floats)
        self.run("signed_uniform", *tensors, len(starts_N), len(keys_K), count)
        return numbers

    def random_bits(self, keys_K: Tensor, starts_N: Tensor, count: int) -> Tensor:
        """What `random_bits` of ensemble/data/counter_random.py gives: int64 [N, K, count]."""
        assert keys_K.dtype == starts_N.dtype == torch.int64, (keys_K.dtype, starts_N.dtype)
        bits = torch.empty((len(starts_N), len(keys_K), count), dtype=torch.int64)
        tensors = keys_K.contiguous(), starts_N.contiguous(), bits
        self.run("random_bits", *tensors, len(starts_N), len(keys_K), count)
        return bits

    def gather(
        self, images: Tensor, rows: Tensor, mean: Tensor, std: Tensor, batch: int, deformed: Deformation | None = None
    ) -> Tensor:
        """(images[rows] - mean) / std as [K, C, H, W, batch], zero beyond the rows.

        images: [N, C, H, W] uint8; rows: [K, R] int64; mean and std: per channel, of numbers from 0 to 255.
        deformed: before that, and how, for the K * R images in the order of the rows.
        """
        assert images.is_contiguous(), images.stride()
        assert images.dtype == torch.uint8, images.dtype
        assert rows.dtype == torch.int64, rows.dtype
        members, count = rows.shape
        channels, height, width = images.shape[1:]
        y = torch.empty((members, channels, height, width, batch))
        tensors = (images, rows.contiguous(), mean.contiguous(), std.contiguous(), y)
        if deformed is None:
            self.run("gather", *tensors, members, count, channels, height * width, batch)
            return y
        places = LANES * channels * (height + 2) * (width + 2)
        assert places < 2**31, f"images of {channels} x {height} x {width} are too large to deform here"
        described, _alive = _described(deformed, rows.numel())
        self.run("gather_deformed", *tensors, described, members, count, channels, height, width, batch)
        return y

    def run(self, name: str, *given: object) -> None:
        """Call a function with numbers, and with tensors and structures, which stay alive in `given` until it is done."""
        function, parts = self._functions[name], torch.get_num_threads()
        arguments = ctypes.byref(self._given[name](*map(_plain, given)))
        if parts == 1:
            failed = function(arguments, 0, 1)
        elif (team := _team()) is not None:
            failed = self._by_team(function, arguments, parts, ctypes.byref(team))
        else:
            others = [_threads(parts - 1).submit(function, arguments, part, parts) for part in range(1, parts)]
            failed = any([function(arguments, 0, parts), *(other.result() for other in others)])
        if failed:
            raise MemoryError(f"no memory for the scratch of {name}")


def _structure(letters: str) -> type[ctypes.Structure]:
    """What C takes these for."""
    fields = tuple((f"given_{n}", _TYPES[letter]) for n, letter in enumerate(letters))
    return type("Given", (ctypes.Structure,), {"_fields_": fields})


def _plain(value: object) -> object:
    """A number as it is, of anything else where it lies."""
    if isinstance(value, Tensor):
        return value.data_ptr()
    return ctypes.addressof(value) if isinstance(value, ctypes.Structure | ctypes.Array) else value


def _described(deformed: Deformation, images: int) -> tuple[_Deformation, list[Tensor | None]]:
    """A deformation as C is told of it, and the tensors it points to, which must outlive it."""
    assert (deformed.noise is None) == (deformed.down is None) == (deformed.across is None), "noise needs its spline"
    down, across = deformed.down or (None, None), deformed.across or (None, None)
    tensors = [deformed.source, deformed.noise, down[0], across[0], down[1], across[1]]
    tensors += [deformed.brightness, deformed.contrast]
    kept = [None if tensor is None else tensor.contiguous() for tensor in tensors]
    for tensor in (kept[0], kept[1], kept[6], kept[7]):
        assert tensor is None or (len(tensor) == images and tensor.dtype == torch.float32), tensor.dtype
    nodes = (0, 0) if deformed.noise is None else tuple(deformed.noise.shape[2:])
    return _Deformation(*map(_at, kept[:6]), *nodes, *map(_at, kept[6:])), kept


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "kernel", signals.be_deaf)


@functools.cache
def load() -> Kernels | None:
    """The kernels for this machine, compiled where that has not been done yet; None where that cannot be done."""
    found = compiled()
    return Kernels(found) if isinstance(found, Path) else None


def obstacle() -> str | None:
    """Why there are no kernels on this machine, and what to do about it; None where there are."""
    found = compiled()
    return found if isinstance(found, str) else None
