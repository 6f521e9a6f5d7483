from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, betabinom

from ensemble.evaluation.conformal import calibrate
from ensemble.evaluation.conformal_sets import caution, describe, promised_band
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.statistics import wilson_interval


def test_figures_by_hand():
    sets = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 1], [1, 0, 0]], bool)
    labels, vote = np.array([0, 1, 0, 2, 0, 1]), np.array([0, 1, 2, 2, 1, 0])
    # Filled: row 1 gets class 1 (right), row 2 class 2 (wrong). Covered: rows 0, 1 and 3.
    figures = describe(sets, labels, vote, alpha=0.2)
    assert figures.coverage == 0.5
    assert figures.interval == wilson_interval(3, 6)
    assert figures.raw_coverage == pytest.approx(2 / 6)
    assert figures.mean_size == pytest.approx((1 + 1 + 1 + 3 + 2 + 1) / 6)
    assert figures.median_size == 1.0
    assert (figures.empty, figures.single, figures.all_classes) == pytest.approx((2 / 6, 4 / 6, 1 / 6))
    assert figures.class_coverage_K == pytest.approx([1 / 3, 1 / 2, 1.0])
    assert figures.class_gap == pytest.approx((0.8 - 1 / 3 + 0.3 + 0.2) / 3)
    assert figures.strata == ((0, 1, 4, 0.5), (2, 3, 2, 0.5))
    assert figures.size_violation == pytest.approx(0.3)


def test_a_class_without_rows_has_no_coverage_and_no_part_in_the_gap():
    figures = describe(np.ones((2, 3), bool), np.array([0, 2]), np.array([0, 2]), alpha=0.1)
    assert np.isnan(figures.class_coverage_K[1])
    assert figures.class_gap == pytest.approx(0.1)


def test_filling_only_adds_coverage(make_ensemble):
    ensemble = make_ensemble(members=1, rows=2000, skill=5.0)
    probs, labels = ensemble.test.probs_MNK[0], ensemble.test.labels_N
    sets = calibrate("lac", SplitVotes("validation", *_of(ensemble.validation)), 0.1).sets(probs)
    figures = describe(sets, labels, probs.argmax(axis=1), 0.1)
    assert figures.empty > 0
    assert figures.coverage > figures.raw_coverage
    assert 0.87 < figures.raw_coverage < 0.93


def _of(votes: SplitVotes) -> tuple[np.ndarray, np.ndarray]:
    return votes.probs_MNK, votes.labels_N


@pytest.mark.parametrize(("n", "alpha", "k"), [(20, 0.1, 19), (100, 0.1, 91), (1000, 0.05, 951), (5000, 0.1, 4501)])
def test_the_band_is_scipys(n, alpha, k):
    assert promised_band(n, alpha) == pytest.approx(beta(k, n + 1 - k).interval(0.99), rel=1e-9)
    assert promised_band(n, alpha, confidence=0.9) == pytest.approx(beta(k, n + 1 - k).interval(0.9), rel=1e-9)
    theirs = betabinom(700, k, n + 1 - k)
    assert promised_band(n, alpha, test_rows=700) == pytest.approx((theirs.ppf(0.005) / 700, theirs.ppf(0.995) / 700))


def test_the_band_of_few_rows_is_certain_and_test_rows_widen_it():
    assert promised_band(8, 0.1) == (1.0, 1.0)
    alone, with_rows = promised_band(5000, 0.1), promised_band(5000, 0.1, test_rows=10_000)
    assert with_rows.lower < alone.lower < 0.9 < alone.upper < with_rows.upper
    assert promised_band(5000, 0.1, test_rows=10_000_000) == pytest.approx(alone, abs=2e-4)


def test_caution_only_for_a_vote_better_than_the_promise():
    assert caution(0.89, 0.1) is None
    assert caution(0.9, 0.1) is None
    sentence = caution(0.992, 0.1)
    assert sentence is not None
    assert "99.20 %" in sentence
    assert "90.00 %" in sentence
    assert "alpha, for example 0.004," in sentence
    assert "249 calibration rows" in sentence
    assert "example" not in (caution(1.0, 0.1) or "")


def test_what_the_caution_says_of_lac(make_ensemble):
    ensemble = make_ensemble(members=1, rows=2000, skill=5.0)
    probs, labels = ensemble.test.probs_MNK[0], ensemble.test.labels_N
    assert (probs.argmax(axis=1) == labels).mean() > 0.9
    sizes = calibrate("lac", SplitVotes("validation", *_of(ensemble.validation)), 0.1).sets(probs).sum(axis=1)
    assert (sizes > 1).mean() < 0.02
