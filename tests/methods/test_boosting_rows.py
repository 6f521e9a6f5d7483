"""Which rows boosted networks see, and how the sample weights reach them."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.methods.boosting_rows import bag_division, fitting, fold_divisions, training_division

LABELS = np.repeat([0, 1, 2], [40, 41, 22])
SKEWED = np.log(np.arange(1.0, 104.0))


def generator(seed=0):
    return np.random.default_rng(seed)


def test_every_row_judges_one_fold_and_is_fitted_by_the_others():
    divisions = fold_divisions(LABELS, 4, generator())
    np.testing.assert_array_equal(np.sort(np.concatenate([d.judge for d in divisions])), np.arange(103))
    for division in divisions:
        np.testing.assert_array_equal(np.setdiff1d(np.arange(103), division.judge), division.fit)
    sizes = [len(division.judge) for division in divisions]
    assert max(sizes) - min(sizes) == 1
    counts = np.array([np.bincount(LABELS[division.judge], minlength=3) for division in divisions])
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_a_bag_holds_as_many_rows_as_a_bootstrap_and_every_row_as_often():
    inside = np.zeros(200)
    for seed in range(300):
        division = bag_division(200, generator(seed))
        np.testing.assert_array_equal(np.sort(np.concatenate([division.fit, division.judge])), np.arange(200))
        assert len(division.fit) == round(0.6321 * 200)
        inside[division.fit] += 1
    # Binomial with 300 draws: five standard deviations around 0.63.
    assert np.abs(inside / 300 - 0.63).max() < 5 * np.sqrt(0.63 * 0.37 / 300)


def test_drawing_once_follows_the_weights():
    division = fold_divisions(LABELS, 4, generator())[0]
    drawn = np.concatenate([fitting(division, SKEWED, "resample", 78, generator(s)).positions for s in range(400)])
    assert np.isin(drawn, division.fit).all()
    share = np.bincount(drawn, minlength=103) / len(drawn)
    expected = np.zeros(103)
    expected[division.fit] = np.exp(SKEWED[division.fit]) / np.exp(SKEWED[division.fit]).sum()
    assert np.abs(share - expected).max() < 5 * np.sqrt(expected.max() / len(drawn))
    once = fitting(division, SKEWED, "resample", 78, generator())
    assert once.weights is None
    assert not once.resample
    assert (np.diff(once.positions) >= 0).all()


@pytest.mark.parametrize(("use", "resample"), [("loss", False), ("resample_every_epoch", True)])
def test_weights_have_mean_one_and_a_row_that_stands_twice_shares_its_weight(use, resample):
    division = fold_divisions(LABELS, 4, generator())[0]
    count = len(division.fit) + 1
    found = fitting(division, SKEWED, use, count, generator())
    assert found.resample is resample
    assert found.weights is not None
    assert len(found.positions) == len(found.weights) == count
    assert found.weights.dtype == np.float32
    assert found.weights.mean() == pytest.approx(1.0, abs=1e-6)
    per_row = np.bincount(found.positions, weights=found.weights, minlength=103)
    expected = np.exp(SKEWED) * np.isin(np.arange(103), division.fit)
    np.testing.assert_allclose(per_row / per_row.sum(), expected / expected.sum(), atol=1e-7)


def test_weights_too_small_for_float64_are_zero_and_harm_nothing():
    logs = np.zeros(103)
    logs[5:] = -5000.0
    found = fitting(training_division(103), logs, "loss", 103, generator())
    assert found.weights is not None
    assert found.weights[:5].tolist() == pytest.approx([103 / 5] * 5)
    assert not found.weights[5:].any()
    drawn = fitting(training_division(103), logs, "resample", 103, generator())
    assert drawn.positions.max() < 5
