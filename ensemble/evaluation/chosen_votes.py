"""Selections, weights, temperatures and stacking, each as one more way to vote.

`choose_votes` never sees a test vote: it returns votes that can then be applied to any split.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ensemble.config.schema import Aggregator
from ensemble.evaluation.aggregation import Decision, decide, decide_scores
from ensemble.evaluation.metrics import wrong_rows
from ensemble.evaluation.selection import greedy_selection
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.evaluation.stacking import FOLDS, MOST_FEATURES, fit_stacker
from ensemble.evaluation.statistics import wilson_interval
from ensemble.evaluation.temperature import apply_temperature, fit_temperatures
from ensemble.evaluation.weights import likelihood_weights
from ensemble.types import DoubleArray, IntArray

FITTED = "validation figures are of the rows it was fitted to"


@dataclass(frozen=True, eq=False)
class ChosenVote:
    """A vote learned on validation rows.

    values: what was learned, one number per member or a single one. needed: positions of the members that must
    predict. validation: its decision on the rows it was learned from (cross-fitted for stacking).
    """

    name: str
    note: str
    values: DoubleArray
    needed: IntArray
    validation: Decision
    vote: Callable[[AnyFloatArray], Decision]


def choose_votes(
    votes: SplitVotes, aggregator: Aggregator, weights_M: DoubleArray | None, seed: int
) -> list[ChosenVote]:
    """Greedy selection, weights by log loss, member and vote temperatures, and stacking.

    aggregator and weights_M: the headline vote, to which one temperature is fitted; weights only for "weighted".
    One member alone gets only that; more than MOST_FEATURES members x classes are not stacked. Raises PeekingError for test votes.
    """
    require_choosable(votes)
    if votes.num_members == 1:
        return [_vote_temperature(votes, aggregator, weights_M)]
    ways: list[Callable[[], ChosenVote]] = [
        lambda: _weighted("greedy selection", greedy_selection(votes, seed), votes),
        lambda: _weighted("weights by validation log loss", likelihood_weights(votes), votes),
        lambda: _member_temperatures(votes),
        lambda: _vote_temperature(votes, aggregator, weights_M),
    ]
    # Folds of less than a row cannot be held out.
    if votes.num_rows >= FOLDS and votes.num_members * votes.num_classes <= MOST_FEATURES:
        ways.append(lambda: _stacking(votes, seed))
    # Beside each other, the longest first: numpy leaves the interpreter to the others while it computes.
    with ThreadPoolExecutor() as pool:
        return [begun.result() for begun in reversed([pool.submit(way) for way in reversed(ways)])]


def no_better_than_guessing(votes: SplitVotes) -> IntArray:
    """Positions of members whose error may be that of guessing: 1 - 1/K lies in or below its interval.

    Raises PeekingError for test votes.
    """
    require_choosable(votes)
    wrong_M = wrong_rows(votes.favourites_MN, votes.labels_N).sum(axis=1)
    guessing = 1 - 1 / votes.num_classes
    upper = [wilson_interval(int(wrong), votes.num_rows).upper for wrong in wrong_M]
    return np.flatnonzero(np.array(upper) >= guessing)


def without_members(
    votes: SplitVotes, left_out: IntArray, aggregator: Aggregator, weights_M: DoubleArray | None
) -> ChosenVote:
    """The headline vote without some members that validation found useless. Raises PeekingError for test votes."""
    require_choosable(votes)
    kept = np.setdiff1d(np.arange(votes.num_members), left_out)
    kept_weights = None if weights_M is None else weights_M[kept]

    def vote(probs_MNK: AnyFloatArray) -> Decision:
        return decide(aggregator, probs_MNK[kept], kept_weights)

    name = f"{aggregator} vote without {len(left_out)} flagged"
    note = "left out: members no better than guessing on validation"
    return ChosenVote(name, note, kept.astype(np.float64), kept, vote(votes.probs_MNK), vote)


def _weighted(name: str, weights_M: DoubleArray, votes: SplitVotes) -> ChosenVote:
    def vote(probs_MNK: AnyFloatArray) -> Decision:
        return decide("weighted", probs_MNK, weights_M)

    needed = np.flatnonzero(weights_M > 0)
    return ChosenVote(name, FITTED, weights_M, needed, vote(votes.probs_MNK), vote)


def _member_temperatures(votes: SplitVotes) -> ChosenVote:
    temperatures_M = fit_temperatures(votes)

    def vote(probs_MNK: AnyFloatArray) -> Decision:
        total_NK = np.zeros(probs_MNK.shape[1:])
        for probs_NK, temperature in zip(probs_MNK, temperatures_M, strict=True):
            total_NK += apply_temperature(probs_NK, float(temperature))
        return decide_scores(total_NK / len(probs_MNK))

    everybody = np.arange(votes.num_members)
    return ChosenVote("temperature per member", FITTED, temperatures_M, everybody, vote(votes.probs_MNK), vote)


def _vote_temperature(votes: SplitVotes, aggregator: Aggregator, weights_M: DoubleArray | None) -> ChosenVote:
    combined = decide(aggregator, votes.probs_MNK, weights_M)
    temperature = fit_temperatures(SplitVotes(votes.split, combined.probs_NK[None], votes.labels_N))

    def scale(decision: Decision) -> Decision:
        # The classes stay: a temperature reorders nothing, and the tie rule has already been applied.
        return Decision(
            apply_temperature(decision.probs_NK, float(temperature[0])),
            decision.classes_N,
            decision.tied_N,
            decision.counted,
        )

    def vote(probs_MNK: AnyFloatArray) -> Decision:
        return scale(decide(aggregator, probs_MNK, weights_M))

    everybody = np.arange(votes.num_members)
    return ChosenVote(f"temperature after the {aggregator} vote", FITTED, temperature, everybody, scale(combined), vote)


def _stacking(votes: SplitVotes, seed: int) -> ChosenVote:
    stacker = fit_stacker(votes, seed)

    def vote(probs_MNK: AnyFloatArray) -> Decision:
        return decide_scores(stacker.probabilities(probs_MNK))

    return ChosenVote(
        "stacking",
        f"logistic regression on log-probabilities, C = {stacker.strength:g}; validation figures cross-fitted",
        np.array([stacker.strength]),
        np.arange(votes.num_members),
        decide_scores(stacker.cross_fitted_NK),
        vote,
    )
