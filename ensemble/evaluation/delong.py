"""Intervals and tests for the AUROC (DeLong, DeLong and Clarke-Pearson 1988), of one score or of two on the same images.

    delong_interval(known_N, unknown_U)      # of auroc(known_N, unknown_U)
    paired_delong(known_SN, unknown_SU)      # do two scores differ?

The variance comes from each image's placement: the share of the other kind's images that it is ordered rightly with. By midranks
(Sun and Xu 2014) that takes a sort instead of all N U pairs.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from ensemble.evaluation.roc import auroc, check_scores
from ensemble.evaluation.statistics import UNDEFINED, Interval, PairedDifference
from ensemble.types import DoubleArray


def delong_interval(known_N: DoubleArray, unknown_U: DoubleArray, confidence: float = 0.95) -> Interval:
    """DeLong's interval for the AUROC, on the logit scale: logit A +- z s / (A (1 - A)), s DeLong's standard error.

    The logit keeps it within [0, 1] and covers better than A +- z s (Pepe 2003): for normal scores of equal spread it holds the truth in
    94 to 96 % of draws, with 20 images of each kind at an AUROC of 0.6 to 0.9, with 50 to 0.97, with 200 and 1000 to 0.99; the plain one
    in 89 to 95, 88 to 95 and 91 to 95 % of them. With 20 images at 0.97 it holds it in 97 %, the plain one in 78 %. Where the few errors come from a few images (AUROC of 0.97 and above from 50, unequal spreads) it holds it in about
    91 %, and from 200 at an AUROC of 0.995 in 87 %: then more images are needed, not another formula.

    Where no image's placement differs from another's (the two kinds are apart, AUROC 0 or 1, or all scores are equal, 0.5) the
    variance is 0 and says nothing. Then m = min(N, U) disjoint pairs, one image of each kind, all came out alike, so pairs of
    that kind have a share of at least q = ((1 - confidence) / 2)^(1/m) (Clopper and Pearson 1934): AUROC in [q, 1], or [0, 1 - q],
    or 0.5 +- (1 - q) / 2.

    Parameters
    ----------
    known_N, unknown_U
        Scores, higher for known images, shapes (N,) and (U,).
    confidence
        Coverage of the interval, in (0, 1).

    Returns
    -------
    Both ends in [0, 1]; NaN for fewer than two images of a kind.
    """
    check_scores(known_N, unknown_U)
    if min(len(known_N), len(unknown_U)) < 2:
        return UNDEFINED
    area = auroc(known_N, unknown_U)
    known_of_N, unknown_of_U = _placements(known_N, unknown_U)
    if _is_constant(known_of_N) and _is_constant(unknown_of_U):
        rest = 1 - _least_share(len(known_N), len(unknown_U), confidence)
        return Interval(area * (1 - rest), area + (1 - area) * rest)
    variance = float(known_of_N.var(ddof=1) / len(known_N) + unknown_of_U.var(ddof=1) / len(unknown_U))
    z = float(special.ndtri(0.5 + confidence / 2))
    half = z * float(np.sqrt(variance)) / (area * (1 - area))
    centre = float(special.logit(area))
    return Interval(float(special.expit(centre - half)), float(special.expit(centre + half)))


def paired_delong(known_SN: DoubleArray, unknown_SU: DoubleArray, confidence: float = 0.95) -> PairedDifference:
    """DeLong's test that two scores of the same images have the same AUROC, and the interval that belongs to it.

    difference / s is taken as standard normal, s^2 the variance of the mean difference of placements, so the interval leaves out 0
    exactly when p < 1 - confidence. Where the differences of placements are all equal (s = 0: the scores order all pairs alike, or
    one divides the two kinds and the other is constant) the interval comes from m = min(N, U) disjoint pairs, as in
    `delong_interval`: a share of at least q has the difference d that was seen, the rest at worst -1 or 1, so it is
    [q (1 + d) - 1, 1 - q (1 - d)], and p = min(1, 2 / (1 + |d|)^m). Scores that order alike have difference 0 and p = 1.

    For two noisy readings of one normal score the interval holds the true difference in 94 to 96 % of draws with 50 and 200 images of
    each kind at AUROCs of 0.8 to 0.88, and with 200 at 0.97 and 0.93; with 50 there in 93 %.

    Parameters
    ----------
    known_SN, unknown_SU
        Scores, higher for known images, shapes (2, N) and (2, U); the columns of both scores are the same images.
    confidence
        Coverage of the interval, in (0, 1).

    Returns
    -------
    The first AUROC minus the second, its interval and the two-sided p-value; interval and p NaN for fewer than two images of a kind.
    """
    assert len(known_SN) == len(unknown_SU) == 2, f"expected two scores, found {len(known_SN)} and {len(unknown_SU)}"
    difference = auroc(known_SN[0], unknown_SU[0]) - auroc(known_SN[1], unknown_SU[1])
    images = min(known_SN.shape[1], unknown_SU.shape[1])
    if images < 2:
        return PairedDifference(difference, *UNDEFINED, float("nan"))
    first, second = (_placements(*scores) for scores in zip(known_SN, unknown_SU, strict=True))
    known_N, unknown_U = first[0] - second[0], first[1] - second[1]
    if _is_constant(known_N) and _is_constant(unknown_U):
        share = _least_share(known_SN.shape[1], unknown_SU.shape[1], confidence)
        p = min(1.0, 2 * (1 + abs(difference)) ** -images)
        return PairedDifference(difference, share * (1 + difference) - 1, 1 - share * (1 - difference), p)
    error = float(np.sqrt(known_N.var(ddof=1) / len(known_N) + unknown_U.var(ddof=1) / len(unknown_U)))
    half = float(special.ndtri(0.5 + confidence / 2)) * error
    p = 2 * float(special.ndtr(-abs(difference) / error))
    return PairedDifference(difference, max(-1.0, difference - half), min(1.0, difference + half), p)


def _placements(known_N: DoubleArray, unknown_U: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """For each known image the share of unknown ones below it, for each unknown the share of known ones above; ties count half."""
    sorted_N, sorted_U = np.sort(known_N), np.sort(unknown_U)
    below_N = np.searchsorted(sorted_U, known_N, side="left") + np.searchsorted(sorted_U, known_N, side="right")
    below_U = np.searchsorted(sorted_N, unknown_U, side="left") + np.searchsorted(sorted_N, unknown_U, side="right")
    return below_N / (2 * len(unknown_U)), 1 - below_U / (2 * len(known_N))


def _is_constant(values: DoubleArray) -> bool:
    """All equal, but for the rounding of differences of shares."""
    return bool(values.max() - values.min() < 1e-12)


def _least_share(known: int, unknown: int, confidence: float) -> float:
    """The least share of pairs alike that min(known, unknown) disjoint pairs, all alike, leave likely enough."""
    return float(((1 - confidence) / 2) ** (1 / min(known, unknown)))
