"""The parts of a person's own data set, and a fixed test part where none was given.

Which images are held back is told by a hash of their names, within each class: the same on every machine, with any
seed, and an image that is added later moves hardly any other to the other side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.config.schema import DataConfig
from ensemble.errors import DataError
from ensemble.types import ByteArray, IntArray

TEST_FRACTION = 0.2  # without data.test_fraction


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images and their class numbers."""

    images_NCHW: ByteArray
    labels_N: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A data set of somebody's own."""

    train: Part
    test: Part
    class_names: tuple[str, ...]


def divided(whole: Part, names: Sequence[str], class_names: Sequence[str], config: DataConfig) -> Parts:
    """Holds data.test_fraction of every class back for the test part, at least one image and never all but two.

    names: one per image, by which the choice is made. Raises DataError when a class has fewer than three images: one
    each for training, validation and test.
    """
    fraction = TEST_FRACTION if config.test_fraction is None else config.test_fraction
    counts_K = np.bincount(whole.labels_N, minlength=len(class_names))
    if rare := [f"{class_names[k]} has {count}" for k, count in enumerate(counts_K) if count < 3]:
        raise DataError(
            f"data set {config.name}: too few images of a class to divide into training, validation and test: "
            f"{', '.join(rare[:5])}; expected at least 3 of each. Add images, or give a test part of your own"
        )
    ranks = np.array([int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") for name in names], np.int64)
    test_N = np.zeros(len(names), bool)
    for k, count in enumerate(counts_K):
        rows = np.flatnonzero(whole.labels_N == k)
        held_back = min(max(round(fraction * count), 1), count - 2)
        test_N[rows[np.argsort(ranks[rows], kind="stable")[:held_back]]] = True
    parts = [Part(whole.images_NCHW[chosen], whole.labels_N[chosen]) for chosen in (~test_N, test_N)]
    return Parts(parts[0], parts[1], tuple(class_names))
