"""The parts of a person's own data set, and a fixed test part where none was given.

Which images are held back is told by a hash of their names, within each class: the same on every machine, with any
seed, and an image that is added later moves hardly any other to the other side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ensemble.config.data import DataConfig
from ensemble.data.account import Account
from ensemble.data.grouping import grouped, lacking, whole_groups
from ensemble.data.pixel_rule import PixelRule
from ensemble.errors import DataError
from ensemble.types import ByteArray, IntArray

PartName = Literal["train", "validation", "test"]
TEST_FRACTION = 0.2  # without data.test_fraction


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images and their class numbers. files: of each image, where they are files; below the data set's folder."""

    images_NCHW: ByteArray
    labels_N: IntArray
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A data set of somebody's own. pixels: how its values became bytes. account: what was read and what was not.

    validation_rows: of the training part, where such a part is given. groups_N: number of the group of each training row, where
    the rows of a group stay together. Images of both parts have the margin of `pixels` on each side beyond what is an image of the data set.
    """

    train: Part
    test: Part
    class_names: tuple[str, ...]
    pixels: PixelRule
    account: Account
    validation_rows: IntArray | None = None
    groups_N: IntArray | None = None


def held_back(
    labels_N: IntArray,
    names: Sequence[str],
    class_names: Sequence[str],
    config: DataConfig,
    groups: Sequence[str] | None = None,
) -> npt.NDArray[np.bool_]:
    """Which rows are the test part: data.test_fraction of every class, at least one and never all but two.

    names: one per image, by which the choice is made. groups: one per image; those of a group are held back together or not at
    all, by the group's name. Raises DataError when a class has fewer than three images (one each for training, validation and
    test), or where groups leave no image of a class to either side.
    """
    given = config.array_rule.test_fraction
    fraction = TEST_FRACTION if given is None else given
    counts_K = np.bincount(labels_N, minlength=len(class_names))
    if rare := [f"{class_names[k]} has {count}" for k, count in enumerate(counts_K) if count < 3]:
        raise DataError(
            f"data set {config.name}: too few images of a class to divide into training, validation and test: "
            f"{', '.join(rare[:5])}; expected at least 3 of each. Add images, or give a test part of your own"
        )
    if groups is not None:
        return _groups_held_back(labels_N, groups, class_names, fraction, grouped(config))
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    ranks = np.array([int.from_bytes(digest[:7], "big") for digest in digests], np.int64)
    test_N = np.zeros(len(names), bool)
    for k, count in enumerate(counts_K):
        rows = np.flatnonzero(labels_N == k)
        kept_back = min(max(round(fraction * count), 1), count - 2)
        test_N[rows[np.argsort(ranks[rows], kind="stable")[:kept_back]]] = True
    return test_N


def _groups_held_back(
    labels_N: IntArray, groups: Sequence[str], class_names: Sequence[str], fraction: float, named: bool
) -> npt.NDArray[np.bool_]:
    names, groups_N = np.unique(groups, return_inverse=True)
    digests = [hashlib.sha256(str(name).encode("utf-8", "surrogateescape")).digest() for name in names]
    order_G = np.array(sorted(range(len(names)), key=digests.__getitem__), np.int64)
    counts_K = np.bincount(labels_N, minlength=len(class_names))
    test_N = whole_groups(labels_N, groups_N, order_G, np.maximum(np.round(fraction * counts_K), 1).astype(np.int64))
    if lost := lacking(labels_N, test_N, len(class_names)):
        count = len(set(np.asarray(groups_N)[labels_N == lost[0]].tolist()))
        if not named:
            raise DataError(
                f"data.image_column: files stand in several rows, which stay together, and no way was found to hold back a test part and "
                f"keep every class in both parts: {class_names[lost[0]]} is in {count} files; check that the column names the pictures, "
                "or give a test part (data.split_column)"
            )
        raise DataError(
            f"data.group_column: no way was found to hold back whole groups as a test part and keep every class in both parts: "
            f"{class_names[lost[0]]} is in {count} groups; give a test part (data.split_column), another data.test_fraction, or smaller groups"
        )
    return test_N
