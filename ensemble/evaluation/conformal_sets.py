"""What prediction sets are worth on rows with known classes, and how far their coverage may lie from the promise.

Nothing is chosen here, so test rows are welcome.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from ensemble.evaluation.conformal import never_empty, quantile_rank
from ensemble.evaluation.statistics import Interval, wilson_interval
from ensemble.evaluation.written import percent
from ensemble.types import DoubleArray, IntArray

# Set sizes that are looked at together (Angelopoulos et al. 2021), the last open to any number of classes.
STRATA = ((0, 1), (2, 3), (4, 10), (11, 100), (101, math.inf))


class Stratum(NamedTuple):
    """Rows whose set holds `smallest` to `largest` classes, and the share of them whose set holds the true one."""

    smallest: int
    largest: float
    rows: int
    coverage: float


class SetFigures(NamedTuple):
    """Rates are shares of all N rows, and speak of the shown sets, to which the vote's class was added where empty.

    coverage: share whose set holds the true class, and its 95 % Wilson interval, which knows of the test rows' chance
    only; see `promised_band` for the calibration rows'. raw_coverage and empty: before filling; the promise is about
    the first. class_coverage_K, class_size_K: of the sets of the rows of each true class, NaN for a class without rows. class_gap: CovGap, the
    mean over classes with rows of |coverage of the class - (1 - alpha)| (Ding et al. 2023). size_violation: SSCV, the
    largest |coverage - (1 - alpha)| over the size strata that have rows (Angelopoulos et al. 2021); a small stratum is
    noisy, so its rows are given.
    """

    coverage: float
    interval: Interval
    raw_coverage: float
    mean_size: float
    median_size: float
    empty: float
    single: float
    all_classes: float
    class_coverage_K: DoubleArray
    class_size_K: DoubleArray
    class_gap: float
    size_violation: float
    strata: tuple[Stratum, ...]


def describe(sets_NK: npt.NDArray[np.bool_], labels_N: IntArray, vote_classes_N: IntArray, alpha: float) -> SetFigures:
    """Figures of the sets `Rule.sets` gave, not yet filled. vote_classes_N: what fills the empty ones."""
    rows, classes = sets_NK.shape
    shown_NK = never_empty(sets_NK, vote_classes_N)
    covered_N = shown_NK[np.arange(rows), labels_N]
    size_N = shown_NK.sum(axis=1)
    rows_K = np.bincount(labels_N, minlength=classes)
    covered_K = np.bincount(labels_N[covered_N], minlength=classes)
    coverage_K = np.divide(covered_K, rows_K, out=np.full(classes, np.nan), where=rows_K > 0)
    strata = _strata(size_N, covered_N)
    hits = int(covered_N.sum())
    return SetFigures(
        coverage=hits / rows,
        interval=wilson_interval(hits, rows),
        raw_coverage=float(sets_NK[np.arange(rows), labels_N].mean()),
        mean_size=float(size_N.mean()),
        median_size=float(np.median(size_N)),
        empty=float((~sets_NK.any(axis=1)).mean()),
        single=float((size_N == 1).mean()),
        all_classes=float((size_N == classes).mean()),
        class_coverage_K=coverage_K,
        class_size_K=np.divide(
            np.bincount(labels_N, size_N, minlength=classes), rows_K, out=np.full(classes, np.nan), where=rows_K > 0
        ),
        class_gap=float(np.abs(coverage_K[rows_K > 0] - (1 - alpha)).mean()),
        size_violation=max(abs(stratum.coverage - (1 - alpha)) for stratum in strata),
        strata=strata,
    )


def _strata(size_N: IntArray, covered_N: npt.NDArray[np.bool_]) -> tuple[Stratum, ...]:
    """The strata that have rows."""
    found = []
    for smallest, largest in STRATA:
        own_N = (size_N >= smallest) & (size_N <= largest)
        if own_N.any():
            found.append(Stratum(smallest, largest, int(own_N.sum()), float(covered_N[own_N].mean())))
    return tuple(found)


def promised_band(n: int, alpha: float, test_rows: int | None = None, confidence: float = 0.99) -> Interval:
    """Where the raw coverage lies with this probability, over draws of n calibration rows, for scores without ties.

    On infinitely many test rows it follows Beta(k, n + 1 - k), k = ceil((n + 1)(1 - alpha)) (Vovk 2012; Angelopoulos
    and Bates 2021, arXiv 2107.07511). On `test_rows` rows the hits follow the beta-binomial distribution of
    the same parameters, and the band is wider. Both ends are 1 where n is too small for a finite threshold.
    """
    k = quantile_rank(n, alpha)
    if k > n:
        return Interval(1.0, 1.0)
    a, b, tail = float(k), float(n + 1 - k), (1 - confidence) / 2
    if test_rows is None:
        return Interval(float(special.betaincinv(a, b, tail)), float(special.betaincinv(a, b, 1 - tail)))
    hits = np.arange(test_rows + 1.0)
    misses = test_rows - hits
    logs = special.betaln(hits + a, misses + b) - special.betaln(a, b)
    logs -= np.log(test_rows + 1.0) + special.betaln(misses + 1, hits + 1)
    ends = np.searchsorted(np.cumsum(np.exp(logs)), [tail, 1 - tail])
    return Interval(*(float(end) for end in np.minimum(ends, test_rows) / test_rows))


def caution(accuracy: float, alpha: float) -> str | None:
    """A sentence for a vote that is right more often than the sets promise, None otherwise.

    accuracy: of the vote, best on validation rows: an alpha chosen by looking at test rows is a choice made on them.
    """
    if accuracy <= 1 - alpha:
        return None
    smaller = (1 - accuracy) / 2
    advice = "Such sets say little about doubt."
    if smaller > 0:
        # One significant digit, rounded down.
        unit = 10.0 ** math.floor(math.log10(smaller))
        smaller = math.floor(smaller / unit + 1e-9) * unit
        needed = math.ceil(1 / smaller - 1e-9) - 1
        advice = (
            f"A smaller alpha, for example {smaller:.1g}, tells more; it needs {needed:,} calibration rows or more."
        )
    return (
        f"The vote alone is right on {percent(accuracy)} % of the calibration rows, more than the {percent(1 - alpha)} % that the "
        f"sets promise: with lac, hardly a set then holds more than one class, and some may hold none. {advice}"
    )
