"""Errors after each round, by hand and against the votes they must agree with."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.staged import staged_errors
from ensemble.methods.samme import staged_scores

# Three members, four rows, three classes; the true class is 0 everywhere.
PROBS = np.array([
    [[0.8, 0.1, 0.1], [0.4, 0.6, 0.0], [0.1, 0.9, 0.0], [0.6, 0.2, 0.2]],
    [[0.1, 0.9, 0.0], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.6, 0.2, 0.2]],
    [[0.2, 0.8, 0.0], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.6, 0.2, 0.2]],
])  # fmt: skip
VOTES = SplitVotes("test", PROBS, np.zeros(4, np.int64))


def test_by_hand():
    points = staged_errors(VOTES, np.array([2.0, 1.0, 1.5]), [[0], [1], [2]])
    # Weighted sums of class 0 against class 1. After 1: (.8 .1) (.4 .6) (.1 .9): rows 1 and 2 wrong.
    # After 2: (1.7 1.1) (1.7 1.3) (.3 2.7): row 2. After 3: (2.0 2.3) (3.05 1.45) (1.65 2.85): rows 0 and 2.
    assert [point.error for point in points] == [0.5, 0.25, 0.5]
    # Whole votes, 2 : 1 : 1.5. After 2 member 0 still decides; after 3 members 1 and 2 together outvote it.
    assert [point.samme_error for point in points] == [0.5, 0.5, 0.5]
    assert [(point.round, point.members) for point in points] == [(1, 1), (2, 2), (3, 3)]
    assert all(point.lower < point.error < point.upper for point in points)


def test_rounds_of_several_members_and_rounds_without_weight():
    points = staged_errors(VOTES, np.array([0.0, 1.0, 0.5]), [[0], [2, 1]])
    assert [(point.round, point.members, point.error) for point in points] == [(2, 3, 0.5)]
    assert staged_errors(VOTES, np.zeros(3), [[0], [1, 2]]) == ()


def test_the_last_point_is_the_weighted_vote_and_every_point_is_samme(make_ensemble):
    test = make_ensemble(members=6, skill=1.5).test
    weights = np.array([3.0, 0.5, 1.25, 2.0, 0.75, 1.0])
    points = staged_errors(test, weights, [[m] for m in range(6)])
    assert points[-1].error == (decide("weighted", test.probs_MNK, weights).classes_N != test.labels_N).mean()
    for point, scores_NK in zip(points, staged_scores(test.favourites_MN, weights.tolist(), 4), strict=True):
        first, second = np.sort(scores_NK, axis=1)[:, :-3:-1].T
        clear = first - second > 1e-9
        wrong = (scores_NK.argmax(axis=1) != test.labels_N)[clear].sum()
        assert wrong <= point.samme_error * 400 <= wrong + (~clear).sum()
    assert points[0].error == points[0].samme_error == pytest.approx((test.favourites_MN[0] != test.labels_N).mean())
