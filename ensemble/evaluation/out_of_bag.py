"""The bagging ensemble's error on its own training rows, each judged only by members that never saw it (Breiman 1996).

The prediction for a row is the mean probability over the members whose bag lacks it. Rows that are in every bag have
no such member: they are left out of the error and counted. Each row is judged by about 0.37 M members, so the figure
is a little pessimistic about all M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.evaluation.aggregation import decide_scores
from ensemble.types import DoubleArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class OutOfBag:
    """What every member said about training rows outside its bag, or of the fold that it left out.

    rows: per member, in the order of the members, the training rows it voted on.
    probs: per member the probabilities of those rows, shape (R, K).
    pool: all rows the bags were drawn from. labels: true classes of the whole training array, indexed by row.
    folds: the rows are folds of cross-validation. chose: by which the members' epochs were chosen too.
    """

    rows: Sequence[IntArray]
    probs: Sequence[FloatArray]
    pool: IntArray
    labels: IntArray
    folds: bool = False
    chose: bool = False

    def __post_init__(self) -> None:
        assert len(self.rows) == len(self.probs), f"{len(self.rows)} lists of rows, {len(self.probs)} of votes"
        for m, (rows, probs) in enumerate(zip(self.rows, self.probs, strict=True)):
            assert len(rows) == len(probs), f"member {m}: {len(rows)} rows but {len(probs)} votes"
            assert np.isin(rows, self.pool).all(), f"member {m} voted on rows outside the pool"

    def members(self, positions: Sequence[int]) -> OutOfBag:
        """The same pool, with only the members at these positions."""
        rows, probs = [self.rows[m] for m in positions], [self.probs[m] for m in positions]
        return replace(self, rows=rows, probs=probs)


@dataclass(frozen=True, eq=False)
class OutOfBagVote:
    """The combined out-of-bag vote on the `rows` that have one, and how many members voted on each."""

    rows: IntArray
    probs_RK: DoubleArray
    classes_R: IntArray
    voters_R: IntArray
    never_out: int


def out_of_bag_vote(bags: OutOfBag, num_classes: int) -> OutOfBagVote:
    """Mean probability per row over the members whose bag lacks it, and the class by the usual tie rule.

    A member with non-finite votes does not vote.
    """
    total = np.zeros((len(bags.labels), num_classes))
    voters = np.zeros(len(bags.labels), np.int64)
    for rows, probs_RK in zip(bags.rows, bags.probs, strict=True):
        if not np.isfinite(probs_RK).all():
            continue
        total[rows] += probs_RK
        voters[rows] += 1
    voted = bags.pool[voters[bags.pool] > 0]
    probs = total[voted] / voters[voted, None]
    classes = decide_scores(probs).classes_N if len(voted) else np.empty(0, np.int64)
    return OutOfBagVote(voted, probs, classes, voters[voted], len(bags.pool) - len(voted))
