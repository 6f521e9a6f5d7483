"""Figures of merit of one set of predictions: error, log loss, Brier score, confusion.

Errors are fractions, log losses are in nats, the Brier score is the sum over all classes and so lies in [0, 2].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble.evaluation.aggregation import Decision, floored_log
from ensemble.evaluation.splits import AnyFloatArray
from ensemble.types import DoubleArray, IntArray


def error_rate(classes_N: IntArray, labels_N: IntArray) -> float:
    """Share of rows whose predicted class is not the label."""
    return float(np.mean(classes_N != labels_N))


def negative_log_likelihood(probs_NK: AnyFloatArray, labels_N: IntArray) -> float:
    """-(1/N) sum_n log p_n(y_n), in nats, with probabilities floored at 1e-12."""
    return max(0.0, float(-floored_log(probs_NK[np.arange(len(labels_N)), labels_N]).mean()))  # never -0.0


def vote_log_loss(vote: Decision, labels_N: IntArray) -> float:
    """The same of a vote; NaN for one that counts votes, whose shares are no probabilities to take a logarithm of."""
    return float("nan") if vote.counted else negative_log_likelihood(vote.probs_NK, labels_N)


def brier_score(probs_NK: AnyFloatArray, labels_N: IntArray) -> float:
    """(1/N) sum_n sum_k (p_nk - [k = y_n])^2 (Brier 1950: over all classes, so 0 is perfect and 2 the worst)."""
    distance_NK = probs_NK.astype(np.float64)
    distance_NK[np.arange(len(labels_N)), labels_N] -= 1.0
    return float(np.square(distance_NK).sum(axis=1).mean())


def confusion_matrix(labels_N: IntArray, classes_N: IntArray, num_classes: int) -> IntArray:
    """Counts of shape (K, K): rows are true classes, columns predicted ones."""
    cells_N = labels_N * num_classes + classes_N
    return np.bincount(cells_N, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def class_errors(confusion_KK: IntArray) -> DoubleArray:
    """Error among the rows of each true class; NaN for a class without rows."""
    rows_K = confusion_KK.sum(axis=1).astype(np.float64)
    right_K = np.diag(confusion_KK).astype(np.float64)
    errors_K: DoubleArray = np.divide(rows_K - right_K, rows_K, out=np.full(len(rows_K), np.nan), where=rows_K > 0)
    return errors_K


def wrong_rows(classes_MN: IntArray, labels_N: IntArray) -> npt.NDArray[np.bool_]:
    """Which rows each of M predictors gets wrong, shape (M, N)."""
    wrong_MN: npt.NDArray[np.bool_] = classes_MN != labels_N
    return wrong_MN
