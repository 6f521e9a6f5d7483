from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import expit, logit
from torchmetrics.classification import BinaryCalibrationError

from ensemble.evaluation.smooth_calibration import class_wise_ece, smooth_ece, smooth_ece_interval


def by_hand(confidence_N: np.ndarray, right_N: np.ndarray, points: int = 3000) -> float:
    """smECE by its definition: kernels of all rows and their reflections, summed on a grid of midpoints."""
    t = (np.arange(points) + 0.5) / points
    residual_N = confidence_N - right_N

    def error_at(s: float) -> float:
        total = np.zeros(points)
        for shift in range(-2 * int(np.ceil(4 * s) + 1), 2 * int(np.ceil(4 * s) + 1) + 1, 2):
            for centre_N in (confidence_N + shift, -confidence_N + shift):
                total += residual_N @ np.exp(-0.5 * ((t - centre_N[:, None]) / s) ** 2)
        return float(np.abs(total).mean() / (s * np.sqrt(2 * np.pi) * len(residual_N)))

    return float(brentq(lambda s: error_at(s) - s, 1e-3, 1.0, xtol=1e-7))


def draw(rows: int, seed: int, sharpness: float, a: float = 6.0, b: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidence = np.minimum(rng.beta(a, b, rows), 1 - 1e-9)
    return confidence, rng.random(rows) < expit(logit(confidence) / sharpness)


@pytest.mark.parametrize(
    ("a", "b", "sharpness"), [(6.0, 0.7, 1.0), (6.0, 0.7, 2.0), (1.0, 1.0, 1.0), (0.5, 0.5, 1.5), (2.0, 0.1, 1.2)]
)
def test_against_the_definition(a, b, sharpness):
    confidence, right = draw(150, 1, sharpness, a, b)
    assert smooth_ece(confidence, right) == pytest.approx(by_hand(confidence, right), rel=3e-4)


def test_one_confidence_has_the_gap_for_its_error():
    # The kernel keeps the mass, so residuals of one sign have their mean as error at every bandwidth.
    assert smooth_ece(np.full(10, 0.9), np.arange(10) < 5) == pytest.approx(0.4, abs=1e-6)
    assert smooth_ece(np.full(10, 1.0), np.zeros(10, bool)) == pytest.approx(1.0, abs=1e-6)


def test_opposite_gaps_far_apart_do_not_cancel_and_close_by_they_do():
    right = np.arange(20) < 10
    far = smooth_ece(np.where(right, 0.9, 0.1), right)
    assert far == pytest.approx(0.1, abs=1e-3)
    assert smooth_ece(np.where(right, 0.501, 0.499), ~right) < smooth_ece(np.where(right, 0.6, 0.4), ~right)


def test_nothing_wrong_and_certain_is_perfect():
    assert smooth_ece(np.ones(5), np.ones(5, bool)) == 0.0
    assert smooth_ece_interval(np.ones(5), np.ones(5, bool), seed=0) == (0.0, 0.0)


def test_the_relplot_figure():
    # smECE of these rows by relplot 1.0.3, its bisection refined to 25 halvings and its mesh to 2,000 points.
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.2, 0.9, 2000)
    right = rng.random(2000) < confidence**1.3
    assert smooth_ece(confidence, right) == pytest.approx(0.07089797, rel=1e-4)


def test_a_small_change_of_the_confidences_changes_little():
    confidence, right = draw(500, 3, 1.5, 1.0, 1.0)
    moved = np.clip(confidence + 0.001, 0, 1)
    assert abs(smooth_ece(moved, right) - smooth_ece(confidence, right)) < 0.0021


def test_the_order_of_the_rows_does_not_matter():
    confidence, right = draw(500, 4, 1.5)
    order = np.random.default_rng(0).permutation(500)
    assert smooth_ece(confidence[order], right[order]) == pytest.approx(smooth_ece(confidence, right), rel=1e-9)


def test_the_interval_is_seeded():
    confidence, right = draw(1000, 5, 1.5)
    assert smooth_ece_interval(confidence, right, seed=1) == smooth_ece_interval(confidence, right, seed=1)
    assert smooth_ece_interval(confidence, right, seed=1) != smooth_ece_interval(confidence, right, seed=2)


def test_the_interval_holds_zero_for_a_calibrated_model_and_the_truth_for_another():
    truth_rows, _ = draw(200_000, 9, 1.0)
    # Without noise in the labels: every row is right by the share it is right in.
    truth = smooth_ece(truth_rows, expit(logit(truth_rows) / 1.6))
    assert truth == pytest.approx(0.074, abs=0.001)
    held = []
    for seed in range(6):
        perfect = smooth_ece_interval(*draw(1000, seed, 1.0), seed=0)
        assert perfect.lower == 0.0
        assert perfect.upper < 0.05
        sharp = smooth_ece_interval(*draw(1000, 100 + seed, 1.6), seed=0)
        held.append(sharp.lower <= truth <= sharp.upper)
        assert sharp.lower > 0.02
    assert sum(held) >= 4


@pytest.mark.timed
def test_ten_thousand_rows_take_less_than_a_second():
    confidence, right = draw(10_000, 0, 1.2)
    start = time.perf_counter()
    smooth_ece_interval(confidence, right, seed=0)
    assert time.perf_counter() - start < 2.0


def test_class_wise_is_the_mean_of_binary_errors_of_torchmetrics(make_ensemble):
    votes = make_ensemble(members=1, rows=800, classes=6, skill=2.0).test
    probs, labels = votes.probs_MNK[0], votes.labels_N
    assert np.abs(probs * 15 - np.round(probs * 15)).min() > 1e-7
    theirs = [
        float(BinaryCalibrationError(n_bins=15, norm="l1")(torch.tensor(probs[:, k]), torch.tensor(labels == k).int()))
        for k in range(6)
    ]
    assert class_wise_ece(probs, labels) == pytest.approx(np.mean(theirs), abs=1e-6)
    assert class_wise_ece(probs, labels) > 0.005


def test_class_wise_by_hand():
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]])
    # Class 0: the 0.9 rows are half of the class, the 0.3 rows all: (0.4 + 0.7) / 2; class 1 mirrors it.
    assert class_wise_ece(probs, np.array([0, 1, 0, 0])) == pytest.approx(0.55)
    assert class_wise_ece(np.eye(3), np.arange(3)) == 0.0


@pytest.mark.parametrize("values", [9, 99, 999])
def test_exactly_calibrated_rows_have_no_error_and_take_no_longer(values: int) -> None:
    """Of the rows with confidence k / (values + 1) just that share is right; sums of their residuals are rounding."""
    each = np.arange(1, values + 1)
    confidence = np.repeat(each / (values + 1), values + 1)
    right = np.concatenate([np.arange(values + 1) < k for k in each])
    assert smooth_ece(confidence, right) == 0
    began = time.perf_counter()
    interval = smooth_ece_interval(confidence, right, seed=0, draws=20)
    took_s = time.perf_counter() - began
    assert interval.lower == 0
    began = time.perf_counter()
    smooth_ece_interval(confidence, ~right, seed=0, draws=20)
    assert took_s < 20 * (time.perf_counter() - began)
