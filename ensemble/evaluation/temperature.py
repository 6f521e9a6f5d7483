"""Temperature scaling (Guo et al. 2017): one number that makes probabilities sharper or flatter, never reorders them.

p_T = p^(1/T) / sum p^(1/T). Working on probabilities instead of logits is the same thing, because a constant added to
the logits cancels. Fitted either per member before the vote, or once after it: averaging already lowers confidence,
so the two differ.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from ensemble.evaluation.aggregation import floored_log
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.types import DoubleArray

LOWEST, HIGHEST = 0.05, 20.0


def apply_temperature(probs_NK: AnyFloatArray, temperature: float) -> DoubleArray:
    """p^(1/T) / sum p^(1/T), in float64, probabilities floored at 1e-12."""
    softened: DoubleArray = special.softmax(floored_log(probs_NK) / temperature, axis=-1)
    return softened


def fit_temperatures(votes: SplitVotes) -> DoubleArray:
    """Each member's temperature with the lowest log loss on these votes, between 0.05 and 20.

    The loss is convex in 1/T, so its slope has one root. A member that is always right would like T = 0 and gets 0.05.
    To fit one temperature after the vote, pass the combined vote as a single member. Raises PeekingError for test
    votes.
    """
    require_choosable(votes)
    return np.array([_fit(probs_NK, votes) for probs_NK in votes.probs_MNK])


def _fit(probs_NK: AnyFloatArray, votes: SplitVotes) -> float:
    from scipy import optimize  # a fifth of a second, for which commands that only show results need not wait

    logs_NK = floored_log(probs_NK)
    true_N = logs_NK[np.arange(votes.num_rows), votes.labels_N]

    def slope(log_temperature: float) -> float:
        """Derivative of the log loss by 1/T: the expected minus the true log-probability."""
        weights_NK = special.softmax(logs_NK * np.exp(-log_temperature), axis=1)
        return float(((weights_NK * logs_NK).sum(axis=1) - true_N).mean())

    low, high = np.log(LOWEST), np.log(HIGHEST)
    # As T grows the expectation falls, so the slope falls from positive to negative.
    if slope(low) <= 0:
        return LOWEST
    if slope(high) >= 0:
        return HIGHEST
    return float(np.exp(optimize.brentq(slope, low, high, xtol=1e-5)))
