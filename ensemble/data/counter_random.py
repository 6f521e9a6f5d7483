"""Random numbers without a state: number `counter` of the stream `key` is a function of the two.

    bits_KN = random_bits(keys_K, first, count)    # int64 [K, count], numbers first, first + 1, ... of every key
    uniform_KN = uniform(bits_KN)                  # float64 in [0, 1)
    moves_KN = symmetric(bits_KN, 0.1)             # float64 within 0.1 of zero

The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): its
state after n steps is key + n * gamma, so that any number can be computed without those before it. There are only
integer operations, which wrap around, and exact conversions: the bits are the same on a CPU, on a GPU and inside a CUDA
graph, and do not depend on how a stream is cut into calls.

All keys walk the same cycle of 2^64 states from different places. With keys drawn at random, two of M streams of L numbers
share a piece with a probability of about M^2 L / 2^64, which stays below 1e-4 for 10,000 streams of 10 million numbers.
"""

from __future__ import annotations

from torch import Tensor, arange, dtype, float64


def _as_int64(number: int) -> int:
    """An unsigned 64-bit number as the int64 with the same bits."""
    return number - 2**64 if number >= 2**63 else number


_GAMMA = _as_int64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio, odd
_FACTORS = _as_int64(0xBF58476D1CE4E5B9), _as_int64(0x94D049BB133111EB)


def random_bits(keys_K: Tensor, first: int | Tensor, count: int) -> Tensor:
    """64 random bits for each of the counters first .. first + count - 1 of every key: int64 [K, count].

    keys_K: int64. first: an int, or an int64 tensor of one element on the device of the keys, which is not read on the
    host. May be recorded in a CUDA graph: nothing is copied from or to the host, and shapes depend on `count` alone.
    """
    steps = arange(1, count + 1, device=keys_K.device).add_(first).mul_(_GAMMA)
    state = keys_K[:, None] + steps
    state.bitwise_xor_(_shifted(state, 30)).mul_(_FACTORS[0])
    state.bitwise_xor_(_shifted(state, 27)).mul_(_FACTORS[1])
    return state.bitwise_xor_(_shifted(state, 31))


def uniform(bits: Tensor) -> Tensor:
    """The upper 53 of 64 random bits as float64 in [0, 1), a multiple of 2^-53."""
    return _shifted(bits, 11).to(float64).mul_(2.0**-53)


def symmetric(bits: Tensor, limit: float | Tensor, dtype: dtype = float64) -> Tensor:
    """Numbers spread evenly from -limit to limit, by the upper 54 of 64 random bits; float32 takes the upper 24.

    limit: a number or a tensor of that type which broadcasts.
    """
    places = 10 if dtype == float64 else 40
    whole = (bits >> places).to(dtype)  # exact; the shift keeps the sign
    return whole.mul_(limit * 2.0 ** (places - 63))


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shifted to the right with zeros coming in, whereas int64 brings in its sign."""
    return (bits >> places).bitwise_and_((1 << (64 - places)) - 1)
