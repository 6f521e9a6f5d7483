"""Telling unknown images from known ones: by hand, and against scikit-learn with and without equal scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from ensemble.evaluation.roc import (
    Positive,
    aupr,
    auroc,
    average_precision,
    false_positive_rate,
    fpr_interval,
)
from tests.amounts import examples

KNOWN = np.array([0.9, 0.8, 0.8, 0.4])
UNKNOWN = np.array([0.8, 0.3, 0.1])
BOTH: tuple[Positive, Positive] = ("unknown", "known")


def drawn(seed: int, known: int, unknown: int, digits: int | None) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    scores = draw.normal(1.0, 1.0, known), draw.normal(0.0, 1.3, unknown)
    return scores if digits is None else (scores[0].round(digits), scores[1].round(digits))


def as_sklearn(known: np.ndarray, unknown: np.ndarray, positive: Positive) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores with the positive kind labelled 1 and scored high."""
    is_known = np.repeat([True, False], [len(known), len(unknown)])
    scores = np.concatenate([known, unknown])
    return (is_known, scores) if positive == "known" else (~is_known, -scores)


def test_by_hand() -> None:
    """Of 12 pairs 9 are in order (4 + 4 with 0.3 and 0.1, 1 with 0.8) and 2 equal; to catch all three unknown takes 0.8."""
    assert auroc(KNOWN, UNKNOWN) == 10 / 12
    assert false_positive_rate(KNOWN, UNKNOWN) == 3 / 4
    assert false_positive_rate(KNOWN, UNKNOWN, at=2 / 3) == 0
    assert false_positive_rate(KNOWN, UNKNOWN, positive="known") == 1 / 3
    # Unknown caught from the lowest score: precision 1, 1, 2/3, 3/6, 3/7 at recall 1/3, 2/3, 2/3, 1, 1.
    assert average_precision(KNOWN, UNKNOWN) == pytest.approx(1 / 3 + 1 / 3 + 1 / 3 * 3 / 6)
    assert aupr(KNOWN, UNKNOWN) == pytest.approx(1 / 3 + 1 / 3 + 1 / 3 * (2 / 3 + 3 / 6) / 2)


@settings(max_examples=examples(100), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    digits=st.sampled_from([None, 1, 0]),
    at=st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]),
)
def test_all_are_scikit_learn_s(seed: int, sizes: tuple[int, int], digits: int | None, at: float) -> None:
    known, unknown = drawn(seed, *sizes, digits)
    for positive in BOTH:
        labels, scores = as_sklearn(known, unknown, positive)
        assert auroc(known, unknown) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        assert false_positive_rate(known, unknown, at, positive) == pytest.approx(fpr[np.argmax(tpr >= at)], abs=1e-12)
        precision, recall, _ = precision_recall_curve(labels, scores)
        assert aupr(known, unknown, positive) == pytest.approx(auc(recall, precision), abs=1e-12)
        expected = average_precision_score(labels, scores)
        assert average_precision(known, unknown, positive) == pytest.approx(expected, abs=1e-12)


def test_large_sets_have_exact_counts() -> None:
    known, unknown = drawn(3, 20_000, 10_000, 2)
    labels, scores = as_sklearn(known, unknown, "unknown")
    assert auroc(known, unknown) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_the_area_is_symmetric_and_the_rates_are_not() -> None:
    known, unknown = drawn(1, 300, 200, 1)
    assert auroc(known, unknown) == pytest.approx(1 - auroc(unknown, known), abs=1e-15)
    assert auroc(np.exp(known), np.exp(unknown)) == auroc(known, unknown)
    assert false_positive_rate(known, unknown) != false_positive_rate(known, unknown, positive="known")


def test_infinite_scores_have_their_place_and_nan_none() -> None:
    known, unknown = np.array([np.inf, 1.0]), np.array([-np.inf, 1.0])
    assert auroc(known, unknown) == 3.5 / 4
    with pytest.raises(AssertionError, match="1 scores of unknown images are NaN"):
        auroc(known, np.array([0.0, np.nan]))
    with pytest.raises(AssertionError, match="no scores of known"):
        auroc(known[:0], unknown)


@pytest.mark.parametrize("positive", BOTH)
@pytest.mark.parametrize("digits", [None, 0])
def test_the_bootstrap_is_that_of_drawing_the_rows_themselves(positive: Positive, digits: int | None) -> None:
    known, unknown = drawn(5, 80, 60, digits)
    draw = np.random.default_rng(2)
    found = [
        false_positive_rate(draw.choice(known, len(known)), draw.choice(unknown, len(unknown)), 0.9, positive)
        for _ in range(6000)
    ]
    for confidence in (0.5, 0.8, 0.95):
        interval = fpr_interval(known, unknown, 0, 0.9, positive, confidence, draws=100_000)
        expected = np.quantile(found, [0.5 - confidence / 2, 0.5 + confidence / 2])
        np.testing.assert_allclose(interval, expected, atol=0.03)
    # Not only the ends: the mean of the draws, from the quantiles of narrow intervals.
    ends = [end for c in np.linspace(0.005, 0.995, 100) for end in fpr_interval(known, unknown, 0, 0.9, positive, c)]
    assert np.mean(ends) == pytest.approx(np.mean(found), abs=0.005)


def test_the_interval_is_the_same_for_the_same_seed_and_holds_the_rate() -> None:
    known, unknown = drawn(7, 10_000, 10_000, None)
    interval = fpr_interval(known, unknown, 3)
    assert interval == fpr_interval(known, unknown, 3)
    assert interval != fpr_interval(known, unknown, 4)
    assert interval.lower < false_positive_rate(known, unknown) < interval.upper
    assert interval.upper - interval.lower < 0.05
    assert fpr_interval(np.array([1.0, 2.0]), np.array([0.0]), 1) == (0.0, 0.0)
