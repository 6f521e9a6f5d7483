"""The error of a weighted ensemble after each of its rounds: what boosting gained, and when it stopped gaining.

Two votes are followed: the weighted mean of probabilities (the `weighted` vote of the leaderboard) and SAMME's own, in
which every member gives its whole weight to one class. Nothing is chosen here, so test votes are welcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.evaluation.aggregation import decide_scores, floored_log
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes
from ensemble.evaluation.statistics import wilson_interval


@dataclass(frozen=True)
class StagedPoint:
    """After `round` rounds (from 1): `members` voters, the weighted vote's error with its 95 % interval, SAMME's error."""

    round: int
    members: int
    error: float
    lower: float
    upper: float
    samme_error: float


def staged_errors(
    votes: SplitVotes, weights_M: AnyFloatArray, rounds: Sequence[Sequence[int]], additive: bool = False
) -> tuple[StagedPoint, ...]:
    """One point per round. rounds: positions of the members each round added. Rounds without any weight are left out.

    additive: the weighted sum is one of log-probabilities, as gradient boosting has it.
    """
    mean_NK = np.zeros(votes.probs_MNK.shape[1:])
    share_NK = np.zeros_like(mean_NK)
    everyone, loudness, count = np.arange(votes.num_rows), 0.0, 0
    points = []
    for number, members in enumerate(rounds, start=1):
        for m in members:
            weight = float(weights_M[m])
            mean_NK += weight * (floored_log(votes.probs_MNK[m]) if additive else votes.probs_MNK[m].astype(np.float64))
            share_NK[everyone, votes.favourites_MN[m]] += weight
            loudness += weight
        count += len(members)
        if loudness == 0.0:
            continue
        wrong = int((decide_scores(mean_NK / loudness).classes_N != votes.labels_N).sum())
        named_N = decide_scores(share_NK / loudness, mean_NK / loudness).classes_N
        interval = wilson_interval(wrong, votes.num_rows)
        points.append(
            StagedPoint(
                round=number,
                members=count,
                error=wrong / votes.num_rows,
                lower=interval.lower,
                upper=interval.upper,
                samme_error=float((named_N != votes.labels_N).mean()),
            )
        )
    return tuple(points)
