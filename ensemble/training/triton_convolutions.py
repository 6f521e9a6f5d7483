"""K narrow convolutions by Triton kernels of our own, with gradients; on NVIDIA GPUs, or in Triton's interpreter on a CPU.

    if obstacle("cuda") is None and misfit(x, weight, shape) is None:
        y = by_triton(x, weight, bias, shape)

The kernels have been compared with PyTorch in Triton's interpreter and compiled for compute capability 9.0. Nobody has
run them on a GPU yet: their speed there is unknown, so they are used only where measuring has found them faster.

Tensors are contiguous ([B, K*C, H, W]): lanes run over pixels, and pooling, activations and flattening behind the
convolution take that layout without a copy. The gradient with respect to the input is the same kernel with the weights
turned around. Max-pooling by 2 behind a convolution is part of them where a layer does its pooling itself. That of the weights is a matrix product over all pixels, in parts that are added up in a fixed order, so that
the same inputs give the same bits. Sums are float32 whatever the inputs are; TF32 is used where
`torch.backends.cudnn.allow_tf32` says so, which compute.precision sets.

TRITON_INTERPRET=1, set before Triton is imported, lets the kernels run on CPU tensors, for tests: it is very slow.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ensemble.training.convolutions import ConvolutionShape, as_autocast

WIDEST = 32  # channels of one member, in or out; beyond, accumulators leave the registers
LARGEST_KERNEL = 7  # its loops are unrolled
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
COMPILER = {"enable_fp_fusion": True}  # a product and a sum in one instruction; some versions of Triton want it said
PIXELS = 32  # per step of a program of the weights' gradient
_PROGRAMS = 1024  # of the weights' gradient, about: several for each multiprocessor of a large GPU


def interpreted() -> bool:
    """True where Triton runs kernels on the CPU, one element after another, instead of compiling them."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def obstacle(device_type: str) -> str | None:
    """Why the kernels cannot run on this kind of device ("cpu" or "cuda") in this process; None where they can.

    The first call on a GPU compiles and runs a small convolution, since that may fail for want of a C compiler or of
    Python's header files. So it must not come while a CUDA graph is captured.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if interpreted():
        return None if device_type == "cpu" else "TRITON_INTERPRET is set"
    if device_type != "cuda" or not torch.cuda.is_available():
        return "Triton's kernels need a GPU"
    try:
        x = torch.zeros(1, 1, 4, 4, device="cuda", requires_grad=True)
        weight = torch.zeros(1, 1, 3, 3, device="cuda", requires_grad=True)
        by_triton(x, weight, None, ConvolutionShape(1), pooled=True).sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # Triton raises what its compilers raise
        return f"Triton cannot compile here ({(str(error).strip() or type(error).__name__).splitlines()[-1]})"
    return None


def unsuited(weight: Tensor, shape: ConvolutionShape) -> str | None:
    """Why these kernels do not compute a convolution with such weights [K*O, I, R, C]; None where they do."""
    outputs, channels, *kernel = weight.shape
    widest = max(channels, outputs // shape.members)
    if shape.stride != (1, 1) or shape.dilation != (1, 1):
        return "Triton's kernels have no stride or dilation"
    if widest > WIDEST:
        return f"Triton's kernels are for at most {WIDEST} channels, and it has {widest}"
    if max(kernel) > LARGEST_KERNEL:
        return f"Triton's kernels are for kernels of at most {LARGEST_KERNEL} pixels, and it has {max(kernel)}"
    if any(padding >= size for padding, size in zip(shape.padding, kernel, strict=True)):
        return "Triton's kernels need padding smaller than the kernel"
    return None


def misfit(x: Tensor, weight: Tensor, shape: ConvolutionShape) -> str | None:
    """Why these kernels do not compute this batch, though they have the layer; None where they do."""
    if len(x) == 0:
        return "the batch is empty"
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if dtype not in _DTYPES:
        return f"Triton's kernels have no {dtype}"
    height, width = shape.output_size(x, weight)
    if max(x.numel(), len(x) * len(weight) * height * width) >= 2**31:
        return "Triton's kernels count in 32 bits, and the batch has more numbers"
    return None


def by_triton(x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvolutionShape, pooled: bool = False) -> Tensor:
    """Convolutions by Triton kernels; neither `unsuited` nor `misfit` may have an objection.

    x: [B, K*I, H, W]; weight: [K*O, I, R, C]; bias: [K*O] or None; returns [B, K*O, h, w], contiguous; pooled: max-pooled by
    2 in the same kernel, [B, K*O, h//2, w//2]. Nothing waits for the GPU, and nothing is tuned at run time, so a CUDA graph
    can hold it.
    """
    x, weight, bias = as_autocast(x, weight, bias)
    y: Tensor = _TritonConvolution.apply(x, weight.to(x.dtype), bias, shape, pooled)
    return y


class _TritonConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvolutionShape, pooled: bool
    ) -> Tensor:
        x = x.contiguous()
        weight_KORCI = torch.unflatten(weight, 0, (shape.members, -1)).permute(0, 1, 3, 4, 2)
        weight_KIRCO = weight_KORCI.permute(0, 4, 2, 3, 1)
        height, width = shape.output_size(x, weight)
        won = None
        if pooled:
            won = torch.empty((len(x), len(weight), height // 2, width // 2), dtype=torch.int8, device=x.device)
        y = torch.empty(
            (len(x), len(weight), height, width) if won is None else won.shape, dtype=x.dtype, device=x.device
        )
        _convolve(x, weight_KIRCO, bias, shape.padding, x.shape[2:], y, wins=won)
        ctx.save_for_backward(x, weight, won)
        ctx.shape, ctx.biased = shape, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, won = ctx.saved_tensors
        shape: ConvolutionShape = ctx.shape
        dy = dy.contiguous()
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            turned_KORCI = torch.unflatten(weight.flip(2, 3), 0, (shape.members, -1)).permute(0, 1, 3, 4, 2)
            down, across = (size - 1 - padding for size, padding in zip(weight.shape[2:], shape.padding, strict=True))
            dx = torch.empty_like(x)
            _convolve(dy, turned_KORCI, None, (down, across), shape.output_size(x, weight), dx, won=won)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            dweight, dbias = _weight_gradient(x, dy, won, weight, shape)
        return dx, dweight, dbias if ctx.biased else None, None, None


def _convolve(
    x: Tensor,
    weight_KIRCO: Tensor,
    bias: Tensor | None,
    padding: tuple[int, int],
    size: Sequence[int],
    y: Tensor,
    *,
    won: Tensor | None = None,
    wins: Tensor | None = None,
) -> None:
    """Fill y with a convolution of contiguous x with weights in the order of the kernel.

    size: height and width of x, before pooling where `won` says which pixels of it won. wins: y is pooled, and this is filled.
    """
    from ensemble.training.triton_kernels import convolve

    members, channels, rows, columns, maps = weight_KIRCO.shape
    height, width = size
    out_height, out_width = height + 2 * padding[0] - rows + 1, width + 2 * padding[1] - columns + 1
    filled = power_of_two(maps)
    weight = F.pad(weight_KIRCO, (0, filled - maps)).contiguous()
    block, num_warps = launch_sizes(filled)
    beside = 0 if wins is not None else 1  # a last odd row or column has cells only where nothing is pooled
    cells = len(x) * ((out_height + beside) // 2) * ((out_width + beside) // 2)
    places = wins if won is None else won
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        convolve[(-(-cells // block), members)](
            x, weight, weight if bias is None else bias, y, x if places is None else places,
            len(x), height, width, out_height, out_width,
            IN=channels, OUT=maps, OUT2=filled, R=rows, C=columns, DOWN=padding[0], ACROSS=padding[1],
            BIAS=bias is not None, POOL=wins is not None, UNPOOL=won is not None, BLOCK=block,
            num_warps=num_warps, **COMPILER,
        )  # fmt: skip


def _weight_gradient(
    x: Tensor, dy: Tensor, won: Tensor | None, weight: Tensor, shape: ConvolutionShape
) -> tuple[Tensor, Tensor]:
    """Gradients of weights [K*O, I, R, C], with channels last in memory, and of biases [K*O]."""
    from ensemble.training.triton_kernels import weight_gradient

    members, (_, channels, rows, columns) = shape.members, weight.shape
    images, _, height, width = x.shape
    maps, (out_height, out_width) = len(weight) // members, shape.output_size(x, weight)
    filled, taps = max(16, power_of_two(maps)), taps_per_program(channels * rows * columns)
    blocks = -(-channels * rows * columns // taps)
    parts = max(1, min(_PROGRAMS // (members * blocks), -(-images * out_height * out_width // PIXELS)))
    dweight = torch.empty((parts, members, filled, blocks * taps), device=x.device)
    dbias = torch.empty((parts, members, filled), device=x.device)
    tf32 = x.is_cuda and torch.backends.cudnn.allow_tf32
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        weight_gradient[(members, blocks, parts)](
            x, dy, dy if won is None else won, dweight, dbias, images, height, width, out_height, out_width,
            IN=channels, OUT=maps, OUT2=filled, R=rows, C=columns, DOWN=shape.padding[0], ACROSS=shape.padding[1],
            UNPOOL=won is not None, TAPS=taps, BLOCK=PIXELS, PRECISION="tf32" if tf32 else "ieee", num_warps=4,
            **COMPILER,
        )  # fmt: skip
    sums_KOT = dweight.sum(0)[:, :maps, : channels * rows * columns]
    gradient = sums_KOT.reshape(len(weight), channels, rows, columns).to(weight.dtype)
    return gradient.contiguous(memory_format=torch.channels_last), dbias.sum(0)[:, :maps].flatten().to(weight.dtype)


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below the number."""
    return 1 << (number - 1).bit_length()


def launch_sizes(filled: int) -> tuple[int, int]:
    """Cells and warps of a program of `convolve`, so that the sums of its 2x2 pixels stay in registers."""
    return 128 if filled <= 8 else 64, 4 if filled <= 16 else 8


def taps_per_program(taps: int) -> int:
    """How many elements of the kernel one program of `weight_gradient` takes."""
    return min(64, max(16, power_of_two(taps)))
