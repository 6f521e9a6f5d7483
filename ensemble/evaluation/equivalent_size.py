"""How many independently trained networks a vote is worth: the deep ensemble equivalent (Ashukha et al. 2020).

Two votes are compared by their calibrated log-likelihood: the mean log-probability of the true class on the test rows,
in nats, after one temperature that is fitted to validation votes. Without the temperature a vote could win by being
softer only. Ashukha et al. (arXiv 2002.06470, section 3) fit it on one half of the test rows and measure on the other,
in turn; here the test rows fit nothing.

The equivalent of a vote is the smallest real size l >= 1 at which a deep ensemble, members of one recipe trained from
different seeds, has a likelihood as high. Its curve is averaged over random subsets of members, linear between sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ensemble.config.schema import Aggregator
from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.metrics import negative_log_likelihood
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.evaluation.temperature import apply_temperature, fit_temperatures
from ensemble.types import DoubleArray, IntArray

ORDERS = 10


class LikelihoodPoint(NamedTuple):
    """Calibrated log-likelihood, in nats, of votes of `size` members: mean and standard deviation over the subsets."""

    size: int
    mean: float
    deviation: float


class EquivalentSize(NamedTuple):
    """Members of a deep ensemble that a vote is worth; infinite for more than the largest size of the curve.

    lower, upper: the same from the curve plus and minus its standard deviation. below_one: the vote is worse than
    the mean single member; the size is 1 then, as Ashukha et al. define it, and not smaller.
    """

    size: float
    lower: float
    upper: float
    below_one: bool


def calibrated_log_likelihood(
    validation: SplitVotes, test: SplitVotes, aggregator: Aggregator = "soft", weights_M: AnyFloatArray | None = None
) -> float:
    """Mean log-probability of the true class on the test rows, in nats, at the temperature fitted to validation.

    A vote that is already combined is passed as a single member. NaN for a hard vote: shares are no probabilities.
    Raises PeekingError if the first votes are test votes.
    """
    require_choosable(validation)
    chosen, judged = (decide(aggregator, votes.probs_MNK, weights_M) for votes in (validation, test))
    return float("nan") if chosen.counted else _likelihood(chosen.probs_NK, judged.probs_NK, validation, test)


def _likelihood(validation_NK: DoubleArray, test_NK: DoubleArray, validation: SplitVotes, test: SplitVotes) -> float:
    """Of one combined vote, given on both splits."""
    combined = SplitVotes(validation.split, validation_NK[None], validation.labels_N)
    temperature = float(fit_temperatures(combined)[0])
    return -negative_log_likelihood(apply_temperature(test_NK, temperature), test.labels_N)


def size_likelihoods(
    validation: SplitVotes, test: SplitVotes, sizes: Sequence[int], seed: int, orders: int = ORDERS
) -> tuple[LikelihoodPoint, ...]:
    """The deep ensemble's curve: soft votes of the first members of `orders` random orders of independent members.

    sizes: ascending, from 1 to all members, as `size_curve.curve_sizes` has them. Large subsets share most of their
    members, so the standard deviation falls to 0 at all members and there tells nothing of another set of members.
    Raises PeekingError if the first votes are test votes.
    """
    require_choosable(validation)
    members = validation.num_members
    assert test.num_members == members, f"{members} members voted on validation, {test.num_members} on test"
    assert list(sizes) == sorted(set(sizes)), f"sizes must ascend, found {list(sizes)}"
    assert 1 <= sizes[0] <= sizes[-1] <= members, f"sizes must lie in [1, {members}], found {list(sizes)}"
    generator = np.random.default_rng(seed)
    likelihoods = np.array([_along(generator.permutation(members), validation, test, sizes) for _ in range(orders)])
    deviations = likelihoods.std(axis=0, ddof=1) if orders > 1 else np.zeros(len(sizes))
    if sizes[-1] == members:
        # All orders end with the same vote, but for rounding.
        deviations[-1] = 0.0
    means = likelihoods.mean(axis=0)
    return tuple(
        LikelihoodPoint(int(size), float(mean), float(deviation))
        for size, mean, deviation in zip(sizes, means, deviations, strict=True)
    )


def _along(order_M: IntArray, validation: SplitVotes, test: SplitVotes, sizes: Sequence[int]) -> list[float]:
    """Calibrated log-likelihoods of the first members of one order, for each of the sizes."""
    sums = [np.zeros(votes.probs_MNK.shape[1:]) for votes in (validation, test)]
    likelihoods, count = [], 0
    for size in sizes:
        for m in order_M[count:size]:
            for total_NK, votes in zip(sums, (validation, test), strict=True):
                total_NK += votes.probs_MNK[m]
        count = size
        likelihoods.append(_likelihood(sums[0] / size, sums[1] / size, validation, test))
    return likelihoods


def equivalent_size(value: float, curve: Sequence[LikelihoodPoint]) -> EquivalentSize:
    """The smallest real size l >= 1 at which the curve, linear between its sizes, reaches a calibrated log-likelihood.

    The first crossing is taken, so a curve that dips by chance counts as its running maximum. curve: from size 1 on.
    """
    assert curve, "a curve needs a point"
    assert curve[0].size == 1, f"the curve must begin with one member, not {curve[0].size}"
    assert math.isfinite(value), f"a likelihood must be finite, found {value}"
    sizes = np.array([point.size for point in curve], np.float64)
    means = np.array([point.mean for point in curve])
    deviations = np.array([point.deviation for point in curve])
    size, lower, upper = (_first_crossing(value, sizes, means + sign * deviations) for sign in (0, 1, -1))
    return EquivalentSize(size, lower, upper, value < means[0])


def _first_crossing(value: float, sizes: DoubleArray, heights: DoubleArray) -> float:
    """The smallest place at which a piecewise linear curve is as high as `value`; infinite if it nowhere is."""
    enough = np.flatnonzero(heights >= value)
    if not len(enough):
        return math.inf
    after = int(enough[0])
    if after == 0:
        return float(sizes[0])
    low, high = heights[after - 1], heights[after]
    return float(sizes[after - 1] + (sizes[after] - sizes[after - 1]) * (value - low) / (high - low))
