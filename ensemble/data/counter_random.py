"""Random numbers without a state: number `counter` of the stream `key` is a function of the two.

    numbers_NKC = signed_uniform(keys_K, starts_N, count)       # at starts_N[n], starts_N[n] + 1, ... of every key

The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): its
state after n steps is key + n * gamma, so that any number can be computed without those before it. There are only
integer operations, which wrap around, and exact conversions: the bits are the same on a CPU, on a GPU and inside a CUDA
graph, and do not depend on how a stream is cut into calls.

All keys walk the same cycle of 2^64 states from different places. With keys drawn at random, two of M stretches of L
numbers overlap with a probability of about M^2 L / 2^64, which stays below 1e-4 for 10,000 stretches of 10 million.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

# `signed_uniform`, or what computes the same bits faster.
SignedUniform = Callable[[Tensor, Tensor, int, torch.dtype], Tensor]

_STREAM = 1 << 40  # number j of the image at position p of an epoch has the counter j * 2^40 + p


def _as_int64(number: int) -> int:
    """An unsigned 64-bit number as the int64 with the same bits."""
    return number - 2**64 if number >= 2**63 else number


_GAMMA = _as_int64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio, odd
_FACTORS = _as_int64(0xBF58476D1CE4E5B9), _as_int64(0x94D049BB133111EB)


def random_bits(keys_K: Tensor, starts_N: Tensor, count: int) -> Tensor:
    """64 random bits at the counters starts_N[n] .. starts_N[n] + count - 1 of every key: int64 [N, K, count].

    keys_K, starts_N: int64, on one device. May be recorded in a CUDA graph: nothing is copied from or to the host, and
    shapes depend on `count` alone.
    """
    steps_NC = (torch.arange(1, count + 1, device=keys_K.device) + starts_N[:, None]).mul_(_GAMMA)
    state = keys_K[:, None] + steps_NC[:, None]
    state.bitwise_xor_(_shifted(state, 30)).mul_(_FACTORS[0])
    state.bitwise_xor_(_shifted(state, 27)).mul_(_FACTORS[1])
    return state.bitwise_xor_(_shifted(state, 31))


def signed_uniform(keys_K: Tensor, starts_N: Tensor, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform numbers in [-1, 1) at these counters: [N, K, count].

    dtype: float64 takes the upper 53 of 64 random bits, float32 the upper 24; the result is a multiple of 2^-52 or 2^-23.
    """
    places = 11 if dtype == torch.float64 else 40
    whole = random_bits(keys_K, starts_N, count).bitwise_right_shift_(places)  # keeps the sign
    return whole.to(dtype).mul_(2.0 ** (places - 63))  # both exact


@lru_cache(maxsize=32)
def stream_starts(count: int, device: torch.device) -> Tensor:
    """Where the streams of an image's first `count` numbers begin: int64 [count].

    Kept, because a CUDA graph cannot copy them from the host.
    """
    return (torch.arange(count) * _STREAM).to(device)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shifted to the right with zeros coming in, whereas int64 brings in its sign."""
    return (bits >> places).bitwise_and_((1 << (64 - places)) - 1)
