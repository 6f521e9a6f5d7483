"""Promising an error: a confidence threshold chosen on validation above which the risk is held down, and whether test bears it out.

    promise = choose_guaranteed_threshold(validation, classes_N, confidence_N, risk=0.01)
    kept(promise, test_confidence_N, test_wrong_N).outcome     # "kept", "broken" or "cannot be told"

Selective risk is the error among the rows answered, those with a confidence of at least the threshold.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from ensemble.evaluation.selective import Answered, answered_together
from ensemble.evaluation.splits import SplitVotes, require_choosable
from ensemble.evaluation.statistics import Interval, wilson_interval
from ensemble.types import DoubleArray, IntArray

KeptOutcome = Literal["kept", "broken", "cannot be told"]


class Promise(NamedTuple):
    """A threshold and what is promised above it.

    threshold: rows of at least this confidence are answered; infinite where nothing can be promised. risk: the error
    promised among them. delta: probability that the promise is wrong; NaN where none is guaranteed. coverage, observed: share
    of the validation rows answered, and the error among these (NaN for none). bound: upper bound on the true risk that holds
    with probability 1 - delta; NaN where none is guaranteed, and for no rows.
    """

    threshold: float
    risk: float
    delta: float
    coverage: float
    observed: float
    bound: float

    @property
    def guaranteed(self) -> bool:
        """Whether the promise holds with a stated probability."""
        return not math.isnan(self.delta)


class Kept(NamedTuple):
    """A promise on other rows: how many were answered and how many of these in error, with Wilson's intervals (NaN for none)."""

    rows: int
    answered: int
    wrong: int
    coverage: float
    coverage_interval: Interval
    risk: float
    risk_interval: Interval
    outcome: KeptOutcome


def choose_guaranteed_threshold(
    validation: SplitVotes, classes_N: IntArray, confidence_N: DoubleArray, risk: float, delta: float = 0.05
) -> Promise:
    """The lowest threshold found whose true selective risk is at most `risk` with probability 1 - delta.

    Selection with guaranteed risk (Geifman and El-Yaniv 2017, algorithm 1): a binary search over the distinct confidences, in
    which a threshold passes when the upper bound on its risk is at most `risk`. The bound inverts the binomial tail (Clopper and
    Pearson 1934) at delta / k, for the k = ceil(log2(G + 1)) steps of a search over G confidences (Bonferroni); G is N without
    equal confidences. The lowest threshold that passed is taken. Unlike theirs, the search leaves out thresholds with so few rows
    that none of them being wrong would not pass: the counts alone say so, and it would otherwise look at still fewer. Which
    thresholds are looked at depends on the data, which the union bound passes over; in simulations the promise held in 98.6 % of
    draws or more (200 and 2,000 rows, delta 5 %, a confidence that says nothing included).

    It holds if validation and later rows are drawn alike, and the rows had no part in training, temperatures or weights; a choice
    of the score on the same rows is not accounted for.

    Parameters
    ----------
    validation
        Votes on the rows to choose on; only their labels are read.
    classes_N, confidence_N
        The class answered for each row and the confidence in it, both of shape (N,).
    risk
        The error to promise among answered rows, in [0, 1].
    delta
        Probability that the promise may be wrong, in (0, 1).

    Raises
    ------
    PeekingError
        For test votes.
    """
    assert 0 < delta < 1, f"delta must lie in (0, 1), found {delta:g}"
    found = _on_validation(validation, classes_N, confidence_N)
    groups = len(found.answered_G)
    tail = delta / groups.bit_length()  # ceil(log2(groups + 1)) steps
    too_few = int(np.sum(1 - tail ** (1 / found.answered_G) > risk))
    passed, failed = too_few - 1, groups
    best, bound = -1, float("nan")
    while failed - passed > 1:
        g = (passed + failed) // 2
        upper = _upper_bound(int(found.wrong_G[g]), int(found.answered_G[g]), tail)
        if upper <= risk:
            passed = best = g
            bound = upper
        else:
            failed = g
    return _promise(found, best, risk, delta, bound)


def choose_empirical_threshold(
    validation: SplitVotes, classes_N: IntArray, confidence_N: DoubleArray, risk: float
) -> Promise:
    """The lowest threshold whose selective risk on validation is at most `risk`: no guarantee, and on other rows it is often more.

    Parameters
    ----------
    validation, classes_N, confidence_N, risk
        As in `choose_guaranteed_threshold`.

    Raises
    ------
    PeekingError
        For test votes.
    """
    found = _on_validation(validation, classes_N, confidence_N)
    enough = np.flatnonzero(found.wrong_G / found.answered_G <= risk)
    return _promise(found, int(enough[-1]) if len(enough) else -1, risk, float("nan"), float("nan"))


def kept(promise: Promise, confidence_N: DoubleArray, wrong_N: npt.NDArray[np.bool_], confidence: float = 0.95) -> Kept:
    """Apply a promise's threshold to rows it was not chosen on, as a rule test rows.

    Kept where the whole of Wilson's interval of the risk lies at or below the promised one, broken where it lies above, and not to be told
    in between and where no row is answered.

    Parameters
    ----------
    promise
        From one of the functions above.
    confidence_N, wrong_N
        Confidence of each row and whether it is in error, both of shape (N,).
    confidence
        Of both intervals, in (0, 1).
    """
    answered_N = confidence_N >= promise.threshold
    rows, answered, wrong = len(wrong_N), int(answered_N.sum()), int(wrong_N[answered_N].sum())
    interval = wilson_interval(wrong, answered, confidence)
    outcome: KeptOutcome = "cannot be told"
    if interval.upper <= promise.risk:
        outcome = "kept"
    elif interval.lower > promise.risk:
        outcome = "broken"
    return Kept(
        rows, answered, wrong, answered / rows if rows else float("nan"), wilson_interval(answered, rows, confidence),
        wrong / answered if answered else float("nan"), interval, outcome,
    )  # fmt: skip


def _on_validation(validation: SplitVotes, classes_N: IntArray, confidence_N: DoubleArray) -> Answered:
    require_choosable(validation)
    assert classes_N.shape == (validation.num_rows,), f"{validation.num_rows} rows, but {classes_N.shape} classes"
    return answered_together(confidence_N, classes_N != validation.labels_N)


def _upper_bound(wrong: int, answered: int, tail: float) -> float:
    """The error at which so few of the answered rows are wrong with probability `tail` only."""
    return 1.0 if wrong == answered else float(special.betaincinv(wrong + 1, answered - wrong, 1 - tail))


def _promise(found: Answered, g: int, risk: float, delta: float, bound: float) -> Promise:
    """The promise of answering the first g + 1 groups of equal confidence; none for g = -1."""
    if g < 0:
        return Promise(float("inf"), risk, delta, 0.0, float("nan"), float("nan"))
    answered, rows = int(found.answered_G[g]), int(found.answered_G[-1])
    return Promise(float(found.confidence_G[g]), risk, delta, answered / rows, int(found.wrong_G[g]) / answered, bound)
