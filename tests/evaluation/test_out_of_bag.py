from __future__ import annotations

import numpy as np
import pytest

from ensemble.evaluation.out_of_bag import OutOfBag, out_of_bag_vote
from ensemble.evaluation.sections.out_of_bag import out_of_bag_result


def random_bags(members: int, seed: int) -> tuple[OutOfBag, list[np.ndarray]]:
    """Bags from the even rows of 60, and for every member votes on its out-of-bag rows."""
    rng = np.random.default_rng(seed)
    pool = np.arange(0, 60, 2)
    bags = [np.unique(rng.choice(pool, len(pool))) for _ in range(members)]
    rows = [np.setdiff1d(pool, bag) for bag in bags]
    probs = [rng.dirichlet(np.ones(3), len(out)).astype(np.float32) for out in rows]
    return OutOfBag(rows, probs, pool, rng.integers(0, 3, 60)), bags


@pytest.mark.parametrize("members", [1, 3, 12])
def test_against_brute_force(members):
    votes, bags = random_bags(members, seed=members)
    wrong = voted = 0
    for row in votes.pool:
        outside = [m for m in range(members) if row not in bags[m]]
        if not outside:
            continue
        voted += 1
        mean = np.mean([votes.probs[m][votes.rows[m].tolist().index(row)] for m in outside], axis=0, dtype=float)
        wrong += int(mean.argmax() != votes.labels[row])
    result = out_of_bag_result(votes, 3)
    assert (result.wrong, result.rows, result.never_out) == (wrong, voted, 30 - voted)
    assert result.error == pytest.approx(wrong / voted)
    assert result.coverage == pytest.approx(voted / 30)
    assert result.lower < result.error < result.upper


def test_rows_in_every_bag_are_counted_apart():
    # Row 1 is in both bags; taking its missing votes for class 0 would make it "right".
    rows, probs = [np.array([0]), np.array([2])], [np.eye(2, dtype=np.float32)[[0]], np.eye(2, dtype=np.float32)[[0]]]
    result = out_of_bag_result(OutOfBag(rows, probs, np.array([0, 1, 2]), np.array([0, 0, 1])), 2)
    assert (result.rows, result.never_out, result.wrong, result.error) == (2, 1, 1, 0.5)
    assert result.coverage == pytest.approx(2 / 3)


def test_a_diverged_member_does_not_poison_the_rest():
    votes, _ = random_bags(4, seed=0)
    broken = [np.full_like(votes.probs[0], np.nan), *votes.probs[1:]]
    without = OutOfBag(votes.rows[1:], votes.probs[1:], votes.pool, votes.labels)
    one = out_of_bag_vote(OutOfBag(votes.rows, broken, votes.pool, votes.labels), 3)
    other = out_of_bag_vote(without, 3)
    assert one.rows.tolist() == other.rows.tolist()
    assert (one.probs_RK == other.probs_RK).all()


def test_nobody_out_of_the_bag():
    nothing = OutOfBag([np.empty(0, np.int64)], [np.empty((0, 3), np.float32)], np.arange(5), np.zeros(5, np.int64))
    result = out_of_bag_result(nothing, 3)
    assert (result.rows, result.never_out, result.coverage) == (0, 5, 0.0)
    assert np.isnan(result.error)


def test_votes_on_rows_outside_the_pool_are_refused():
    with pytest.raises(AssertionError, match="member 0"):
        OutOfBag([np.array([7])], [np.ones((1, 3), np.float32)], np.arange(5), np.zeros(8, np.int64))
