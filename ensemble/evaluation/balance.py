"""Classes of unequal size: the error as the mean over the classes, and whether the vote's is another than the single model's.

Balanced error = 1 - balanced accuracy = the mean of the errors among the rows of each class (Brodersen et al. 2010), so that a
rare class counts as much as a common one.
"""

from __future__ import annotations

import numpy as np

from ensemble.evaluation.statistics import UNDEFINED, Interval
from ensemble.types import DoubleArray, IntArray

DRAWS = 10_000


def balanced_error(classes_N: IntArray, labels_N: IntArray) -> float:
    """The mean over all classes that have rows of the share of their rows in error; NaN for no rows."""
    if not len(labels_N):
        return float("nan")
    rows_K = np.bincount(labels_N)
    wrong_K = np.bincount(labels_N[classes_N != labels_N], minlength=len(rows_K))
    return float(np.mean(wrong_K[rows_K > 0] / rows_K[rows_K > 0]))


def difference_interval(
    classes_N: IntArray, others_N: IntArray, labels_N: IntArray, seed: int, confidence: float = 0.95
) -> Interval:
    """Percentile interval of the difference of two balanced errors on the same rows, by a bootstrap within each class.

    Rows are drawn again among those of their class, both predictions together (Efron and Tibshirani 1993, chapter 8.3). Only
    three things can be drawn of a row, that either or neither prediction alone is wrong, so a draw of a class is a multinomial.
    Undefined where all draws are alike: rows that differ in nothing say nothing about how much others would.
    """
    present = np.unique(labels_N)
    if not len(present):
        return UNDEFINED
    generator = np.random.default_rng(seed)
    wrong_N, other_N = classes_N != labels_N, others_N != labels_N
    drawn: DoubleArray = np.zeros(DRAWS)
    for k in present:
        own = labels_N == k
        rows = int(own.sum())
        counts = [int((own & wrong_N & ~other_N).sum()), int((own & ~wrong_N & other_N).sum())]
        tables = generator.multinomial(rows, np.array([*counts, rows - sum(counts)]) / rows, DRAWS)
        drawn += (tables[:, 0] - tables[:, 1]) / (rows * len(present))
    if drawn.min() == drawn.max():
        return UNDEFINED
    tail = (1 - confidence) / 2
    return Interval(*(float(end) for end in np.quantile(drawn, [tail, 1 - tail])))
