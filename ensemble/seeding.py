"""Randomness is addressed, not consumed.

Every stream is found by its address (root seed, member, purpose, epoch ...) through numpy's SeedSequence, never by
how many numbers were drawn before it. So a member is a function of (config, data, index): not of the executor, of its
neighbours in a stack, of the order, or of how often the run was interrupted.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of the address: never reuse or reorder them."""

    INIT = 0
    SAMPLE = 1
    ORDER = 2
    AUGMENT = 3
    DROPOUT = 4
    FILTER = 6
    BLEND = 7
    FOLDS = 9  # its member is the number of a repeat
    HEAD = 10  # the first weights of a last layer that alone is trained


_SPLIT = 5
_VIEW = 8


def member_sequence(root: int, member: int, purpose: Purpose, *more: int) -> np.random.SeedSequence:
    """The seed sequence at (root, member, purpose, *more); `more` is usually the epoch."""
    return np.random.SeedSequence(root, spawn_key=(member, int(purpose), *more))


def member_generator(root: int, member: int, purpose: Purpose, *more: int) -> np.random.Generator:
    """A numpy generator for the stream at that address."""
    return np.random.Generator(np.random.PCG64(member_sequence(root, member, purpose, *more)))


def member_seed(root: int, member: int, purpose: Purpose, *more: int) -> int:
    """A 63-bit seed for the stream at that address, for generators of other libraries."""
    return int(member_sequence(root, member, purpose, *more).generate_state(1, np.uint64)[0] >> np.uint64(1))


def view_generator(number: int) -> np.random.Generator:
    """The generator of a view on which every member of every run votes (`evaluation.tta`)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(number, spawn_key=(_VIEW,))))


def split_generator(root: int) -> np.random.Generator:
    """The generator that divides training and validation rows; it belongs to no member."""
    # A spawn key of length 1 can never equal a member's key, which has length 2 or more.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(root, spawn_key=(_SPLIT,))))
