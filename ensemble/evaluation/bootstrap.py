"""From the draws of a bootstrap to an interval and a p-value that never contradict each other."""

from __future__ import annotations

import numpy as np

from ensemble.evaluation.statistics import Interval
from ensemble.types import DoubleArray

ROUNDING = 1e-12  # of differences of rates and losses


def percentile_interval(drawn_D: DoubleArray, confidence: float = 0.95) -> Interval:
    """From the j-th smallest to the j-th largest draw, j the largest number with 2 j / (D + 1) < 1 - confidence.

    It leaves out 0 exactly when `bootstrap_p` is below 1 - confidence.
    """
    draws = len(drawn_D)
    # 1 - 0.95 is a rounding error more than the 0.05 a p-value is compared with.
    j = int((2 * np.arange(1, draws + 1) / (draws + 1) < 1 - confidence - 1e-12).sum())
    assert j > 0, f"{draws} draws are too few for an interval of {confidence:g}"
    ordered_D = np.sort(_without_rounding(drawn_D))
    return Interval(float(ordered_D[j - 1]), float(ordered_D[draws - j]))


def bootstrap_p(drawn_D: DoubleArray) -> float:
    """Two-sided p-value that what was drawn is 0: 2 (s + 1) / (D + 1) with s of D draws beyond or at it (Davison and Hinkley 1997, section 4.2)."""
    settled_D = _without_rounding(drawn_D)
    beyond = min(np.count_nonzero(settled_D <= 0), np.count_nonzero(settled_D >= 0))
    return float(min(1.0, 2 * (beyond + 1) / (len(drawn_D) + 1)))


def _without_rounding(drawn_D: DoubleArray) -> DoubleArray:
    """Differences that are 0 but for rounding as 0: with few rows many draws are, and on one side of 0 they made p too small."""
    return np.where(np.abs(drawn_D) < ROUNDING, 0.0, drawn_D)
