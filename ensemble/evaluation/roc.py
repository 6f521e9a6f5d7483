"""Detecting unknown images by a score: AUROC, false positive rate at 95 %, and the areas under precision and recall.

Known images come from the classes the networks were trained on, unknown ones (out-of-distribution) from elsewhere. A score is
higher for images that are more likely known: the largest mean probability, or minus the entropy.

    auroc(known_N, unknown_U)                  # 0.5 for a score that says nothing, 1 for one that divides the two
    false_positive_rate(known_N, unknown_U)    # FPR95 as in OpenOOD
    fpr_interval(known_N, unknown_U, seed=1)   # and its bootstrap interval

Thresholds lie between distinct scores, so equal scores are always on the same side, as in scikit-learn's `roc_curve` with
`drop_intermediate=False`. Intervals and tests for the AUROC are in `delong`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ensemble.evaluation.statistics import Interval
from ensemble.types import DoubleArray, IntArray

Positive = Literal["unknown", "known"]
DRAWS = 10_000


class _Caught(NamedTuple):
    """Positive and negative rows caught at each of T thresholds, the strictest first."""

    true_T: IntArray
    false_T: IntArray


def auroc(known_N: DoubleArray, unknown_U: DoubleArray) -> float:
    """Area under the ROC curve: the probability that a known image scores above an unknown one, equal scores counting half.

    The Mann-Whitney statistic divided by N U (Hanley and McNeil 1982), by sorting and with exact counts. It is the same
    whichever of the two is called positive.

    Parameters
    ----------
    known_N, unknown_U
        Scores, shapes (N,) and (U,), neither empty and without NaN.

    Returns
    -------
    The area in [0, 1].
    """
    check_scores(known_N, unknown_U)
    sorted_N = np.sort(known_N)
    sorted_U = np.sort(unknown_U)  # sorted searches stay near each other in memory
    below = int(np.searchsorted(sorted_N, sorted_U, side="left").sum())
    not_above = int(np.searchsorted(sorted_N, sorted_U, side="right").sum())
    pairs = len(known_N) * len(unknown_U)
    return (2 * pairs - below - not_above) / (2 * pairs)


def false_positive_rate(
    known_N: DoubleArray, unknown_U: DoubleArray, at: float = 0.95, positive: Positive = "unknown"
) -> float:
    """False positive rate at the first threshold that catches at least this share of the positive images (FPR95).

    Parameters
    ----------
    known_N, unknown_U
        Scores, shapes (N,) and (U,).
    at
        Share of positive images to catch, in (0, 1].
    positive
        "unknown", as in OpenOOD v1.5 (Zhang et al. 2023): the share of known images rejected when at least 95 % of the
        unknown ones are. "known", as in Liang et al. 2018 (ODIN) and much work since: the share of unknown images accepted when
        at least 95 % of the known ones are. The two differ; say which one a figure is.

    Returns
    -------
    The rate in [0, 1].
    """
    positive_P, negative_Q = _lower_is_positive(known_N, unknown_U, positive)
    rank = _needed(len(positive_P), at) - 1
    return float(np.mean(negative_Q <= np.partition(positive_P, rank)[rank]))


def fpr_interval(
    known_N: DoubleArray,
    unknown_U: DoubleArray,
    seed: int,
    at: float = 0.95,
    positive: Positive = "unknown",
    confidence: float = 0.95,
    draws: int = DRAWS,
) -> Interval:
    """Bootstrap percentile interval of `false_positive_rate`, drawing known and unknown rows separately.

    No rows need to be drawn (Efron and Tibshirani 1993, chapter 13, for the percentile interval): of P positive rows drawn with
    replacement, the k-th smallest is row floor(P B) of the sorted ones, where B is the k-th smallest of P uniform numbers, so
    B ~ Beta(k, P - k + 1); and of the negative rows, those on its wrong side are binomial. Each draw has exactly the
    distribution of a draw of rows, ties included.

    Parameters
    ----------
    known_N, unknown_U, at, positive
        As in `false_positive_rate`.
    seed
        Of the draws; the same seed gives the same interval.
    confidence
        Coverage of the interval, in (0, 1).
    draws
        Number of bootstrap draws.

    Returns
    -------
    Both ends, in [0, 1].
    """
    positive_P, negative_Q = _lower_is_positive(known_N, unknown_U, positive)
    generator = np.random.default_rng(seed)
    count, rows = len(positive_P), len(negative_Q)
    needed = _needed(count, at)
    drawn_D = (count * generator.beta(needed, count - needed + 1, draws)).astype(np.int64)
    thresholds_D = np.sort(positive_P)[np.minimum(drawn_D, count - 1)]
    caught_D = np.searchsorted(np.sort(negative_Q), thresholds_D, side="right")
    rates_D = generator.binomial(rows, caught_D / rows) / rows
    tail = (1 - confidence) / 2
    return Interval(*(float(end) for end in np.quantile(rates_D, [tail, 1 - tail])))


def aupr(known_N: DoubleArray, unknown_U: DoubleArray, positive: Positive = "unknown") -> float:
    """Area under the precision-recall curve by the trapezoid rule, as OpenOOD v1.5 reports it.

    "unknown" is OpenOOD's AUPR_OUT, "known" its AUPR_IN: `auc(recall, precision)` of scikit-learn's curve, which begins at
    recall 0 with precision 1. Straight lines between points are too high (Davis and Goadrich 2006), most where many scores are
    equal; `average_precision` has no lines. Both depend on the ratio of known to unknown images.

    Parameters
    ----------
    known_N, unknown_U, positive
        As in `false_positive_rate`.

    Returns
    -------
    The area in [0, 1].
    """
    recall_T, precision_T = _precision_recall(known_N, unknown_U, positive)
    return float(np.sum(np.diff(recall_T, prepend=0.0) * (precision_T + np.append(1.0, precision_T[:-1])) / 2))


def average_precision(known_N: DoubleArray, unknown_U: DoubleArray, positive: Positive = "unknown") -> float:
    """Average precision: the sum over thresholds of (recall gained) x precision, as scikit-learn and torchmetrics have it.

    Parameters
    ----------
    known_N, unknown_U, positive
        As in `false_positive_rate`.

    Returns
    -------
    The average in [0, 1].
    """
    recall_T, precision_T = _precision_recall(known_N, unknown_U, positive)
    return float(np.sum(np.diff(recall_T, prepend=0.0) * precision_T))


def check_scores(known_N: DoubleArray, unknown_U: DoubleArray) -> None:
    """Scores must be there, and be numbers: NaN has no place in an order."""
    for name, scores in (("known", known_N), ("unknown", unknown_U)):
        assert scores.ndim == 1, f"scores of {name} images must have one axis, found shape {scores.shape}"
        assert len(scores) > 0, f"there are no scores of {name} images"
        assert not np.isnan(scores).any(), f"{int(np.isnan(scores).sum())} scores of {name} images are NaN"


def _lower_is_positive(
    known_N: DoubleArray, unknown_U: DoubleArray, positive: Positive
) -> tuple[DoubleArray, DoubleArray]:
    """Scores of positive and negative images, turned so that the lowest are caught first."""
    check_scores(known_N, unknown_U)
    return (unknown_U, known_N) if positive == "unknown" else (-known_N, -unknown_U)


def _needed(count: int, at: float) -> int:
    """The least k with k / count >= at, both as floats, as when a curve is searched for its first sufficient point."""
    assert 0 < at <= 1, f"the share to catch must lie in (0, 1], found {at:g}"
    return int(np.searchsorted(np.arange(count + 1) / count, at, side="left"))


def _caught(positive_P: DoubleArray, negative_Q: DoubleArray) -> _Caught:
    """What is caught up to each distinct score, from the lowest."""
    scores = np.concatenate([positive_P, negative_Q])
    order = np.argsort(scores, kind="stable")
    sorted_scores = scores[order]
    ends_T = np.flatnonzero(np.append(sorted_scores[1:] != sorted_scores[:-1], True))
    true_T = np.cumsum(order < len(positive_P), dtype=np.int64)[ends_T]
    return _Caught(true_T, ends_T + 1 - true_T)


def _precision_recall(
    known_N: DoubleArray, unknown_U: DoubleArray, positive: Positive
) -> tuple[DoubleArray, DoubleArray]:
    """Recall and precision at each of T thresholds, the strictest first."""
    positive_P, negative_Q = _lower_is_positive(known_N, unknown_U, positive)
    caught = _caught(positive_P, negative_Q)
    return caught.true_T / len(positive_P), caught.true_T / (caught.true_T + caught.false_T)
