"""The parts of a person's own data set, and a fixed test part where none was given.

Which images are held back is told by a hash of their names, within each class: the same on every machine, with any
seed, and an image that is added later moves hardly any other to the other side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.config.schema import DataConfig
from ensemble.data.account import Account
from ensemble.data.pixel_rule import PixelRule
from ensemble.errors import DataError
from ensemble.types import ByteArray, IntArray

TEST_FRACTION = 0.2  # without data.test_fraction


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images and their class numbers. files: of each image, where they are files; below the data set's folder."""

    images_NCHW: ByteArray
    labels_N: IntArray
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A data set of somebody's own. pixels: how its values became bytes. account: what was read and what was not."""

    train: Part
    test: Part
    class_names: tuple[str, ...]
    pixels: PixelRule
    account: Account


def held_back(
    labels_N: IntArray, names: Sequence[str], class_names: Sequence[str], config: DataConfig
) -> npt.NDArray[np.bool_]:
    """Which rows are the test part: data.test_fraction of every class, at least one and never all but two.

    names: one per image, by which the choice is made. Raises DataError when a class has fewer than three images: one
    each for training, validation and test.
    """
    fraction = TEST_FRACTION if config.test_fraction is None else config.test_fraction
    counts_K = np.bincount(labels_N, minlength=len(class_names))
    if rare := [f"{class_names[k]} has {count}" for k, count in enumerate(counts_K) if count < 3]:
        raise DataError(
            f"data set {config.name}: too few images of a class to divide into training, validation and test: "
            f"{', '.join(rare[:5])}; expected at least 3 of each. Add images, or give a test part of your own"
        )
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    ranks = np.array([int.from_bytes(digest[:7], "big") for digest in digests], np.int64)
    test_N = np.zeros(len(names), bool)
    for k, count in enumerate(counts_K):
        rows = np.flatnonzero(labels_N == k)
        kept_back = min(max(round(fraction * count), 1), count - 2)
        test_N[rows[np.argsort(ranks[rows], kind="stable")[:kept_back]]] = True
    return test_N


def pixels_sha256(*parts_NCHW: ByteArray) -> str:
    """SHA-256 of all pixels of these images, and of their shapes."""
    digest = hashlib.sha256()
    for images_NCHW in parts_NCHW:
        digest.update(repr(images_NCHW.shape).encode())
        digest.update(images_NCHW.reshape(-1).data)
    return digest.hexdigest()


def parts_of(
    images: npt.NDArray[Any], labels_N: IntArray, test_N: npt.NDArray[np.bool_], files: Sequence[str] = ()
) -> tuple[Part, Part]:
    """Training and test part of images [N, C, H, W] that are bytes already. files: of each image, or none."""
    train, test = (tuple(files[int(n)] for n in np.flatnonzero(own_N)) if files else () for own_N in (~test_N, test_N))
    return Part(images[~test_N], labels_N[~test_N], train), Part(images[test_N], labels_N[test_N], test)
