"""What difference a test set could have shown: the power of the exact McNemar test.

    detectable_difference(46, 355)     # 0.062: from 6.2 points on, four times in five
    needed_rows(0.01, 46 / 355)        # as many rows would show a point

"Not distinguishable" says little without it: a small test set cannot tell good ensembles from single networks.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from ensemble.types import DoubleArray, IntArray

POWER = 0.8  # by custom (Cohen 1988)
_SPREAD = 9.0  # standard deviations of the number of discordant rows that are summed over
_STEPS = 40  # of bisection


def detectable_difference(discordant: int, total: int, alpha: float = 0.05, power: float = POWER) -> float:
    """The smallest true difference of two error rates that the exact McNemar test would find with this probability.

    discordant: rows that only one of the two gets wrong, of `total`; their share is taken as the true one, unless the
    difference alone is larger: then all discordant rows are on one side. NaN where not even a difference of 1 would
    be found, for want of rows.
    """
    if total == 0 or mcnemar_power(1.0, 1.0, total, alpha) < power:
        return float("nan")
    share, low, high = discordant / total, 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if mcnemar_power(middle, max(share, middle), total, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def needed_rows(difference: float, discordant_share: float, alpha: float = 0.05, power: float = POWER) -> int | None:
    """About how many test rows find a true difference of two error rates with this probability, to three digits.

    difference: positive, at most the share of rows that only one of the two gets wrong. None where ten million do not, or there is
    nothing to find.
    """
    most = 10_000_000
    if difference <= 0 or mcnemar_power(difference, discordant_share, most, alpha) < power:
        return None
    low, high = 1, most
    while high - low > 1 + high // 1000:
        middle = (low + high) // 2
        if mcnemar_power(difference, discordant_share, middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def mcnemar_power(difference: float, discordant_share: float, total: int, alpha: float = 0.05) -> float:
    """Probability that the two-sided exact McNemar test rejects, for a true difference of two error rates.

    The number of discordant rows is binomial (total, discordant_share); given n of them, those on one side are binomial
    (n, (1 + difference / discordant_share) / 2), and the test rejects where the smaller side has at most k of n, the
    largest k with 2 P(X <= k) < alpha for X binomial (n, 1/2).
    """
    assert 0 <= difference <= discordant_share <= 1, f"difference {difference:g} of {discordant_share:g} discordant"
    if discordant_share == 0:
        return 0.0
    mean = total * discordant_share
    spread = _SPREAD * np.sqrt(mean * (1 - discordant_share)) + _SPREAD
    n_D = np.arange(max(0, int(mean - spread)), min(total, int(mean + spread) + 1) + 1)
    k_D = _critical(n_D, alpha)
    q = (1 + difference / discordant_share) / 2
    # X of n on the favoured side: rejected where n - X <= k, that is n - X binomial (n, 1 - q), or where X <= k.
    rejected_D = np.where(
        k_D >= 0, special.bdtr(np.maximum(k_D, 0), n_D, 1 - q) + special.bdtr(np.maximum(k_D, 0), n_D, q), 0
    )
    return float(np.sum(_binomial(n_D, total, discordant_share) * np.minimum(rejected_D, 1)))


def _critical(n_D: IntArray, alpha: float) -> DoubleArray:
    """For each number of discordant rows the largest count of one side at which the test rejects; -1 for none."""
    near_D = (
        np.floor(n_D / 2 - np.sqrt(n_D) / 2 * float(special.ndtri(1 - alpha / 2))) + 2
    )  # rather too large than small
    k_D: DoubleArray = np.minimum(near_D, n_D // 2)
    while (wrong_D := (k_D >= 0) & (2 * special.bdtr(np.maximum(k_D, 0), n_D, 0.5) >= alpha)).any():
        k_D = np.where(wrong_D, k_D - 1, k_D)
    return np.maximum(k_D, -1)


def _binomial(n_D: IntArray, total: int, share: float) -> DoubleArray:
    """P(N = n) for N binomial (total, share)."""
    found_D: DoubleArray
    if share == 1:
        found_D = (n_D == total).astype(np.float64)
        return found_D
    logs_D = special.gammaln(total + 1) - special.gammaln(n_D + 1) - special.gammaln(total - n_D + 1)
    found_D = np.exp(logs_D + n_D * np.log(share) + (total - n_D) * np.log1p(-share))
    return found_D
