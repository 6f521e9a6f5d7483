"""How loud each member votes, learned from validation or out-of-bag votes."""

from __future__ import annotations

import numpy as np

from ensemble.evaluation.aggregation import PROBABILITY_FLOOR
from ensemble.evaluation.metrics import negative_log_likelihood, wrong_rows
from ensemble.evaluation.splits import SplitVotes, require_choosable
from ensemble.types import DoubleArray

NEGLIGIBLE = 1e-6


def best_member(votes: SplitVotes) -> int:
    """Position of the member with the lowest error; of equals the lowest log loss, then the first.

    Raises PeekingError for test votes.
    """
    require_choosable(votes)
    wrong_M = wrong_rows(votes.favourites_MN, votes.labels_N).sum(axis=1)
    equals = np.flatnonzero(wrong_M == wrong_M.min())
    losses = [negative_log_likelihood(votes.probs_MNK[m], votes.labels_N) for m in equals]
    return int(equals[int(np.argmin(losses))])


def log_odds_weights(votes: SplitVotes) -> DoubleArray:
    """SAMME's weight of each member (Zhu et al. 2009): log((1 - e)/e) + log(K - 1), not below 0.

    e is the member's error on these votes, not below 1/(2N), so that a faultless member has a finite weight. All
    weights are 0 when no member beats guessing. Raises PeekingError for test votes.
    """
    require_choosable(votes)
    error_M = wrong_rows(votes.favourites_MN, votes.labels_N).mean(axis=1)
    # The upper clamp changes nothing but the logarithm of 0: such members have weight 0 anyway.
    half_row = 0.5 / votes.num_rows
    error_M = np.clip(error_M, half_row, 1 - half_row)
    weights: DoubleArray = np.maximum(np.log((1 - error_M) / error_M) + np.log(votes.num_classes - 1), 0.0)
    return weights


def likelihood_weights(votes: SplitVotes, tolerance: float = 1e-6, max_steps: int = 2000) -> DoubleArray:
    """The weights on the simplex whose weighted mean probability has the lowest log loss on these votes.

    The loss is convex in the weights. EM for mixture proportions, w_m <- mean_n w_m p_m(y_n) / sum_j w_j p_j(y_n),
    never leaves the simplex and never raises the loss; it stops when no step can gain more than `tolerance` nats
    (the largest ratio bounds the distance to the optimum). Weights below a millionth become 0. Raises PeekingError for test votes.
    """
    require_choosable(votes)
    true_MN = votes.probs_MNK[:, np.arange(votes.num_rows), votes.labels_N].astype(np.float64)
    true_MN = np.maximum(true_MN, PROBABILITY_FLOOR)
    weights = np.full(votes.num_members, 1.0 / votes.num_members)
    for _ in range(max_steps):
        gain_M = true_MN @ (1.0 / (weights @ true_MN)) / votes.num_rows
        weights = weights * gain_M
        if gain_M.max() <= 1.0 + tolerance:
            break
    # Weights on their way to zero never arrive; whoever has none need not be kept to predict.
    weights = np.where(weights < NEGLIGIBLE, 0.0, weights)
    normalised: DoubleArray = weights / weights.sum()
    return normalised
