"""Does a vote that says 90 % come true in 90 % of cases? Reliability bins and the expected calibration error.

Top-label calibration: confidence is the probability of the predicted class. ECE = sum_b n_b/N |accuracy_b -
confidence_b| (Naeini et al. 2015; Guo et al. 2017). Two binning rules:

equal width  15 bins (lo, hi] over [0, 1]; a confidence of 0 belongs to the first bin, 1 to the last.
equal mass   bins (lo, hi] between the 15-quantiles of the confidences, so that each holds about as many rows; equal
             confidences stay together, so a bin can hold more, and another be empty. The lowest confidence belongs
             to the first bin.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ensemble.evaluation.splits import AnyFloatArray
from ensemble.types import DoubleArray, IntArray

NUM_BINS = 15


class Bins(NamedTuple):
    """Edges of B bins, rows in each, and their mean confidence and accuracy (NaN in an empty bin)."""

    lower_B: DoubleArray
    upper_B: DoubleArray
    count_B: IntArray
    confidence_B: DoubleArray
    accuracy_B: DoubleArray


def confidence_of(probs_NK: AnyFloatArray, classes_N: IntArray) -> DoubleArray:
    """Probability of the predicted class, at most 1."""
    chosen_N = probs_NK[np.arange(len(classes_N)), classes_N].astype(np.float64)
    return np.minimum(chosen_N, 1.0)


def equal_width_bins(confidence_N: DoubleArray, right_N: npt.NDArray[np.bool_], bins: int = NUM_BINS) -> Bins:
    """Rows sorted into bins of the same width."""
    return _fill(confidence_N, right_N, np.linspace(0.0, 1.0, bins + 1))


def equal_mass_bins(confidence_N: DoubleArray, right_N: npt.NDArray[np.bool_], bins: int = NUM_BINS) -> Bins:
    """Rows sorted into bins of about the same number of rows."""
    # Quantiles that are data points, not interpolations: an edge between two data points would move with rounding.
    edges = np.quantile(confidence_N, np.linspace(0.0, 1.0, bins + 1), method="inverted_cdf")
    return _fill(confidence_N, right_N, edges)


def _fill(confidence_N: DoubleArray, right_N: npt.NDArray[np.bool_], edges: DoubleArray) -> Bins:
    bins = len(edges) - 1
    bin_N = np.clip(np.searchsorted(edges, confidence_N, side="left") - 1, 0, bins - 1)
    count_B = np.bincount(bin_N, minlength=bins).astype(np.int64)
    empty = np.full(bins, np.nan)
    sums = [np.bincount(bin_N, weights=values, minlength=bins) for values in (confidence_N, right_N)]
    confidence_B, accuracy_B = (np.divide(total, count_B, out=empty.copy(), where=count_B > 0) for total in sums)
    return Bins(edges[:-1], edges[1:], count_B, confidence_B, accuracy_B)


def expected_calibration_error(bins: Bins) -> float:
    """sum_b n_b/N |accuracy_b - confidence_b|."""
    gap_B = np.abs(np.nan_to_num(bins.accuracy_B) - np.nan_to_num(bins.confidence_B))
    return float((bins.count_B * gap_B).sum() / bins.count_B.sum())
