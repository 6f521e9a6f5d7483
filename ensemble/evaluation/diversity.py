"""How different the members are, pair by pair (Kuncheva and Whitaker 2003).

Two kinds of "different" are kept apart: `label_disagreement` counts rows on which two members name different classes;
all other measures look only at who is right. With a = both right, b = only the first, c = only the second, d = both
wrong, as counts:

    Q = (ad - bc) / (ad + bc)        correlation = (ad - bc) / sqrt((a+b)(c+d)(a+c)(b+d))
    kappa = 2(ad - bc) / ((a+b)(b+d) + (a+c)(c+d))        double fault = d / N

A measure that is 0/0 (members that are always right, say) is NaN, never a number made up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ensemble.types import DoubleArray, IntArray


class PairCounts(NamedTuple):
    """Counts of rows for every pair of members, each of shape (M, M); "first" is the row of the matrix."""

    both_right: DoubleArray
    first_right: DoubleArray
    second_right: DoubleArray
    both_wrong: DoubleArray


def pair_counts(wrong_MN: npt.NDArray[np.bool_]) -> PairCounts:
    """Who is right together with whom, from what each of M members gets wrong."""
    # float32 counts exactly up to 2^24 rows and multiplies matrices fast.
    assert wrong_MN.shape[1] < 2**24, f"{wrong_MN.shape[1]} rows are too many to count in float32"
    wrong = wrong_MN.astype(np.float32)
    both_wrong_MM = (wrong @ wrong.T).astype(np.float64)
    wrong_M = np.diag(both_wrong_MM)
    second_right = wrong_M[:, None] - both_wrong_MM
    first_right = wrong_M[None, :] - both_wrong_MM
    both_right = wrong_MN.shape[1] - both_wrong_MM - first_right - second_right
    return PairCounts(both_right, first_right, second_right, both_wrong_MM)


def label_disagreement(classes_MN: IntArray, num_classes: int) -> DoubleArray:
    """Share of rows on which two members name different classes, shape (M, M)."""
    members, rows = classes_MN.shape
    assert rows < 2**24, f"{rows} rows are too many to count in float32"
    agree_MM = np.zeros((members, members), np.float32)
    for k in range(num_classes):
        said_MN = (classes_MN == k).astype(np.float32)
        agree_MM += said_MN @ said_MN.T
    disagreement: DoubleArray = (rows - agree_MM.astype(np.float64)) / rows
    return disagreement


def _ratio(above: DoubleArray, below: DoubleArray) -> DoubleArray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


def q_statistic(counts: PairCounts) -> DoubleArray:
    """Yule's Q in [-1, 1], 0 for independent errors, NaN where it is 0/0."""
    a, b, c, d = counts
    return _ratio(a * d - b * c, a * d + b * c)


def error_correlation(counts: PairCounts) -> DoubleArray:
    """Correlation of being right, in [-1, 1], NaN where a member is always right or always wrong."""
    a, b, c, d = counts
    return _ratio(a * d - b * c, np.sqrt((a + b) * (c + d) * (a + c) * (b + d)))


def correctness_kappa(counts: PairCounts) -> DoubleArray:
    """Cohen's kappa of being right (not of the class named), NaN where it is 0/0."""
    a, b, c, d = counts
    return _ratio(2 * (a * d - b * c), (a + b) * (b + d) + (a + c) * (c + d))


def double_fault(counts: PairCounts) -> DoubleArray:
    """Share of rows that both get wrong."""
    rows = sum(counts)
    fault: DoubleArray = counts.both_wrong / rows
    return fault


def pairs(values_MM: DoubleArray) -> DoubleArray:
    """The M(M-1)/2 values above the diagonal."""
    above: DoubleArray = values_MM[np.triu_indices(len(values_MM), k=1)]
    return above
