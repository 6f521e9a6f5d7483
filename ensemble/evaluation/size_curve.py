"""How many members are enough, and what each one adds: subsets of the members, voted again.

Every vote is an argmax of a sum over members (probabilities, favourites or logarithms), so all subsets are one matrix
product. Rows on which all members name the same class need no product at all: every subset names that class too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ensemble.config.schema import WEIGHING, Aggregator
from ensemble.evaluation.aggregation import TIE_TOLERANCE, floored_log
from ensemble.evaluation.record_base import Record
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes
from ensemble.types import DoubleArray, IntArray

# Subsets voted in all; more orders than this buys a smoother band nobody can see.
SUBSET_BUDGET = 400
ALL_SIZES_UP_TO = 16
BLOCK = 64  # members that are left out at a time


@dataclass(frozen=True)
class SizePoint(Record):
    """Test error of votes of `size` members over random orders: mean, 5th and 95th percentile, extremes."""

    size: int
    mean: float
    lower: float
    upper: float
    best: float
    worst: float


class Contested(NamedTuple):
    """The rows on which the members differ, with additive scores, and how many of the others are wrong.

    Classes come before rows: the highest of ten numbers is found far quicker across long rows than along short ones.
    """

    scores_MKC: DoubleArray
    labels_C: IntArray
    unanimous_wrong: int
    num_rows: int


def contested_rows(aggregator: Aggregator, votes: SplitVotes, weights_M: AnyFloatArray | None = None) -> Contested:
    """What subsets of the members can disagree about; the vote of a subset is the argmax of its sum of scores.

    weights_M belongs to the weighted and the additive vote and to no other.
    """
    assert (weights_M is not None) == (aggregator in WEIGHING), f"weights do not fit the {aggregator} vote"
    probs_MNK, labels_N, classes_MN = votes.probs_MNK, votes.labels_N, votes.favourites_MN
    open_N = (classes_MN != classes_MN[0]).any(axis=0)
    unanimous_wrong = int((classes_MN[0] != labels_N)[~open_N].sum())
    # Contiguous by member, so that the matrix product below needs no copy.
    probs_MKC = np.ascontiguousarray(probs_MNK[:, open_N].transpose(0, 2, 1), np.float64)
    if aggregator == "hard":
        # The mean probability breaks ties: less than half a vote, whatever the subset.
        favourite_MKC = classes_MN[:, None, open_N] == np.arange(probs_MNK.shape[2])[:, None]
        scores = favourite_MKC + probs_MKC / (2.0 * len(probs_MNK) + 1.0)
    elif aggregator == "geometric":
        scores = floored_log(probs_MKC)
    elif aggregator == "additive":
        assert weights_M is not None
        scores = floored_log(probs_MKC) * np.maximum(weights_M, 1e-9 * np.max(weights_M))[:, None, None]
    elif weights_M is not None:
        # A member without weight decides only where it is alone.
        weights = np.maximum(weights_M, 1e-9 * np.max(weights_M)).astype(np.float64)
        scores = probs_MKC * weights[:, None, None]
    else:
        scores = probs_MKC
    return Contested(scores, labels_N[open_N], unanimous_wrong, len(labels_N))


def subset_wrong(contested: Contested, chosen_SM: DoubleArray) -> IntArray:
    """Rows that the vote of each of S subsets gets wrong; subsets are given as 0/1 rows over the members."""
    members, classes, rows = contested.scores_MKC.shape
    means = chosen_SM / chosen_SM.sum(axis=1, keepdims=True) @ contested.scores_MKC.reshape(members, -1)
    return _wrong(contested, means.reshape(len(chosen_SM), classes, rows))


def _wrong(contested: Contested, means_SKC: DoubleArray) -> IntArray:
    """Rows that votes with these mean scores get wrong."""
    classes = means_SKC.shape[1]
    # The rule of `aggregation.decide_scores`: of the classes tied for the first place, the lowest.
    enough_SC = means_SKC.max(axis=1) - TIE_TOLERANCE
    chosen_SC = np.full(enough_SC.shape, classes - 1)
    for k in range(classes - 2, -1, -1):
        np.copyto(chosen_SC, k, where=means_SKC[:, k] >= enough_SC)
    wrong_S: IntArray = (chosen_SC != contested.labels_C).sum(axis=1) + contested.unanimous_wrong
    return wrong_S


def curve_sizes(members: int) -> IntArray:
    """All sizes for a small ensemble, about sixteen in even proportions up to all members for a large one."""
    if members <= ALL_SIZES_UP_TO:
        return np.arange(1, members + 1)
    return np.unique(np.rint(np.geomspace(1, members, ALL_SIZES_UP_TO)).astype(np.int64))


def size_curve(contested: Contested, seed: int) -> tuple[SizePoint, ...]:
    """Error against the number of members, over seeded random orders in which members could have been added."""
    members = len(contested.scores_MKC)
    sizes = curve_sizes(members)
    generator = np.random.default_rng(seed)
    orders = max(10, SUBSET_BUDGET // len(sizes)) if members > 1 else 1
    wrong = np.empty((orders, len(sizes)))
    for i in range(orders):
        # Ranks of a random order: the subset of size s is the members of rank below s.
        rank_M = generator.permutation(members)
        wrong[i] = subset_wrong(contested, (rank_M < sizes[:, None]).astype(np.float64))
    lower, upper = np.quantile(wrong, [0.05, 0.95], axis=0)
    # Divided last: the mean of equal counts is that count, and the curve ends exactly at the vote's error.
    columns = np.array([wrong.mean(axis=0), lower, upper, wrong.min(axis=0), wrong.max(axis=0)]) / contested.num_rows
    return tuple(SizePoint(int(size), *column.tolist()) for size, column in zip(sizes, columns.T, strict=True))


def leave_one_out_gains(contested: Contested) -> DoubleArray:
    """By how much the error would grow without each member, shape (M,); negative: better without. NaN for M = 1."""
    scores_MKC = contested.scores_MKC
    members = len(scores_MKC)
    if members == 1:
        return np.full(1, np.nan)
    total_KC = scores_MKC.sum(axis=0)
    whole = _wrong(contested, total_KC[None] / members)
    # All but one as the sum of all less that one: the work and the memory of a product of subsets grow with the square.
    blocks = [scores_MKC[first : first + BLOCK] for first in range(0, members, BLOCK)]
    wrong_M = np.concatenate([_wrong(contested, (total_KC - block_BKC) / (members - 1)) for block_BKC in blocks])
    gains: DoubleArray = (wrong_M - whole) / contested.num_rows
    return gains
