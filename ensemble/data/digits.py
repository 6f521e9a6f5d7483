"""The embedded data set: scikit-learn's 1,797 handwritten digits, scaled from 8x8 up to 28x28.

It needs no network and no file, so the first run and the tests work anywhere. The enlargement is done in whole
numbers and the test part is picked by a rule, not by a generator: both come out the same on every machine and with
every version of numpy.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ensemble.config.data import DataConfig, register_data
from ensemble.data.catalogue import DatasetInfo, Framing, by_name
from ensemble.data.dataset import Dataset
from ensemble.data.published import dataset_of_published
from ensemble.types import ByteArray, IntArray

SMALL, LARGE = 8, 28
FULL_INK = 16  # the largest value of an 8x8 pixel: it counts the black dots of a 4x4 block
TEST_EVERY = 5


# As scikit-learn describes them (4x4 points counted), full height as in all training images.
_FRAMING = Framing(box=32, centre="box", stroke=6.5, blocks=8)


@register_data
class Digits(DataConfig):
    """Handwritten digits that come with the installation."""

    published: ClassVar[Mapping[str, DatasetInfo]] = by_name(
        DatasetInfo(
            "digits", "handwritten digits, 8x8 scaled up to 28x28", (1, 28, 28), tuple(string.digits), 1442, 355, False, 0,
            "in scikit-learn", framing=_FRAMING,
        )
    )  # fmt: skip
    name: Literal["digits"] = "digits"

    def build(self) -> Dataset:
        """See DataConfig."""
        return dataset_of_published(self.published[self.name], load_digits_28())


def load_digits_28() -> tuple[ByteArray, IntArray, ByteArray, IntArray]:
    """Training images_NCHW (1442) and labels_N, then test images (355) and labels.

    The test part is every fifth image of each class in file order: stratified, and independent of any seed.
    """
    small_N88, labels_N = _as_published()
    images_NCHW = enlarge(small_N88)[:, None]
    rank_N = np.empty_like(labels_N)
    for label in np.unique(labels_N):
        rows = np.flatnonzero(labels_N == label)
        rank_N[rows] = np.arange(len(rows))
    test_N = rank_N % TEST_EVERY == TEST_EVERY - 1
    return images_NCHW[~test_N], labels_N[~test_N], images_NCHW[test_N], labels_N[test_N]


def _as_published() -> tuple[IntArray, IntArray]:
    """The 8x8 images_N88 in 0..16 and labels_N, in the order of the file.

    The file is read where scikit-learn keeps it, without importing scikit-learn and with it scipy and pandas: that takes
    longer than all else that a first run does before it trains. Where another version keeps it elsewhere, it is asked.
    """
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations or []) if package else []:
        table = Path(folder, "datasets", "data", "digits.csv.gz")
        if table.is_file():
            rows_NP = np.loadtxt(table, dtype=np.int64, delimiter=",")
            return rows_NP[:, :-1].reshape(-1, SMALL, SMALL), rows_NP[:, -1]
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.int64), bunch.target.astype(np.int64)


def enlarge(images_N88: IntArray) -> ByteArray:
    """8x8 images of whole numbers in 0..16 as 28x28 bytes, by Catmull-Rom interpolation along both axes.

    Pixel centres keep their places ((i + 1/2) * 8/28 - 1/2), the border is continued, overshoot is cut off.
    """
    weights, unit = _weights()
    sums_NHW = weights @ images_N88 @ weights.T  # exact: below 2**63
    scale = unit * unit * FULL_INK
    rounded_NHW: IntArray = (255 * sums_NHW + scale // 2) // scale
    return rounded_NHW.clip(0, 255).astype(np.uint8)


def _weights() -> tuple[IntArray, int]:
    """The 28x8 interpolation matrix in whole numbers, and the number each of its rows adds up to."""
    d = 2 * LARGE // np.gcd(2 * LARGE, 4).item()  # positions are multiples of 1/14 = 1/d
    weights = np.zeros((LARGE, SMALL), np.int64)
    for i in range(LARGE):
        left, f = divmod(((2 * i + 1) * SMALL - LARGE) * d // (2 * LARGE), d)
        taps = (
            -f * d * d + 2 * f * f * d - f**3,
            2 * d**3 - 5 * f * f * d + 3 * f**3,
            f * d * d + 4 * f * f * d - 3 * f**3,
            -f * f * d + f**3,
        )
        for offset, tap in zip((-1, 0, 1, 2), taps, strict=True):
            weights[i, min(max(left + offset, 0), SMALL - 1)] += tap
    return weights, 2 * d**3
