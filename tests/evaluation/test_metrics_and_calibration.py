from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss
from torchmetrics.classification import MulticlassCalibrationError

from ensemble.evaluation import metrics
from ensemble.evaluation.calibration import (
    confidence_of,
    equal_mass_bins,
    equal_width_bins,
    expected_calibration_error,
)


def test_scikit_learn_agrees(make_ensemble):
    votes = make_ensemble(members=1, rows=500, classes=5).test
    probs, labels = votes.probs_MNK[0].astype(np.float64), votes.labels_N
    probs /= probs.sum(axis=1, keepdims=True)
    classes = probs.argmax(1)
    assert metrics.negative_log_likelihood(probs, labels) == pytest.approx(log_loss(labels, probs), rel=1e-12)
    one_class_at_a_time = [brier_score_loss(labels == k, probs[:, k]) for k in range(5)]
    assert metrics.brier_score(probs, labels) == pytest.approx(sum(one_class_at_a_time), rel=1e-12)
    ours = metrics.confusion_matrix(labels, classes, 5)
    assert (ours == confusion_matrix(labels, classes)).all()
    assert metrics.error_rate(classes, labels) == pytest.approx(1 - np.trace(ours) / 500)


def test_by_hand():
    probs, labels = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]), np.array([0, 1])
    assert metrics.negative_log_likelihood(probs, labels) == pytest.approx(np.log(2) / 2)
    assert metrics.brier_score(probs, labels) == pytest.approx((0.25 + 0.0625 + 0.0625) / 2)


def test_certain_and_wrong_is_expensive_but_finite():
    loss = metrics.negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1]))
    assert loss == pytest.approx(12 * np.log(10))


def test_a_class_without_rows_has_no_error():
    confusion = metrics.confusion_matrix(np.array([0, 0, 2]), np.array([0, 1, 2]), 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    errors = metrics.class_errors(confusion)
    assert errors[[0, 2]].tolist() == [0.5, 0.0]
    assert np.isnan(errors[1])


def test_metrics_leave_their_arrays_alone():
    probs, labels = np.array([[0.5, 0.5]]), np.array([1])
    metrics.brier_score(probs, labels)
    assert probs.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("bins", [10, 15])
def test_equal_width_is_torchmetrics_away_from_the_edges(make_ensemble, bins):
    # torchmetrics has [lo, hi) and a bin of its own for 1.0; on confidences strictly inside bins both rules agree.
    votes = make_ensemble(members=1, rows=800, classes=6, skill=2.0).test
    probs, labels = votes.probs_MNK[0], votes.labels_N
    classes = probs.argmax(1)
    confidence = confidence_of(probs, classes)
    assert np.abs(confidence[:, None] * bins - np.round(confidence[:, None] * bins)).min() > 1e-6
    ours = expected_calibration_error(equal_width_bins(confidence, classes == labels, bins))
    theirs = MulticlassCalibrationError(6, n_bins=bins, norm="l1")(torch.tensor(probs), torch.tensor(labels))
    assert ours == pytest.approx(float(theirs), abs=1e-6)
    assert ours > 0.005


def test_edges_belong_to_the_bin_below():
    bins = equal_width_bins(np.array([0.0, 0.5, 0.5 + 1e-9, 1.0]), np.array([True, True, False, True]), bins=2)
    assert bins.count_B.tolist() == [2, 2]
    assert bins.confidence_B == pytest.approx([0.25, 0.75])
    assert bins.accuracy_B.tolist() == [1.0, 0.5]
    assert expected_calibration_error(bins) == pytest.approx(0.5 * 0.75 + 0.5 * 0.25)


def test_confidence_above_one_by_rounding_stays_in_the_last_bin():
    confidence = confidence_of(np.array([[np.float32(1.0000001), 0.0]]), np.array([0]))
    assert confidence.tolist() == [1.0]
    assert equal_width_bins(confidence, np.array([True])).count_B[-1] == 1


def test_equal_mass_divides_distinct_confidences_evenly():
    confidence = np.random.default_rng(0).permutation(np.linspace(0.3, 0.99, 150))
    bins = equal_mass_bins(confidence, confidence > 0.5)
    assert bins.count_B.tolist() == [10] * 15
    assert bins.lower_B[0] == confidence.min()
    assert bins.upper_B[-1] == confidence.max()


def test_equal_mass_keeps_equal_confidences_together():
    bins = equal_mass_bins(np.array([0.5] * 30 + [1.0] * 70), np.arange(100) > 0, bins=10)
    assert sorted(bins.count_B[bins.count_B > 0].tolist()) == [30, 70]
    assert np.isnan(bins.accuracy_B[bins.count_B == 0]).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1, allow_subnormal=False), st.booleans()), min_size=1, max_size=60), st.randoms()
)
def test_bins_hold_every_row_once_in_any_order(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    for rule in (equal_width_bins, equal_mass_bins):
        one, other = (rule(np.array([c for c, _ in some]), np.array([r for _, r in some])) for some in (rows, shuffled))
        assert one.count_B.sum() == len(rows)
        assert one.count_B.tolist() == other.count_B.tolist()
        assert 0 <= expected_calibration_error(one) <= 1
        assert expected_calibration_error(one) == pytest.approx(expected_calibration_error(other), abs=1e-12)


def test_a_perfectly_calibrated_forecast_has_no_error():
    confidence = np.repeat([0.55, 0.75, 0.95], 100)
    right = np.concatenate([np.arange(100) < 55, np.arange(100) < 75, np.arange(100) < 95])
    for rule in (equal_width_bins, equal_mass_bins):
        assert expected_calibration_error(rule(confidence, right)) == pytest.approx(0, abs=1e-12)
