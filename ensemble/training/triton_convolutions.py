"""K narrow convolutions by Triton kernels of our own, with gradients; on NVIDIA GPUs, or in Triton's interpreter on a CPU.

    if obstacle("cuda") is None and misfit(x, weight, shape) is None:
        y = by_triton(x, weight, bias, shape)

The kernels have been compared with PyTorch in Triton's interpreter and compiled for compute capability 9.0. Nobody has
run them on a GPU yet: their speed there is unknown, so they are used only where measuring has found them faster.

Tensors are contiguous ([B, K*C, H, W]): lanes run over pixels, and pooling, activations and flattening behind the
convolution take that layout without a copy. The gradient with respect to the input is the same kernel with the weights
turned around. That of the weights is a matrix product over all pixels, in parts that are added up in a fixed order, so that
the same inputs give the same bits. Sums are float32 whatever the inputs are; TF32 is used where
`torch.backends.cudnn.allow_tf32` says so, which compute.precision sets.

TRITON_INTERPRET=1, set before Triton is imported, lets the kernels run on CPU tensors, for tests: it is very slow.
"""

from __future__ import annotations

import importlib.util
import os
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
        by_triton(x, weight, None, ConvolutionShape(1)).sum().backward()  # type: ignore[no-untyped-call]
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
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if dtype not in _DTYPES:
        return f"Triton's kernels have no {dtype}"
    height, width = shape.output_size(x, weight)
    if max(x.numel(), len(x) * len(weight) * height * width) >= 2**31:
        return "Triton's kernels count in 32 bits, and the batch has more numbers"
    return None


def by_triton(x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvolutionShape) -> Tensor:
    """Convolutions by Triton kernels; neither `unsuited` nor `misfit` may have an objection.

    x: [B, K*I, H, W]; weight: [K*O, I, R, C]; bias: [K*O] or None; returns [B, K*O, h, w], contiguous. Nothing waits for
    the GPU, and nothing is tuned at run time, so a CUDA graph can hold it.
    """
    x, weight, bias = as_autocast(x, weight, bias)
    y: Tensor = _TritonConvolution.apply(x, weight.to(x.dtype), bias, shape)
    return y


class _TritonConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvolutionShape) -> Tensor:
        x = x.contiguous()
        weight_KORCI = torch.unflatten(weight, 0, (shape.members, -1)).permute(0, 1, 3, 4, 2)
        y = _convolve(x, weight_KORCI.permute(0, 4, 2, 3, 1), bias, shape.padding)
        ctx.save_for_backward(x, weight)
        ctx.shape, ctx.biased = shape, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        shape: ConvolutionShape = ctx.shape
        dy = dy.contiguous()
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            turned_KORCI = torch.unflatten(weight.flip(2, 3), 0, (shape.members, -1)).permute(0, 1, 3, 4, 2)
            down, across = (size - 1 - padding for size, padding in zip(weight.shape[2:], shape.padding, strict=True))
            dx = _convolve(dy, turned_KORCI, None, (down, across))
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            dweight, dbias = _weight_gradient(x, dy, weight, shape)
        return dx, dweight, dbias if ctx.biased else None, None


def _convolve(x: Tensor, weight_KIRCO: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """A convolution of contiguous x [B, K*I, H, W] with weights in the order of the kernel."""
    from ensemble.training.triton_kernels import convolve

    members, channels, rows, columns, maps = weight_KIRCO.shape
    images, _, height, width = x.shape
    out_height, out_width = height + 2 * padding[0] - rows + 1, width + 2 * padding[1] - columns + 1
    filled = power_of_two(maps)
    weight = F.pad(weight_KIRCO, (0, filled - maps)).contiguous()
    y = x.new_empty((images, members * maps, out_height, out_width))
    block, num_warps = launch_sizes(filled)
    cells = images * ((out_height + 1) // 2) * ((out_width + 1) // 2)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        convolve[(-(-cells // block), members)](
            x, weight, weight if bias is None else bias, y, images, height, width, out_height, out_width,
            IN=channels, OUT=maps, OUT2=filled, R=rows, C=columns, DOWN=padding[0], ACROSS=padding[1],
            BIAS=bias is not None, BLOCK=block, num_warps=num_warps, **COMPILER,
        )  # fmt: skip
    return y


def _weight_gradient(x: Tensor, dy: Tensor, weight: Tensor, shape: ConvolutionShape) -> tuple[Tensor, Tensor]:
    """Gradients of weights [K*O, I, R, C], with channels last in memory, and of biases [K*O]."""
    from ensemble.training.triton_kernels import weight_gradient

    members, (_, channels, rows, columns) = shape.members, weight.shape
    images, _, height, width = x.shape
    maps, (out_height, out_width) = len(weight) // members, dy.shape[2:]
    filled, taps = max(16, power_of_two(maps)), taps_per_program(channels * rows * columns)
    blocks = -(-channels * rows * columns // taps)
    parts = max(1, min(_PROGRAMS // (members * blocks), -(-images * out_height * out_width // PIXELS)))
    dweight = torch.empty((parts, members, filled, blocks * taps), device=x.device)
    dbias = torch.empty((parts, members, filled), device=x.device)
    tf32 = x.is_cuda and torch.backends.cudnn.allow_tf32
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        weight_gradient[(members, blocks, parts)](
            x, dy, dweight, dbias, images, height, width, out_height, out_width,
            IN=channels, OUT=maps, OUT2=filled, R=rows, C=columns, DOWN=shape.padding[0], ACROSS=shape.padding[1],
            TAPS=taps, BLOCK=PIXELS, PRECISION="tf32" if tf32 else "ieee", num_warps=4, **COMPILER,
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
