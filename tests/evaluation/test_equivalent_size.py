from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from ensemble.errors import PeekingError
from ensemble.evaluation.equivalent_size import (
    EquivalentSize,
    LikelihoodPoint,
    calibrated_log_likelihood,
    equivalent_size,
    size_likelihoods,
)
from ensemble.evaluation.size_curve import curve_sizes
from ensemble.evaluation.splits import SplitVotes


def by_hand(validation: SplitVotes, test: SplitVotes) -> float:
    """Mean of the members, temperature by minimising scikit-learn's log loss, scikit-learn's log loss on test."""

    def softened(votes: SplitVotes, temperature: float) -> np.ndarray:
        powers = votes.probs_MNK.astype(np.float64).mean(axis=0) ** (1 / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    def loss(temperature: float) -> float:
        return float(log_loss(validation.labels_N, softened(validation, temperature)))

    fitted = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-7})
    return -float(log_loss(test.labels_N, softened(test, fitted.x)))


@pytest.mark.parametrize("skill", [1.0, 4.0])
def test_likelihood_against_scikit_learn(make_ensemble, skill):
    ensemble = make_ensemble(members=4, skill=skill)
    ours = calibrated_log_likelihood(ensemble.validation, ensemble.test)
    assert ours == pytest.approx(by_hand(ensemble.validation, ensemble.test), abs=1e-7)
    mean_NK = ensemble.test.probs_MNK.astype(np.float64).mean(axis=0)
    plain = -log_loss(ensemble.test.labels_N, mean_NK / mean_NK.sum(axis=1, keepdims=True))
    assert abs(ours - plain) > 1e-4


def test_a_combined_vote_is_the_same_as_its_members(make_ensemble):
    ensemble = make_ensemble(members=4)
    combined = [
        SplitVotes(votes.split, votes.probs_MNK.astype(np.float64).mean(axis=0, keepdims=True), votes.labels_N)
        for votes in (ensemble.validation, ensemble.test)
    ]
    whole = calibrated_log_likelihood(ensemble.validation, ensemble.test)
    assert calibrated_log_likelihood(*combined) == pytest.approx(whole, abs=1e-12)


def test_sharpening_changes_nothing_and_weights_do(make_ensemble):
    ensemble = make_ensemble(members=3)
    validation, test = ensemble.validation.members([0]), ensemble.test.members([0])
    sharp = []
    for votes in (validation, test):
        squares = votes.probs_MNK.astype(np.float64) ** 2
        sharp.append(SplitVotes(votes.split, squares / squares.sum(axis=2, keepdims=True), votes.labels_N))
    assert calibrated_log_likelihood(*sharp) == pytest.approx(calibrated_log_likelihood(validation, test), abs=1e-7)
    only_first = calibrated_log_likelihood(ensemble.validation, ensemble.test, "weighted", np.array([1.0, 0, 0]))
    assert only_first == pytest.approx(calibrated_log_likelihood(validation, test), abs=1e-12)
    assert math.isnan(calibrated_log_likelihood(ensemble.validation, ensemble.test, "hard"))


def test_the_temperature_is_never_fitted_to_test_votes(make_ensemble):
    ensemble = make_ensemble()
    with pytest.raises(PeekingError):
        calibrated_log_likelihood(ensemble.test, ensemble.test)
    with pytest.raises(PeekingError):
        size_likelihoods(ensemble.test, ensemble.test, [1], seed=0)


CURVE = tuple(LikelihoodPoint(*point) for point in [(1, -1.0, 0.1), (2, -0.8, 0.05), (4, -0.6, 0.0)])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # Above: -0.9, -0.75, -0.6. Below: -1.1, -0.85, -0.6.
        (-0.9, EquivalentSize(1.5, 1.0, 1.8, False)),
        (-0.7, EquivalentSize(3.0, 2 + 2 / 3, 3.2, False)),
        (-0.8, EquivalentSize(2.0, 1 + 2 / 3, 2.4, False)),
        (-0.6, EquivalentSize(4.0, 4.0, 4.0, False)),
        (-1.0, EquivalentSize(1.0, 1.0, 1.4, False)),
        (-1.2, EquivalentSize(1.0, 1.0, 1.0, True)),
        (-0.5, EquivalentSize(math.inf, math.inf, math.inf, False)),
    ],
)
def test_equivalents_by_hand(value, expected):
    assert equivalent_size(value, CURVE) == pytest.approx(expected)


def test_a_dip_counts_as_the_running_maximum():
    curve = [LikelihoodPoint(size, mean, 0.0) for size, mean in [(1, -1.0), (2, -0.5), (3, -0.7), (4, -0.4)]]
    assert equivalent_size(-0.6, curve).size == pytest.approx(1.8)
    assert equivalent_size(-0.45, curve).size == pytest.approx(3 + 0.25 / 0.3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-20, 0), min_size=1, max_size=8), st.integers(-22, 2))
def test_the_first_place_of_a_fine_running_maximum(means, value):
    curve = [LikelihoodPoint(i + 1, float(mean), 0.0) for i, mean in enumerate(means)]
    size = equivalent_size(float(value), curve).size
    fine = np.linspace(1, len(means), (len(means) - 1) * 2520 + 1)
    highest = np.maximum.accumulate(np.interp(fine, np.arange(1, len(means) + 1), means))
    reached = fine[highest >= value - 1e-9]
    assert size == (pytest.approx(reached[0], abs=1 / 2520) if len(reached) else math.inf)


def test_points_are_means_over_subsets(make_ensemble):
    ensemble = make_ensemble(members=4, rows=200)
    curve = size_likelihoods(ensemble.validation, ensemble.test, [1, 2, 4], seed=0, orders=200)
    alone = [calibrated_log_likelihood(ensemble.validation.members([m]), ensemble.test.members([m])) for m in range(4)]
    pairs = [
        calibrated_log_likelihood(ensemble.validation.members([m, o]), ensemble.test.members([m, o]))
        for m in range(4)
        for o in range(m)
    ]
    for point, values in zip(curve[:2], (alone, pairs), strict=True):
        assert abs(point.mean - np.mean(values)) < 4 * np.std(values) / np.sqrt(200)
        assert point.deviation == pytest.approx(np.std(values), rel=0.15)
    whole = calibrated_log_likelihood(ensemble.validation, ensemble.test)
    assert curve[2] == (4, pytest.approx(whole, abs=1e-9), 0.0)


def test_the_curve_is_seeded_and_refuses_wrong_sizes(make_ensemble):
    ensemble = make_ensemble(members=4, rows=100)
    pair = ensemble.validation, ensemble.test
    assert size_likelihoods(*pair, [1, 2], seed=1) == size_likelihoods(*pair, [1, 2], seed=1)
    assert size_likelihoods(*pair, [1, 2], seed=1) != size_likelihoods(*pair, [1, 2], seed=2)
    with pytest.raises(AssertionError, match="ascend"):
        size_likelihoods(*pair, [2, 1], seed=1)
    with pytest.raises(AssertionError, match="sizes must lie"):
        size_likelihoods(*pair, [1, 5], seed=1)


def test_a_deep_ensemble_of_the_same_members_is_worth_its_size(make_ensemble):
    ensemble = make_ensemble(members=24, rows=2000, skill=2.0)
    pair = ensemble.validation, ensemble.test
    curve = size_likelihoods(*pair, curve_sizes(24).tolist(), seed=0, orders=60)
    assert all(left.mean < right.mean for left, right in pairwise(curve))
    # Subsets of other orders, enough of them that their own chance is small.
    for point in size_likelihoods(*pair, [1, 2, 3, 5, 8, 12], seed=1, orders=60):
        worth = equivalent_size(point.mean, curve)
        assert worth.size == pytest.approx(point.size, rel=0.12)
        assert worth.lower <= worth.size <= worth.upper
