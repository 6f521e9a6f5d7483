"""Triton kernels of K narrow convolutions; see `triton_convolutions`, which calls them. Importing this needs Triton.

All tensors are contiguous: x [B, K*IN, H, W], y [B, K*OUT, h, w]. Lanes run over the output pixels of all images of one
member, so that loads from a map are contiguous however few maps there are; every lane holds all output channels of its
pixels. Stride and dilation are 1. Names in capitals are compile-time constants except for H and W; OUT2 is OUT rounded up to
a power of two.

Max-pooling by 2 behind a convolution can be part of the kernels: then only the largest of four pixels is stored, with its
place, 2 * row + column, in a byte of `won`; a last odd row or column is left out. On the way back a pixel's gradient is that
of its pool where it won, and zero elsewhere, so that no tensor of the size before pooling passes through memory.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def _larger(value: tl.tensor, number: tl.constexpr, best: tl.tensor, place: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The larger of two, the first where they are equal; what is not a number wins, as in torch."""
    wins = (value > best) | (value != value)
    return tl.where(wins, value, best), tl.where(wins, number, place).to(tl.int8)


@triton.jit  # type: ignore[untyped-decorator]
def _unpooled(
    pooled: tl.tensor, won: tl.tensor, plane: tl.tensor, row: tl.tensor, column: tl.tensor, H: tl.tensor, W: tl.tensor,
    inside: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """What belongs to pixels of planes [H, W], of pooled planes [H//2, W//2]: zero where another pixel won the pool."""
    inside = inside & (row < H // 2 * 2) & (column < W // 2 * 2)
    at = (plane * (H // 2) + row // 2) * (W // 2) + column // 2
    winner = tl.load(won + at, mask=inside, other=-1)
    return tl.load(pooled + at, mask=inside & (winner == row % 2 * 2 + column % 2), other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def convolve(
    x: tl.tensor, weight: tl.tensor, bias: tl.tensor, y: tl.tensor, won: tl.tensor,
    images: tl.tensor, H: tl.tensor, W: tl.tensor, h: tl.tensor, w: tl.tensor,
    IN: tl.constexpr, OUT: tl.constexpr, OUT2: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, BIAS: tl.constexpr, POOL: tl.constexpr, UNPOOL: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """y = convolution of x, padded by DOWN and ACROSS, with weight [K, IN, R, C, OUT2] (zeros beyond OUT), plus bias [K*OUT].

    POOL: y is pooled, [B, K*OUT, h//2, w//2], and `won` is written. UNPOOL: x is what belongs to pooled pixels,
    [B, K*IN, H//2, W//2], and `won` is read. `won` has the shape of the pooled tensor.
    A program: BLOCK cells of 2x2 output pixels of one member. A pixel of the input is loaded once for the four.
    """
    k = tl.program_id(1)
    members = tl.num_programs(1)
    across = w // 2 if POOL else (w + 1) // 2
    cells = across * (h // 2 if POOL else (h + 1) // 2)
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
        plane = (image * members + k) * IN + i
        taps = weight + (k * IN + i) * R * C * OUT2 + o
        for r in tl.static_range(R + 1):
            row = top + r - DOWN
            for c in tl.static_range(C + 1):
                column = left + c - ACROSS
                inside = (image < images) & (row >= 0) & (row < H) & (column >= 0) & (column < W)
                if UNPOOL:
                    v = _unpooled(x, won, plane, row, column, H, W, inside).to(tl.float32)[None, :]
                else:
                    v = tl.load(x + (plane * H + row) * W + column, mask=inside, other=0.0).to(tl.float32)[None, :]
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
    map = (image[None, :] * members + k) * OUT + o[:, None]
    live = (o[:, None] < OUT) & (image < images)[None, :]
    kind = y.dtype.element_ty
    if POOL:
        best = y00
        place = tl.zeros((OUT2, BLOCK), tl.int8)
        best, place = _larger(y01, 1, best, place)
        best, place = _larger(y10, 2, best, place)
        best, place = _larger(y11, 3, best, place)
        at = map * (h // 2) * (w // 2) + (top // 2 * (w // 2) + left // 2)[None, :]
        tl.store(y + at, best.to(kind), mask=live)
        tl.store(won + at, place, mask=live)
    else:
        at = y + map * h * w + (top * w + left)[None, :]
        right, below = (left + 1 < w)[None, :], (top + 1 < h)[None, :]
        tl.store(at, y00.to(kind), mask=live)
        tl.store(at + 1, y01.to(kind), mask=live & right)
        tl.store(at + w, y10.to(kind), mask=live & below)
        tl.store(at + w + 1, y11.to(kind), mask=live & right & below)


@triton.jit  # type: ignore[untyped-decorator]
def weight_gradient(
    x: tl.tensor, dy: tl.tensor, won: tl.tensor, dweight: tl.tensor, dbias: tl.tensor,
    images: tl.tensor, H: tl.tensor, W: tl.tensor, h: tl.tensor, w: tl.tensor,
    IN: tl.constexpr, OUT: tl.constexpr, OUT2: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, UNPOOL: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """Partial sums dweight [parts, K, OUT2, blocks*TAPS] and dbias [parts, K, OUT2], float32; to be added over the parts.

    UNPOOL: dy is the gradient of pooled pixels, [B, K*OUT, h//2, w//2], as is `won`, which is read.
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
        map = ((image * members + k) * OUT)[None, :] + o[:, None]
        wanted = (o < OUT)[:, None] & live[None, :]
        if UNPOOL:
            g = _unpooled(dy, won, map, top[None, :], left[None, :], h, w, wanted)
        else:
            g = tl.load(dy + map * pixels + (n % pixels)[None, :], mask=wanted, other=0.0)
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
