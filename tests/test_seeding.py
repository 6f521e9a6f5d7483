"""Streams are found by address: equal at one address, different at any other, whatever was drawn before."""

from __future__ import annotations

from itertools import product

import numpy as np

from ensemble.seeding import Purpose, member_generator, member_seed, split_generator


def test_one_address_one_stream() -> None:
    first = member_generator(7, 3, Purpose.ORDER, 5).integers(0, 2**60, 10)
    member_generator(7, 2, Purpose.ORDER, 5).integers(0, 2**60, 1000)
    np.testing.assert_array_equal(first, member_generator(7, 3, Purpose.ORDER, 5).integers(0, 2**60, 10))


def test_every_address_has_its_own_stream() -> None:
    addresses = list(product((0, 1, 2**62), range(20), Purpose))
    seeds = {member_seed(root, member, purpose) for root, member, purpose in addresses}
    seeds |= {member_seed(root, member, purpose, 0) for root, member, purpose in addresses}
    assert len(seeds) == 2 * len(addresses)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_split_is_nobodys_stream() -> None:
    split = split_generator(0).integers(0, 2**60)
    assert all(split != member_generator(0, m, p).integers(0, 2**60) for m, p in product(range(50), Purpose))
