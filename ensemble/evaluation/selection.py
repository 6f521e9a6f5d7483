"""Greedy ensemble selection with replacement (Caruana et al. 2004).

Start with the best members of a library; then add, again and again and with replacement, the member whose inclusion
makes the mean probability best; keep the best ensemble on the way. Repeat on random halves of the library ("bagged
selection") and add up how often each member was taken: those counts are the weights.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ensemble.evaluation.aggregation import decide_scores, floored_log
from ensemble.evaluation.splits import SplitVotes, require_choosable
from ensemble.types import DoubleArray, IntArray

Metric = Literal["nll", "error"]


def greedy_selection(
    votes: SplitVotes, seed: int, metric: Metric = "nll", bags: int = 10, bag_fraction: float = 0.5, rounds: int = 25
) -> DoubleArray:
    """Weights of the members that sum to 1, zero for members never taken.

    metric: what is minimised on these votes; the log loss is the default because errors are so few on easy data that
        a selection by error follows single rows.
    bags: random sub-libraries of `bag_fraction` of the members; each selects for at most `rounds` additions.
    Raises PeekingError for test votes.
    """
    require_choosable(votes)
    members = votes.num_members
    library = _Library(votes, metric)
    generator = np.random.default_rng(seed)
    bag_size = max(1, round(bag_fraction * members))
    counts_M = np.zeros(members)
    for _ in range(bags):
        # The drawn order also settles what metric and number of members leave tied.
        bag = generator.permutation(members)[:bag_size]
        counts_M += _select(library, bag, rounds)
    weights: DoubleArray = counts_M / counts_M.sum()
    return weights


def hill_climb(votes: SplitVotes, metric: Metric = "nll", rounds: int = 25) -> DoubleArray:
    """One selection from the whole library, as counts per member: the inner step of `greedy_selection`.

    Raises PeekingError for test votes.
    """
    require_choosable(votes)
    return _select(_Library(votes, metric), np.arange(votes.num_members), rounds)


class _Library:
    """The members' votes, reduced to the little that the metric looks at."""

    def __init__(self, votes: SplitVotes, metric: Metric) -> None:
        self.metric = metric
        probs_MNK = votes.probs_MNK
        if metric == "nll":
            self.parts = probs_MNK[:, np.arange(votes.num_rows), votes.labels_N].astype(np.float64)
            self.labels = votes.labels_N
        else:
            # Where all members agree, every selection agrees: only the other rows can tell selections apart.
            classes_MN = votes.favourites_MN
            open_N = (classes_MN != classes_MN[0]).any(axis=0)
            self.parts = probs_MNK[:, open_N].astype(np.float64)
            self.labels = votes.labels_N[open_N]

    def scores(self, total: DoubleArray, candidates: IntArray, size: int) -> DoubleArray:
        """The loss after adding each candidate to a selection of `size` with summed votes `total`."""
        means = (total + self.parts[candidates]) / (size + 1)
        if self.metric == "nll":
            losses: DoubleArray = -floored_log(means).mean(axis=1)
        else:
            losses = (decide_scores(means).classes_N != self.labels).sum(axis=1).astype(np.float64)
        # Differences beyond the 12th digit are rounding; they must not decide.
        return np.round(losses, 12)


def _select(library: _Library, bag: IntArray, rounds: int) -> DoubleArray:
    """Counts per member of one selection from the members in `bag`."""
    counts_M = np.zeros(len(library.parts))
    empty = np.zeros(library.parts.shape[1:])
    alone = library.scores(empty, bag, 0)
    ranking = bag[np.argsort(alone, kind="stable")]
    path = list(_sorted_start(library, ranking))
    total = library.parts[path].sum(axis=0)
    counts_M[path] = 1
    best_score = float(library.scores(total - library.parts[path[-1]], np.array(path[-1:]), len(path) - 1)[0])
    best_length = len(path)
    for _ in range(rounds):
        scores = library.scores(total, bag, len(path))
        equals = bag[scores == scores.min()]
        # Of equally good additions one already in the selection keeps the ensemble small.
        taken = equals[counts_M[equals] > 0]
        chosen = int(taken[0] if len(taken) else equals[0])
        path.append(chosen)
        counts_M[chosen] += 1
        total += library.parts[chosen]
        if scores.min() < best_score:
            best_score, best_length = float(scores.min()), len(path)
    return np.bincount(path[:best_length], minlength=len(library.parts)).astype(np.float64)


def _sorted_start(library: _Library, ranking: IntArray) -> IntArray:
    """The best n members, with n such that their equal vote is best (the smallest of equals)."""
    total = np.zeros(library.parts.shape[1:])
    scores = []
    for n, member in enumerate(ranking):
        scores.append(float(library.scores(total, np.array([member]), n)[0]))
        total += library.parts[member]
    return ranking[: int(np.argmin(scores)) + 1]
