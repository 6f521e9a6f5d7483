from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef

from ensemble.evaluation.diversity import (
    correctness_kappa,
    double_fault,
    error_correlation,
    label_disagreement,
    pair_counts,
    pairs,
    q_statistic,
)

# Ten rows: both right 4, only the first 3, only the second 2, both wrong 1.
FIRST_WRONG = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1], bool)
SECOND_WRONG = np.array([0, 0, 0, 0, 1, 1, 1, 0, 0, 1], bool)
COUNTS = pair_counts(np.stack([FIRST_WRONG, SECOND_WRONG]))


def test_counts_by_hand():
    assert [float(matrix[0, 1]) for matrix in COUNTS] == [4, 3, 2, 1]
    assert [float(matrix[1, 0]) for matrix in COUNTS] == [4, 2, 3, 1]


def test_measures_by_hand():
    assert q_statistic(COUNTS)[0, 1] == pytest.approx((4 - 6) / (4 + 6))
    assert double_fault(COUNTS)[0, 1] == pytest.approx(0.1)
    # observed agreement 0.5, expected 0.7 * 0.6 + 0.3 * 0.4
    assert correctness_kappa(COUNTS)[0, 1] == pytest.approx((0.5 - 0.54) / (1 - 0.54))
    assert error_correlation(COUNTS)[0, 1] == pytest.approx((4 - 6) / np.sqrt(7 * 3 * 6 * 4))


def test_measures_against_scikit_learn():
    wrong = np.random.default_rng(1).random((4, 300)) < np.array([[0.1], [0.2], [0.3], [0.15]])
    wrong[1, :40] = wrong[0, :40]
    counts = pair_counts(wrong)
    for i in range(4):
        for j in range(4):
            assert correctness_kappa(counts)[i, j] == pytest.approx(cohen_kappa_score(wrong[i], wrong[j]))
            assert error_correlation(counts)[i, j] == pytest.approx(matthews_corrcoef(wrong[i], wrong[j]))


def test_members_without_errors_have_undefined_measures():
    counts = pair_counts(np.stack([np.zeros(10, bool), np.zeros(10, bool), FIRST_WRONG]))
    for measure in (q_statistic, correctness_kappa, error_correlation):
        assert np.isnan(measure(counts)[0, 1]), measure.__name__
    assert np.isnan(q_statistic(counts)[0, 2])
    assert double_fault(counts)[0, 1] == 0


def test_disagreement_is_about_labels_not_about_being_right():
    # Both are wrong on the last row, but with different classes.
    classes = np.array([[0, 1, 2, 2], [0, 1, 1, 0], [0, 1, 2, 2]])
    disagreement = label_disagreement(classes, 3)
    assert disagreement.tolist() == [[0, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0]]


def test_disagreement_against_brute_force():
    classes = np.random.default_rng(2).integers(0, 5, (7, 123))
    brute = [[float(np.mean(a != b)) for b in classes] for a in classes]
    assert label_disagreement(classes, 5) == pytest.approx(np.array(brute))


def test_pairs_are_each_pair_once():
    assert pairs(np.arange(9.0).reshape(3, 3)).tolist() == [1, 2, 5]
    assert len(pairs(np.zeros((1, 1)))) == 0
