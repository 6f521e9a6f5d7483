"""The votes: how the class probabilities of M members become one prediction.

soft       mean of the members' probabilities
hard       share of the members whose own favourite the class is
weighted   mean of the probabilities with one weight per member
geometric  product of the probabilities to the power of 1/M, normalised (the mean of the log-probabilities)
additive   product of the probabilities to the power of the members' own weights, which need not sum to 1: the softmax
           of a weighted sum of outputs, as gradient boosting has it

Sums run over the members one by one in float64, so the bits depend neither on threads nor on the linear-algebra
library. The predicted class follows one tie rule, see `decide`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ensemble.config.schema import Aggregator
from ensemble.evaluation.splits import AnyFloatArray, favourites
from ensemble.types import DoubleArray, IntArray

# Probabilities below this count as this much wherever a logarithm is taken: one member that is certain and wrong
# must not make a mean infinite. A row that everybody calls impossible costs 27.6 nats.
PROBABILITY_FLOOR = 1e-12
# Scores closer than this are tied. Without it the order of the members would decide ties by rounding.
TIE_TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Decision:
    """A combined vote: probabilities, predicted classes, and which rows were tied for the first place.

    counted: probs_NK are shares of counted votes. They say who won, but a class that nobody voted for is not impossible,
    so a log loss of them would tell the floor of the logarithm and nothing else.
    """

    probs_NK: DoubleArray
    classes_N: IntArray
    tied_N: npt.NDArray[np.bool_]
    counted: bool = False

    @property
    def confidences_N(self) -> DoubleArray:
        """The probability of each row's predicted class."""
        return np.take_along_axis(self.probs_NK, self.classes_N[:, None], axis=1)[:, 0]

    @property
    def ties(self) -> int:
        return int(self.tied_N.sum())


def floored_log(probs: AnyFloatArray) -> DoubleArray:
    """Natural logarithm in float64 of probabilities, none taken below PROBABILITY_FLOOR."""
    return np.log(np.maximum(probs.astype(np.float64), PROBABILITY_FLOOR))


def normalised_weights(weights_M: AnyFloatArray | None, members: int) -> DoubleArray:
    """Weights that sum to 1; None means equal ones. They must be finite, not negative and not all zero."""
    if weights_M is None:
        return np.full(members, 1.0 / members)
    weights = np.asarray(weights_M, np.float64)
    assert weights.shape == (members,), f"{members} members, but weights of shape {weights.shape}"
    assert np.isfinite(weights).all(), f"vote weights must be finite, found {weights.tolist()}"
    assert (weights >= 0).all(), f"vote weights must not be negative, found {weights.tolist()}"
    assert weights.max() > 0, "all vote weights are zero: nobody would vote"
    normalised: DoubleArray = weights / weights.sum()
    return normalised


def mean_probabilities(probs_MNK: AnyFloatArray, weights_M: AnyFloatArray | None = None) -> DoubleArray:
    """sum_m w_m p_m, shape (N, K)."""
    members, rows, classes = probs_MNK.shape
    total_NK = np.zeros((rows, classes))
    for weight, probs_NK in zip(normalised_weights(weights_M, members), probs_MNK, strict=True):
        total_NK += weight * probs_NK.astype(np.float64)
    return total_NK


def hard_shares(probs_MNK: AnyFloatArray, weights_M: AnyFloatArray | None = None) -> DoubleArray:
    """sum_m w_m [k is member m's favourite], shape (N, K)."""
    members, rows, classes = probs_MNK.shape
    # Equal votes are counted before they are divided, so that equal counts are equal numbers.
    votes = np.ones(members) if weights_M is None else normalised_weights(weights_M, members)
    total_NK = np.zeros((rows, classes))
    for vote, chosen_N in zip(votes, favourites(probs_MNK), strict=True):
        total_NK[np.arange(rows), chosen_N] += vote
    shares_NK: DoubleArray = total_NK / votes.sum()
    return shares_NK


def weighted_mean(probs_MNK: AnyFloatArray, weights_M: AnyFloatArray | None = None) -> DoubleArray:
    """sum_m w_m p_m; the weights must be given."""
    assert weights_M is not None, "the weighted vote needs one weight per member"
    return mean_probabilities(probs_MNK, weights_M)


def geometric_mean(probs_MNK: AnyFloatArray, weights_M: AnyFloatArray | None = None) -> DoubleArray:
    """prod_m p_m^w_m / Z, shape (N, K), computed in logarithms with probabilities floored at PROBABILITY_FLOOR."""
    logs_NK = mean_log_probabilities(probs_MNK, weights_M)
    unnormalised_NK = np.exp(logs_NK - logs_NK.max(axis=1, keepdims=True))
    mean_NK: DoubleArray = unnormalised_NK / unnormalised_NK.sum(axis=1, keepdims=True)
    return mean_NK


def mean_log_probabilities(probs_MNK: AnyFloatArray, weights_M: AnyFloatArray | None = None) -> DoubleArray:
    """sum_m w_m log p_m, shape (N, K), floored."""
    members, rows, classes = probs_MNK.shape
    total_NK = np.zeros((rows, classes))
    for weight, probs_NK in zip(normalised_weights(weights_M, members), probs_MNK, strict=True):
        total_NK += weight * floored_log(probs_NK)
    return total_NK


def additive(probs_MNK: AnyFloatArray, weights_M: AnyFloatArray | None = None) -> DoubleArray:
    """softmax of sum_m w_m f_m, shape (N, K), from p_m = softmax(f_m); the weights must be given and count as they are.

    log p_m is f_m but for a constant per row, which the softmax of the sum does not feel.
    """
    assert weights_M is not None, "the additive vote needs one weight per member"
    scores_NK = additive_scores(probs_MNK, weights_M)
    unnormalised_NK = np.exp(scores_NK - scores_NK.max(axis=1, keepdims=True))
    probs_NK: DoubleArray = unnormalised_NK / unnormalised_NK.sum(axis=1, keepdims=True)
    return probs_NK


def additive_scores(probs_MNK: AnyFloatArray, weights_M: AnyFloatArray) -> DoubleArray:
    """sum_m w_m log p_m, shape (N, K), floored."""
    total_NK = np.zeros(probs_MNK.shape[1:])
    for weight, probs_NK in zip(weights_M, probs_MNK, strict=True):
        total_NK += float(weight) * floored_log(probs_NK)
    return total_NK


AGGREGATORS: dict[Aggregator, Callable[[AnyFloatArray, AnyFloatArray | None], DoubleArray]] = {
    "soft": mean_probabilities,
    "hard": hard_shares,
    "weighted": weighted_mean,
    "geometric": geometric_mean,
    "additive": additive,
}


def decide_scores(scores_NK: DoubleArray, second_NK: AnyFloatArray | None = None) -> Decision:
    """The class with the highest score; among equals the highest `second_NK`, then the lowest class."""
    tied_NK = scores_NK >= scores_NK.max(axis=-1, keepdims=True) - TIE_TOLERANCE
    tied_N = tied_NK.sum(axis=-1) > 1
    best_NK = tied_NK
    if second_NK is not None:
        among_NK = np.where(tied_NK, second_NK, -np.inf)
        best_NK = among_NK >= among_NK.max(axis=-1, keepdims=True) - TIE_TOLERANCE
    return Decision(scores_NK, np.argmax(best_NK, axis=-1).astype(np.int64), tied_N)


def decide(aggregator: Aggregator, probs_MNK: AnyFloatArray, weights_M: AnyFloatArray | None = None) -> Decision:
    """Combine the votes and name a class per row.

    Ties (scores within TIE_TOLERANCE) go to the class with the highest mean probability among the tied, then to the
    lowest class; `Decision.ties` counts the tied rows.
    """
    combined_NK = AGGREGATORS[aggregator](probs_MNK, weights_M)
    second_NK = mean_probabilities(probs_MNK, weights_M) if aggregator == "hard" else None
    return replace(decide_scores(combined_NK, second_NK), counted=aggregator == "hard")
