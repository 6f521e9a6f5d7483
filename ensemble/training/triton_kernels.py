"""Triton kernels of K narrow convolutions; see `triton_convolutions`, which calls them. Importing this needs Triton.

All tensors are contiguous: x [B, K*IN, H, W], y [B, K*OUT, h, w]. Lanes run over the output pixels of all images of one
member, so that loads from a map are contiguous however few maps there are; every lane holds all output channels of its
pixels. Stride and dilation are 1. Names in capitals are compile-time constants except for H and W; OUT2 is OUT rounded up to
a power of two.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def convolve(
    x: tl.tensor, weight: tl.tensor, bias: tl.tensor, y: tl.tensor,
    images: tl.tensor, H: tl.tensor, W: tl.tensor, h: tl.tensor, w: tl.tensor,
    IN: tl.constexpr, OUT: tl.constexpr, OUT2: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """y = convolution of x, padded by DOWN and ACROSS, with weight [K, IN, R, C, OUT2] (zeros beyond OUT), plus bias [K*OUT].

    A program: BLOCK cells of 2x2 output pixels of one member. A pixel of the input is loaded once for the four.
    """
    k = tl.program_id(1)
    members = tl.num_programs(1)
    across = (w + 1) // 2
    cells = across * ((h + 1) // 2)
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = cell // cells
    top = cell % cells // across * 2
    left = cell % cells % across * 2
    o = tl.arange(0, OUT2)
    y00 = tl.zeros((OUT2, BLOCK), tl.float32)
    y01 = tl.zeros((OUT2, BLOCK), tl.float32)
    y10 = tl.zeros((OUT2, BLOCK), tl.float32)
    y11 = tl.zeros((OUT2, BLOCK), tl.float32)
    for i in range(IN):
        plane = x + ((image * members + k) * IN + i) * H * W
        taps = weight + (k * IN + i) * R * C * OUT2 + o
        for r in tl.static_range(R + 1):
            row = top + r - DOWN
            for c in tl.static_range(C + 1):
                column = left + c - ACROSS
                inside = (image < images) & (row >= 0) & (row < H) & (column >= 0) & (column < W)
                v = tl.load(plane + row * W + column, mask=inside, other=0.0).to(tl.float32)[None, :]
                if r < R and c < C:
                    y00 += tl.load(taps + (r * C + c) * OUT2)[:, None].to(tl.float32) * v
                if r < R and c > 0:
                    y01 += tl.load(taps + (r * C + c - 1) * OUT2)[:, None].to(tl.float32) * v
                if r > 0 and c < C:
                    y10 += tl.load(taps + ((r - 1) * C + c) * OUT2)[:, None].to(tl.float32) * v
                if r > 0 and c > 0:
                    y11 += tl.load(taps + ((r - 1) * C + c - 1) * OUT2)[:, None].to(tl.float32) * v
    if BIAS:
        b = tl.load(bias + k * OUT + o, mask=o < OUT, other=0.0).to(tl.float32)[:, None]
        y00 += b
        y01 += b
        y10 += b
        y11 += b
    at = y + ((image[None, :] * members + k) * OUT + o[:, None]) * h * w + (top * w + left)[None, :]
    live = (o[:, None] < OUT) & (image < images)[None, :]
    right, below = (left + 1 < w)[None, :], (top + 1 < h)[None, :]
    kind = y.dtype.element_ty
    tl.store(at, y00.to(kind), mask=live)
    tl.store(at + 1, y01.to(kind), mask=live & right)
    tl.store(at + w, y10.to(kind), mask=live & below)
    tl.store(at + w + 1, y11.to(kind), mask=live & right & below)


@triton.jit  # type: ignore[untyped-decorator]
def weight_gradient(
    x: tl.tensor, dy: tl.tensor, dweight: tl.tensor, dbias: tl.tensor,
    images: tl.tensor, H: tl.tensor, W: tl.tensor, h: tl.tensor, w: tl.tensor,
    IN: tl.constexpr, OUT: tl.constexpr, OUT2: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """Partial sums dweight [parts, K, OUT2, blocks*TAPS] and dbias [parts, K, OUT2], float32; to be added over the parts.

    A program: TAPS elements of the kernel, counted over IN, R and C, and every parts-th block of the output's pixels.
    """
    k = tl.program_id(0)
    members = tl.num_programs(0)
    part = tl.program_id(2)
    pixels = h * w
    o = tl.arange(0, OUT2)
    tap = tl.program_id(1) * TAPS + tl.arange(0, TAPS)
    i = tap // (R * C)
    r = tap // C % R - DOWN
    c = tap % C - ACROSS
    known = tap < IN * R * C
    dw = tl.zeros((OUT2, TAPS), tl.float32)
    db = tl.zeros((OUT2,), tl.float32)
    for first in range(part * BLOCK, images * pixels, tl.num_programs(2) * BLOCK):
        n = first + tl.arange(0, BLOCK)
        image = n // pixels
        top = n % pixels // w
        left = n % pixels % w
        live = n < images * pixels
        at = dy + ((image * members + k) * OUT)[None, :] * pixels + o[:, None] * pixels + (n % pixels)[None, :]
        g = tl.load(at, mask=(o < OUT)[:, None] & live[None, :], other=0.0)
        row = top[None, :] + r[:, None]
        column = left[None, :] + c[:, None]
        inside = known[:, None] & live[None, :] & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        plane = ((image * members + k) * IN)[None, :] + i[:, None]
        v = tl.load(x + (plane * H + row) * W + column, mask=inside, other=0.0)
        dw = tl.dot(g, tl.trans(v), dw, input_precision=PRECISION)
        db += tl.sum(g.to(tl.float32), 1)
    place = (part * members + k) * OUT2 + o
    width = tl.num_programs(1) * TAPS
    tl.store(dweight + place[:, None] * width + tap[None, :], dw)
    if tl.program_id(1) == 0:
        tl.store(dbias + place, db)
