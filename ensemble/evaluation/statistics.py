"""Intervals and tests for error rates: Wilson, exact McNemar and its interval, Holm, Student's t.

Everything is closed form on counts; `scipy.special` is enough and loads far quicker than `scipy.stats`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from ensemble.types import DoubleArray


class Interval(NamedTuple):
    """Both ends of an interval; NaN where it is undefined."""

    lower: float
    upper: float


class PairedDifference(NamedTuple):
    """A difference of two figures on the same rows (first minus second), its interval, and the p-value of there being none."""

    difference: float
    lower: float
    upper: float
    p_value: float


UNDEFINED = Interval(float("nan"), float("nan"))


def wilson_interval(wrong: int, total: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion (Wilson 1927), undefined for no rows.

    centre (p + z^2/2n) / (1 + z^2/n), half-width z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n).
    """
    assert 0 <= wrong <= total, f"{wrong} wrong of {total}"
    if total == 0:
        return UNDEFINED
    z = float(special.ndtri(0.5 + confidence / 2))
    p, spread = wrong / total, z * z / total
    centre = (p + spread / 2) / (1 + spread)
    half = z * np.sqrt(p * (1 - p) / total + spread / (4 * total)) / (1 + spread)
    # At the ends the formula is exact in theory and off by a rounding error in floats.
    lower = 0.0 if wrong == 0 else max(0.0, float(centre - half))
    upper = 1.0 if wrong == total else min(1.0, float(centre + half))
    return Interval(lower, upper)


def mcnemar_exact(b: int, c: int, mid_p: bool = False) -> float:
    """Two-sided exact p-value that two classifiers err equally often, from their discordant counts b and c.

    p = min(1, 2 P(X <= min(b, c))) for X binomial with n = b + c tries of 1/2, and 1 for n = 0 (McNemar 1947). The
    mid-p variant counts only half of P(X = min(b, c)) and is less conservative (Fagerland et al. 2013).
    """
    assert min(b, c) >= 0, f"counts must not be negative, found {b} and {c}"
    n, smaller = b + c, min(b, c)
    if n == 0:
        return 1.0
    p = 2 * float(special.bdtr(smaller, n, 0.5))
    if mid_p:
        fewer = float(special.bdtr(smaller - 1, n, 0.5)) if smaller else 0.0
        p = p / 2 + fewer
    return min(1.0, p)


def holm(p_values: Sequence[float]) -> DoubleArray:
    """Holm's step-down adjustment of p-values that belong to one family (Holm 1979); NaN stays NaN and does not count.

    The i-th smallest of n is multiplied by n - i + 1, and no adjusted value falls below a smaller one's.
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent rates in [0, 1], cut to that range.

    Undefined for fewer than three values, where t's tails make it wider than what is known anyway, and for values that
    are all equal: rates are counts over a few rows, and their agreeing does not make the mean certain.
    """
    count = len(values)
    if count < 3 or min(values) == max(values):
        return UNDEFINED
    t = float(special.stdtrit(count - 1, 0.5 + confidence / 2))
    mean = float(np.mean(values))
    half = t * float(np.std(values, ddof=1)) / float(np.sqrt(count))
    return Interval(max(0.0, mean - half), min(1.0, mean + half))


def welch_t(one: Sequence[float], other: Sequence[float]) -> float:
    """Two-sided p-value of Welch's t test for equal means of independent values (Welch 1947).

    NaN for fewer than two values on a side, and where neither side varies: then there is nothing to measure a
    difference of the means by.
    """
    if min(len(one), len(other)) < 2:
        return float("nan")
    a, b = (float(np.var(values, ddof=1)) / len(values) for values in (one, other))
    if min(one) == max(one) and min(other) == max(other):
        return float("nan")
    difference = float(np.mean(one) - np.mean(other))
    freedom = (a + b) ** 2 / (a * a / (len(one) - 1) + b * b / (len(other) - 1))
    return float(2 * special.stdtr(freedom, -abs(difference) / np.sqrt(a + b)))


def paired_difference_interval(b: int, c: int, total: int, confidence: float = 0.95) -> Interval:
    """Interval for the difference (b - c) / total of two error rates on the same rows, belonging to `mcnemar_exact`.

    b rows only the first gets wrong, c only the second. The interval leaves out 0 exactly when the exact McNemar test
    has p < 1 - confidence. It spans two intervals:

    exact      (b + c) / total (2 q - 1), q between Clopper and Pearson's ends (1934) for b of b + c tries: the shares
               of discordant rows that the exact test does not reject, with their number taken as it is;
    varying    Bonett and Price's (2012), which also lets that number vary: (b - c)/(n + 2) +- z sqrt((p1 + p2 -
               (p1 - p2)^2) / (n + 2)) with p1 = (b + 1)/(n + 2), p2 = (c + 1)/(n + 2);

    but never reaches beyond 0 on a side where the exact one does not.
    """
    if total == 0:
        return UNDEFINED
    tail = (1 - confidence) / 2
    z = float(special.ndtri(1 - tail))
    p1, p2 = (b + 1) / (total + 2), (c + 1) / (total + 2)
    half = z * float(np.sqrt((p1 + p2 - (p1 - p2) ** 2) / (total + 2)))
    exact = _exact_difference(b, c, total, tail)
    lower, upper = min(exact.lower, p1 - p2 - half), max(exact.upper, p1 - p2 + half)
    if exact.lower > 0 >= lower:
        lower = exact.lower
    if exact.upper < 0 <= upper:
        upper = exact.upper
    return Interval(max(-1.0, lower), min(1.0, upper))


def _exact_difference(b: int, c: int, total: int, tail: float) -> Interval:
    """The exact interval of `paired_difference_interval`. tail: probability left out at each end."""
    lowest = float(special.betaincinv(b, c + 1, tail)) if b else 0.0
    highest = float(special.betaincinv(b + 1, c, 1 - tail)) if c else 1.0
    share = (b + c) / total
    return Interval(share * (2 * lowest - 1), share * (2 * highest - 1))
