from __future__ import annotations

import tracemalloc
from dataclasses import astuple
from itertools import combinations

import numpy as np
import pytest

from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.metrics import error_rate
from ensemble.evaluation.size_curve import contested_rows, curve_sizes, leave_one_out_gains, size_curve, subset_wrong
from ensemble.evaluation.splits import SplitVotes

NAMES = ["soft", "hard", "weighted", "geometric"]


def weights_for(name: str, members: int) -> np.ndarray | None:
    return np.linspace(0.5, 2.0, members) if name == "weighted" else None


def brute_force(name: str, votes: SplitVotes, positions: list[int]) -> float:
    weights = weights_for(name, votes.num_members)
    vote = decide(name, votes.probs_MNK[positions], None if weights is None else weights[positions])
    return error_rate(vote.classes_N, votes.labels_N)


@pytest.mark.parametrize("name", NAMES)
def test_every_subset_votes_as_it_would_alone(make_ensemble, name):
    votes = make_ensemble(members=5, rows=300, skill=2.0).test
    contested = contested_rows(name, votes, weights_for(name, 5))
    for size in range(1, 6):
        for positions in combinations(range(5), size):
            chosen = np.isin(np.arange(5), positions).astype(float)[None]
            assert subset_wrong(contested, chosen)[0] == round(300 * brute_force(name, votes, list(positions)))


def test_hard_subsets_break_ties_by_mean_probability():
    probs = np.array([[[0.6, 0.4]], [[0.1, 0.9]], [[0.7, 0.3]], [[0.45, 0.55]]], np.float32)
    votes = SplitVotes("test", probs, np.array([1]))
    contested = contested_rows("hard", votes)
    assert subset_wrong(contested, np.array([[1.0, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", NAMES)
def test_the_curve_starts_at_the_members_and_ends_at_the_vote(make_ensemble, name):
    votes = make_ensemble(members=6, rows=300, skill=2.0).test
    curve = size_curve(contested_rows(name, votes, weights_for(name, 6)), seed=1)
    alone = [brute_force(name, votes, [m]) for m in range(6)]
    assert [point.size for point in curve] == [1, 2, 3, 4, 5, 6]
    assert (curve[0].best, curve[0].worst) == pytest.approx((min(alone), max(alone)))
    assert list(astuple(curve[-1])[1:]) == [brute_force(name, votes, list(range(6)))] * 5
    for point in curve:
        assert point.best <= point.lower <= point.mean <= point.upper <= point.worst


def test_the_curve_is_seeded(make_ensemble):
    contested = contested_rows("soft", make_ensemble(members=6, skill=2.0).test)
    assert size_curve(contested, seed=3) == size_curve(contested, seed=3)
    assert size_curve(contested, seed=3) != size_curve(contested, seed=4)


def test_large_ensembles_get_sizes_up_to_all_members():
    assert curve_sizes(16).tolist() == list(range(1, 17))
    sizes = curve_sizes(100)
    assert sizes[0] == 1
    assert sizes[-1] == 100
    assert len(sizes) <= 16
    assert (np.diff(sizes) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_leave_one_out_against_brute_force(make_ensemble, name):
    votes = make_ensemble(members=5, rows=300, skill=2.0).test
    everybody = brute_force(name, votes, list(range(5)))
    gains = leave_one_out_gains(contested_rows(name, votes, weights_for(name, 5)))
    for m in range(5):
        others = [other for other in range(5) if other != m]
        assert gains[m] == pytest.approx(brute_force(name, votes, others) - everybody)


@pytest.mark.parametrize("name", NAMES)
def test_leave_one_out_of_many_is_that_of_the_product_of_subsets(make_ensemble, name):
    """Across the blocks in which members are left out."""
    votes = make_ensemble(members=150, rows=200, skill=1.0).test
    contested = contested_rows(name, votes, weights_for(name, 150))
    wrong = subset_wrong(contested, np.vstack([np.ones(150), 1.0 - np.eye(150)]))
    assert len(np.unique(wrong)) > 2
    np.testing.assert_array_equal(leave_one_out_gains(contested), (wrong[1:] - wrong[0]) / 200)


def test_leave_one_out_takes_memory_for_a_block_alone(make_ensemble):
    """Not of members by members: of 10,000 such a matrix has 800 MB."""
    contested = contested_rows("soft", make_ensemble(members=1500, rows=40, skill=1.0).test)
    tracemalloc.start()
    leave_one_out_gains(contested)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 64 * contested.scores_MKC[0].nbytes + 1_000_000


def test_one_member_alone(make_ensemble):
    contested = contested_rows("soft", make_ensemble(members=1).test)
    assert np.isnan(leave_one_out_gains(contested)).all()
    assert len(size_curve(contested, seed=0)) == 1


def test_members_that_agree_everywhere_leave_nothing_to_contest(make_ensemble):
    votes = make_ensemble(members=1, skill=1.0).test
    same = SplitVotes("test", np.repeat(votes.probs_MNK, 3, axis=0), votes.labels_N)
    contested = contested_rows("soft", same)
    assert contested.scores_MKC.shape[2] == 0
    error = brute_force("soft", votes, [0])
    assert error > 0
    assert {point.mean for point in size_curve(contested, seed=0)} == {error}
