"""Counter-based random numbers against the reference generator, and by their statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from ensemble.data.counter_random import random_bits, signed_uniform
from ensemble.native.kernels import load, obstacle
from ensemble.seeding import Purpose, member_seed

INT64 = st.integers(-(2**63), 2**63 - 1)
# The first outputs of the reference code of SplitMix64 (Vigna, https://prng.di.unimi.it/splitmix64.c) for two seeds.
REFERENCE = {
    0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC, 0x1B39896A51A8749B],
    1234567: [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821],
}


def splitmix64(key: int, counter: int) -> int:
    """The reference in whole numbers of any size, as an unsigned one."""
    z = (key + (counter + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def starts(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def keys(count: int) -> torch.Tensor:
    """Those of members, as training makes them."""
    return torch.tensor([member_seed(1, member, Purpose.AUGMENT, 0) for member in range(count)])


def test_bits_are_those_of_the_reference_code():
    bits_NKC = random_bits(torch.tensor(list(REFERENCE)), starts(0), 5)
    assert [[bits % 2**64 for bits in row] for row in bits_NKC[0].tolist()] == list(REFERENCE.values())


@settings(deadline=None)
@given(some_keys=st.lists(INT64, min_size=1, max_size=3), some_starts=st.lists(INT64, min_size=1, max_size=3))
@example(some_keys=[-1, -(2**63)], some_starts=[2**63 - 2, -1])
def test_any_key_and_counter(some_keys, some_starts):
    bits_NKC = random_bits(torch.tensor(some_keys), starts(*some_starts), 4)
    expected = [[[splitmix64(k, s + c) for c in range(4)] for k in some_keys] for s in some_starts]
    assert [[[bits % 2**64 for bits in row] for row in plane] for plane in bits_NKC.tolist()] == expected


@pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_compiled_kernel_gives_the_same_bits(dtype, threads):
    kernels, before = load(), torch.get_num_threads()
    assert kernels is not None

    @settings(deadline=None)
    @given(st.lists(INT64, min_size=1, max_size=4), st.lists(INT64, min_size=1, max_size=4), st.integers(1, 70))
    @example([-1, -(2**63), 2**63 - 1], [2**63 - 2, -1], 33)
    def agrees(some_keys, some_starts, count):
        given_ = torch.tensor(some_keys), starts(*some_starts), count, dtype
        assert torch.equal(kernels.signed_uniform(*given_), signed_uniform(*given_))

    torch.set_num_threads(threads)
    try:
        agrees()
    finally:
        torch.set_num_threads(before)


def test_numbers_are_fixed():
    """What a version writes into a run another must repeat: these never change."""
    numbers_NKC = signed_uniform(torch.tensor([0, -5]), starts(0, 1 << 40), 2)
    assert [[[x.hex() for x in row] for row in plane] for plane in numbers_NKC.tolist()] == [
        [["-0x1.ddf57c684e238p-3", "0x1.b9e279aa86e58p-1"], ["0x1.6b1cba95fc600p-3", "-0x1.c51221ce49ffcp-1"]],
        [["0x1.937167e168d90p-3", "0x1.73e38dc995b00p-4"], ["-0x1.4cace50e540f8p-1", "0x1.b782a59a8eb9ap-1"]],
    ]


def test_numbers_are_the_upper_bits_of_a_signed_number():
    bits = random_bits(keys(3), starts(7), 1000)
    for dtype, kept in ((torch.float64, 53), (torch.float32, 24)):
        upper = torch.div(bits, 2 ** (64 - kept), rounding_mode="floor")
        assert torch.equal(signed_uniform(keys(3), starts(7), 1000, dtype), upper.to(dtype) / 2 ** (kept - 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_numbers_are_uniform(dtype):
    numbers = signed_uniform(keys(20), starts(0, 1 << 40), 5000, dtype).double().numpy()
    counts = np.histogram(numbers, bins=1000, range=(-1, 1))[0]
    assert counts.sum() == numbers.size
    assert stats.chisquare(counts).pvalue > 1e-3
    pairs = np.histogram2d(numbers[..., :-1].ravel(), numbers[..., 1:].ravel(), bins=20, range=[(-1, 1), (-1, 1)])[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3
    assert numbers.var() == pytest.approx(1 / 3, abs=0.004)  # standard error 0.0007


@pytest.mark.parametrize("made", [keys, torch.arange], ids=["members", "neighbouring keys"])
def test_streams_are_not_correlated(made):
    """Neither with themselves later, nor with other keys' or with the other numbers of an image."""
    count = 10_000
    streams = signed_uniform(made(8), starts(0, 1 << 40, 2 << 40), count).flatten(0, 1).numpy()
    limit = 5 / np.sqrt(count)  # five standard errors
    assert np.abs(np.corrcoef(streams) - np.eye(len(streams))).max() < limit
    for lag in (1, 2, 7, 98):
        assert np.abs(3 * (streams[:, lag:] * streams[:, :-lag]).mean(1)).max() < limit


def test_a_stretch_does_not_depend_on_how_it_is_cut():
    whole = signed_uniform(keys(3), starts(5), 90)
    parts = [signed_uniform(keys(3), starts(5 + at), 30) for at in (60, 0, 30)]
    assert torch.equal(torch.cat([parts[1], parts[2], parts[0]], -1), whole)
    assert torch.equal(signed_uniform(keys(3)[[2, 0]], starts(5), 90), whole[:, [2, 0]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_gpu_gives_the_same_bits(dtype):
    on_gpu = signed_uniform(keys(64).cuda(), starts(0, -3, 1 << 61).cuda(), 1000, dtype)
    assert torch.equal(on_gpu.cpu(), signed_uniform(keys(64), starts(0, -3, 1 << 61), 1000, dtype))
