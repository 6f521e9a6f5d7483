"""What the vote's own doubt is good for: errors among the most certain rows, and the rows most in dispute."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ensemble.types import DoubleArray, IntArray

MAX_POINTS = 200


class RiskCurve(NamedTuple):
    """Error among the most certain rows, for growing shares of rows answered; `area` is its mean over all rows."""

    coverage: DoubleArray
    error: DoubleArray
    area: float


def risk_coverage(confidence_N: DoubleArray, wrong_N: npt.NDArray[np.bool_], max_points: int = MAX_POINTS) -> RiskCurve:
    """Error if only the most certain rows were answered (El-Yaniv and Wiener 2010).

    Rows of equal confidence are answered together, so the order of the rows does not matter. At most `max_points`
    points are kept, spread evenly, the last (everything answered) always among them. The area counts every row.
    """
    order = np.argsort(-confidence_N, kind="stable")
    sorted_confidence = confidence_N[order]
    ends = np.flatnonzero(np.append(sorted_confidence[1:] != sorted_confidence[:-1], True))  # also of infinite ones
    answered = ends + 1
    error = np.cumsum(wrong_N[order])[ends] / answered
    area = float((error * np.diff(answered, prepend=0)).sum() / len(wrong_N))
    kept = np.unique(np.rint(np.linspace(0, len(ends) - 1, min(max_points, len(ends)))).astype(np.int64))
    return RiskCurve(answered[kept] / len(wrong_N), error[kept], area)


def most_disputed(epistemic_N: DoubleArray, classes_MN: IntArray, count: int = 24) -> IntArray:
    """The rows the members dispute most, worst first: by mutual information, then share of dissenters, then row."""
    members = len(classes_MN)
    ordered_MN = np.sort(classes_MN, axis=0)
    # Longest run of equal classes in each sorted column = votes for the most popular class.
    run_N = longest_N = np.ones(classes_MN.shape[1], np.int64)
    for m in range(1, members):
        run_N = np.where(ordered_MN[m] == ordered_MN[m - 1], run_N + 1, 1)
        longest_N = np.maximum(longest_N, run_N)
    # Mutual information that differs by rounding only counts as equal.
    order = np.lexsort((np.arange(len(epistemic_N)), longest_N, -np.round(epistemic_N, 12)))
    return order[:count].astype(np.int64)
