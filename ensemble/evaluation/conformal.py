"""Split conformal prediction: sets of classes that hold the true one with a promised probability.

A score says how badly a class fits a row, given the vote's probabilities. The threshold is the k-th smallest score of
the true classes of n calibration rows, k = ceil((n + 1)(1 - alpha)), and the set of a row is every class that scores no
more. If calibration and test rows are exchangeable, and the vote was trained and chosen without either, a set holds the
true class with probability 1 - alpha or more, and at most 1 - alpha + 1/(n + 1) where scores have no ties (Vovk et al.
2005; Lei et al. 2018). Rows that stopped the training or fitted a temperature are not exchangeable with test ones.

lac    s = 1 - p(y)                                        (Sadinle et al. 2019, arXiv 1609.00451; also called THR)
aps    s = sum of the probabilities down to rank r(y)      (Romano et al. 2020, arXiv 2006.02544)
raps   s = the same + penalty max(0, r(y) - k_reg)         (Angelopoulos et al. 2021, arXiv 2009.14193)

Ranks count from 1, the most probable class first and the lowest class first among equals. lac has the smallest sets on
average; aps and raps adapt the size to the row. Their sum includes p(y) itself, so sets are large, and the set of a row
whose highest probability is above the threshold is empty although nothing is in doubt there: show `never_empty` sets.
A class of the last rank always scores the same, which ties scores where such classes are often true.
Randomised, U p(y) is taken off, U uniform in [0, 1), one per row, and sets are smaller: of a calibrated vote with ten
classes and an error of 0.07, at alpha = 0.1, 1.14 classes instead of 3.07 once 8 % and 11 % empty sets were filled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.types import DoubleArray, IntArray

Method = Literal["lac", "aps", "raps"]
# Floats make 3.0000000000000004 of 10 (1 - 0.7), and a fourth score of the third.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Rule:
    """How a row's set is made. threshold: infinite where calibration rows are too few, so that sets hold all classes.

    rows: calibration rows. penalty and k_reg belong to raps; randomised and seed to aps and raps.
    """

    method: Method
    alpha: float
    threshold: float
    rows: int
    randomised: bool = False
    penalty: float = 0.0
    k_reg: int = 0
    seed: int = 0

    def scores(self, probs_NK: AnyFloatArray) -> DoubleArray:
        """The score of every class, shape (N, K)."""
        if self.method == "lac":
            lac_NK: DoubleArray = 1.0 - probs_NK.astype(np.float64)
            return lac_NK
        return _adaptive_scores(probs_NK.astype(np.float64), self)

    def sets(self, probs_NK: AnyFloatArray) -> npt.NDArray[np.bool_]:
        """Which classes each row's set holds, shape (N, K). Sets may be empty, see `never_empty`."""
        inside_NK: npt.NDArray[np.bool_] = self.scores(probs_NK) <= self.threshold
        return inside_NK


def calibrate(
    method: Method,
    calibration: SplitVotes,
    alpha: float,
    *,
    randomised: bool = False,
    penalty: float = 0.1,
    k_reg: int = 1,
    seed: int = 0,
) -> Rule:
    """The rule whose sets miss the true class with probability alpha or less.

    calibration: the combined vote as a single member. penalty and k_reg must be fixed beforehand or chosen on other
    rows; the defaults are this project's, for about ten classes.
    Raises PeekingError for test votes.
    """
    require_choosable(calibration)
    assert calibration.num_members == 1, f"pass the combined vote as one member, not {calibration.num_members}"
    assert penalty >= 0, f"a penalty must not be negative, found {penalty}"
    assert method != "lac" or not randomised, "lac has no randomised form"
    own = (penalty, k_reg) if method == "raps" else (0.0, 0)
    open_rule = Rule(method, alpha, math.inf, calibration.num_rows, randomised, *own, seed if randomised else 0)
    scores_NK = open_rule.scores(calibration.probs_MNK[0])
    true_N = scores_NK[np.arange(calibration.num_rows), calibration.labels_N]
    threshold = quantile(true_N, alpha)
    return Rule(method, alpha, threshold, calibration.num_rows, randomised, *own, seed if randomised else 0)


def quantile_rank(n: int, alpha: float) -> int:
    """k = ceil((n + 1)(1 - alpha)), from 1 to n + 1; n + 1 means that n rows are too few for a finite threshold."""
    assert 0 < alpha < 1, f"alpha must lie in (0, 1), found {alpha}"
    return max(1, math.ceil((n + 1) * (1 - alpha) - ROUNDING))


def quantile(scores_n: DoubleArray, alpha: float) -> float:
    """The k-th smallest score, k = ceil((n + 1)(1 - alpha)), not interpolated; infinity for k > n."""
    k = quantile_rank(len(scores_n), alpha)
    return float(np.partition(scores_n, k - 1)[k - 1]) if k <= len(scores_n) else math.inf


def never_empty(sets_NK: npt.NDArray[np.bool_], vote_classes_N: IntArray) -> npt.NDArray[np.bool_]:
    """The sets, with the vote's class where a set was empty: what to show. Coverage can only grow."""
    filled_NK = sets_NK.copy()
    empty = np.flatnonzero(~sets_NK.any(axis=1))
    filled_NK[empty, vote_classes_N[empty]] = True
    return filled_NK


def _adaptive_scores(probs_NK: DoubleArray, rule: Rule) -> DoubleArray:
    """aps, or raps with a penalty: sum of the probabilities down to each class's own rank, minus U times its own."""
    order_NK = np.argsort(-probs_NK, axis=1, kind="stable")
    sorted_NK = np.take_along_axis(probs_NK, order_NK, axis=1)
    ranked_NK = np.cumsum(sorted_NK, axis=1)
    if rule.randomised:
        ranked_NK -= row_uniforms(probs_NK, rule.seed)[:, None] * sorted_NK
    ranked_NK += rule.penalty * np.maximum(0, np.arange(1, probs_NK.shape[1] + 1) - rule.k_reg)
    scores_NK = np.empty_like(ranked_NK)
    np.put_along_axis(scores_NK, order_NK, ranked_NK, axis=1)
    return scores_NK


def row_uniforms(probs_NK: AnyFloatArray, seed: int) -> DoubleArray:
    """One number in [0, 1) per row, a fixed function of its probabilities: the same image always gets the same set.

    The score stays a fixed function of probabilities and class, so the guarantee needs nothing of this number, not even
    that it be uniform. Rows with equal probabilities share it. Their bits are mixed by splitmix64's finaliser (Steele,
    Lea and Flood 2014), class by class.
    """
    # Adding 0 makes a negative zero a positive one.
    bits_NK = (probs_NK.astype(np.float64) + 0.0).view(np.uint64)
    state_N = np.full(len(bits_NK), seed % 2**64, np.uint64)
    for k in range(bits_NK.shape[1]):
        state_N = _mixed((state_N ^ bits_NK[:, k]) + np.uint64(0x9E3779B97F4A7C15))
    return (state_N >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(state_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state_N = (state_N ^ (state_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state_N = (state_N ^ (state_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_N: npt.NDArray[np.uint64] = state_N ^ (state_N >> np.uint64(31))
    return mixed_N
