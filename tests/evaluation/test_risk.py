from __future__ import annotations

import numpy as np
import pytest

from ensemble.evaluation.risk import most_disputed, risk_coverage


def test_curve_by_hand():
    confidence = np.array([0.9, 0.6, 0.8, 0.7])
    wrong = np.array([False, True, False, True])
    curve = risk_coverage(confidence, wrong)
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.error == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


def test_equal_confidences_are_answered_together_in_any_order():
    confidence, wrong = np.array([0.9, 0.5, 0.5, 0.5]), np.array([False, True, False, False])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        curve = risk_coverage(confidence[order], wrong[order])
        assert curve.coverage.tolist() == [0.25, 1.0]
        assert curve.error.tolist() == [0.0, 0.25]
        assert curve.area == pytest.approx(0.25 * 0 + 0.75 * 0.25)


def test_thinning_keeps_the_end_and_the_area():
    rng = np.random.default_rng(0)
    confidence, wrong = rng.random(5000), rng.random(5000) < 0.1
    thin, full = risk_coverage(confidence, wrong), risk_coverage(confidence, wrong, max_points=10_000)
    assert len(thin.coverage) == len(thin.error) <= 200
    assert len(full.coverage) == 5000
    assert thin.coverage[-1] == 1.0
    assert thin.error[-1] == pytest.approx(wrong.mean())
    assert thin.area == full.area == pytest.approx(full.error.mean())


def test_most_disputed_by_information_then_dissenters_then_row():
    classes = np.array([[0, 0, 0, 1, 0], [0, 1, 1, 1, 0], [0, 2, 1, 1, 1], [0, 3, 1, 1, 2]])
    information = np.array([0.5, 0.1, 0.1, 0.1, 0.1 + 1e-15])
    # Row 0 leads by information; then rows 1 (most popular class: 1 vote), 4 (2 votes), 2 (3), 3 (4).
    assert most_disputed(information, classes).tolist() == [0, 1, 4, 2, 3]
    assert most_disputed(information, classes, count=2).tolist() == [0, 1]
