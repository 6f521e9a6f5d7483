"""Is one classifier as good as another, within a margin? Two one-sided tests of the difference of two error rates on the same rows.

A difference that is not significant does not show that there is none. Equivalence is shown where the difference is proved to lie
within (-margin, margin), a margin chosen before looking (Schuirmann 1987: two one-sided tests at 5 %, the same as a 90 % interval
that lies within the margin).

    compare(b=12, c=15, total=10_000, margin=0.005).verdict     # "equivalent"
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from ensemble.evaluation.records import Outcome
from ensemble.evaluation.statistics import UNDEFINED, Interval, mcnemar_exact
from ensemble.evaluation.written import ALPHA, p_equation, percent, points
from ensemble.types import DoubleArray

EquivalenceVerdict = Literal["equivalent", "not shown to be equivalent"]
_STEPS = 60  # of bisection, to the last bit of a float in [-1, 1]


class Equivalence(NamedTuple):
    """Two error rates within a margin of each other or not, and whether they differ.

    difference: first minus second; negative where the first is better. p_value: of the two one-sided tests, the larger. lower,
    upper: the interval of the difference with 1 - 2 alpha confidence; it lies within (-margin, margin) exactly for
    p_value < alpha. outcome, p_difference: the exact McNemar test of there being no difference.
    """

    difference: float
    margin: float
    p_value: float
    lower: float
    upper: float
    verdict: EquivalenceVerdict
    outcome: Outcome
    p_difference: float
    sentence: str


def compare(b: int, c: int, total: int, margin: float, alpha: float = ALPHA) -> Equivalence:
    """Test two classifiers on the same rows for equivalence within a margin, and for a difference.

    Parameters
    ----------
    b, c
        Rows that only the first, only the second gets wrong.
    total
        All rows, at least b + c.
    margin
        The difference of error rates that would not matter, in (0, 1); 0.005 is half a point.
    alpha
        Level of each of the three tests.
    """
    p, interval = equivalence_p(b, c, total, margin), tango_interval(b, c, total, 1 - 2 * alpha)
    p_difference = mcnemar_exact(b, c)
    outcome: Outcome = "not distinguishable"
    if p_difference < alpha:
        outcome = "better" if b < c else "worse"
    verdict: EquivalenceVerdict = "equivalent" if p < alpha else "not shown to be equivalent"
    difference = (b - c) / total if total else float("nan")
    sentence = (
        f"{_claim(verdict, outcome, margin)}: a difference of {points(difference)} points ({percent(1 - 2 * alpha, 0)} % interval "
        f"{points(interval.lower)} to {points(interval.upper)}; two one-sided score tests, {p_equation(p)}; exact McNemar test of no "
        f"difference, {p_equation(p_difference)})."
    )
    return Equivalence(difference, margin, p, *interval, verdict, outcome, p_difference, sentence)


def equivalence_p(b: int, c: int, total: int, margin: float) -> float:
    """p-value of the two one-sided tests that the difference of two error rates lies outside (-margin, margin).

    The larger of Phi(T(margin)) and 1 - Phi(T(-margin)), T Tango's score (`tango_score`); 1 for no rows. Summed over all tables with
    the true difference at the margin, each test rejects in at most 5.5 % (1,000 rows, 5 expected discordant) and as a rule 4.5 to
    5.1 % at a level of 5 %, both together never more than 5 % there (1,000 and 10,000 rows, 0.5 to 5 % discordant).

    Parameters
    ----------
    b, c, total, margin
        As in `compare`.
    """
    assert 0 < margin < 1, f"the margin must lie in (0, 1), found {margin:g}"
    _check(b, c, total)
    if total == 0:
        return 1.0
    below, above = tango_score(b, c, total, np.array([margin, -margin]))
    return float(max(special.ndtr(below), special.ndtr(-above)))


def tango_interval(b: int, c: int, total: int, confidence: float = 0.9) -> Interval:
    """Score interval for the difference (b - c) / total of two error rates on the same rows (Tango 1998).

    The differences whose score lies within +- z. As the score falls with the difference, both ends are found by bisection.

    Parameters
    ----------
    b, c, total
        As in `compare`.
    confidence
        Coverage of the interval, in (0, 1); 0.9 belongs to two one-sided tests at 5 %.

    Returns
    -------
    Both ends in [-1, 1]; NaN for no rows.
    """
    _check(b, c, total)
    if total == 0:
        return UNDEFINED
    z = float(special.ndtri(0.5 + confidence / 2))
    wanted = np.array([z, -z])
    low, high = np.full(2, -1.0), np.full(2, 1.0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        above = tango_score(b, c, total, middle) > wanted
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    # The ends that lie further out: a margin between the two is not yet proved.
    return Interval(float(low[0]), float(high[1]))


def tango_score(b: npt.ArrayLike, c: npt.ArrayLike, total: npt.ArrayLike, difference: npt.ArrayLike) -> DoubleArray:
    """Tango's score for a true difference D of two error rates (Tango 1998, equation 2; Nam 1997): standard normal if it is the true one.

        T(D) = (b - c - n D) / sqrt(n (2 q + D (1 - D)))

    with q the likeliest rate of rows that only the second gets wrong, given D: the larger root of 2 n q^2 + B q + C = 0 with
    B = (2 n - b + c) D - b - c and C = -c D (1 - D). At D = 0 it is McNemar's (b - c) / sqrt(b + c). 0 where the variance is 0.

    Parameters
    ----------
    b, c, total, difference
        Counts as in `compare`, and D in [-1, 1]; numbers or arrays of shapes that broadcast.
    """
    b, c, n, d = (np.asarray(value, np.float64) for value in (b, c, total, difference))
    linear, constant = (2 * n - b + c) * d - b - c, -c * d * (1 - d)
    root = np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0))
    # Of the two forms of the root the one that does not subtract nearly equal numbers.
    rest = np.where(linear > 0, linear + root, 1)
    q = np.where(linear > 0, -2 * constant / rest, (root - linear) / (4 * n))
    variance = n * (2 * q + d * (1 - d))
    score: DoubleArray = np.where(variance > 0, (b - c - n * d) / np.sqrt(np.where(variance > 0, variance, 1)), 0)
    return score


def _check(b: int, c: int, total: int) -> None:
    assert min(b, c) >= 0, f"counts must not be negative, found {b} and {c}"
    assert b + c <= total, f"{b} + {c} discordant rows of {total}"


def _claim(verdict: EquivalenceVerdict, outcome: Outcome, margin: float) -> str:
    """Both answers in one clause."""
    within = f"within {percent(margin)} points"
    if verdict == "equivalent" and outcome == "not distinguishable":
        return f"The first is as good as the second {within}"
    if verdict == "equivalent":
        return f"The first is {outcome} than the second, but equivalent {within}"
    if outcome == "not distinguishable":
        return f"The first is not distinguishable from the second, and not shown to be equivalent {within}"
    return f"The first is {outcome} than the second, and not shown to be equivalent {within}"
