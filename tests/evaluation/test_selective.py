"""Selective prediction: by hand, against loops over the rows, against torch-uncertainty's values, and by simulation."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.evaluation.risk import risk_coverage
from ensemble.evaluation.roc import auroc
from ensemble.evaluation.selective import (
    answered_together,
    augrc,
    aurc,
    coverage_at_risk,
    excess_aurc,
    paired_aurc_difference,
    risk_at_coverage,
    risk_band,
    scod_risk_coverage,
)
from tests.amounts import examples

CONFIDENCE = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6])
WRONG = np.array([0, 0, 1, 0, 0, 1, 0, 1], bool)


def drawn(seed: int, rows: int, digits: int | None) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    confidence = draw.random(rows)
    wrong = draw.random(rows) < 0.5 * (1 - confidence)
    return confidence if digits is None else confidence.round(digits), wrong


def points(confidence: np.ndarray, wrong: np.ndarray) -> list[tuple[int, int]]:
    """Rows answered and wrong at each threshold, by a loop."""
    answered = [confidence >= threshold for threshold in sorted(set(confidence.tolist()), reverse=True)]
    return [(int(rows.sum()), int(wrong[rows].sum())) for rows in answered]


def test_by_hand() -> None:
    """Wrong among the first 1..8: 0, 0, 1, 1, 1, 2, 2, 3."""
    assert aurc(CONFIDENCE, WRONG) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4 + 1 / 5 + 2 / 6 + 2 / 7 + 3 / 8) / 8)
    assert augrc(CONFIDENCE, WRONG) == pytest.approx((0 + 0 + 1 + 1 + 1 + 2 + 2 + 3) / 64)
    best = (1 / 6 + 2 / 7 + 3 / 8) / 8
    assert excess_aurc(CONFIDENCE, WRONG) == pytest.approx(aurc(CONFIDENCE, WRONG) - best)
    assert coverage_at_risk(CONFIDENCE, WRONG, 0.25) == 5 / 8
    assert coverage_at_risk(CONFIDENCE, WRONG, 0.0) == 2 / 8
    assert coverage_at_risk(CONFIDENCE, WRONG, 0.4) == 1
    assert coverage_at_risk(-CONFIDENCE, WRONG, 0.1) == 0
    assert risk_at_coverage(CONFIDENCE, WRONG, 0.5) == 1 / 4
    assert risk_at_coverage(CONFIDENCE, WRONG, 0.51) == 1 / 5
    assert risk_at_coverage(CONFIDENCE, WRONG, 1.0) == 3 / 8


def test_torch_uncertainty_has_the_trapezoid() -> None:
    """Values of torch-uncertainty 0.13.0 for these rows: AURC, AUGRC, CovAtxRisk(0.25), RiskAtxCov(0.5)."""
    theirs_aurc, theirs_augrc, theirs_coverage, theirs_risk = 0.22712585, 0.15178571, 0.625, 0.25
    for ours, theirs, last in ((aurc, theirs_aurc, 3 / 8), (augrc, theirs_augrc, 3 / 8)):
        area = ours(CONFIDENCE, WRONG)
        assert area + (area - last / 2) / 7 == pytest.approx(theirs, abs=1e-7)
    assert coverage_at_risk(CONFIDENCE, WRONG, 0.25) == theirs_coverage
    assert risk_at_coverage(CONFIDENCE, WRONG, 0.5) == theirs_risk


@settings(max_examples=examples(100), deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 60), digits=st.sampled_from([None, 1]))
def test_against_loops_over_the_thresholds(seed: int, rows: int, digits: int | None) -> None:
    confidence, wrong = drawn(seed, rows, digits)
    found = points(confidence, wrong)
    steps = [answered - before for (answered, _), before in zip(found, [0, *(a for a, _ in found)], strict=False)]
    assert aurc(confidence, wrong) == pytest.approx(
        sum(s * w / a for s, (a, w) in zip(steps, found, strict=True)) / rows
    )
    assert augrc(confidence, wrong) == pytest.approx(
        sum(s * w for s, (_, w) in zip(steps, found, strict=True)) / rows**2
    )
    for level in (0.0, 0.1, 0.25, 0.5):
        expected = max([a / rows for a, w in found if w / a <= level], default=0.0)
        assert coverage_at_risk(confidence, wrong, level) == expected
    for coverage in (0.01, 0.3, 0.5, 1.0):
        assert risk_at_coverage(confidence, wrong, coverage) == next(w / a for a, w in found if a / rows >= coverage)
    together = answered_together(confidence, wrong)
    assert list(zip(together.answered_G.tolist(), together.wrong_G.tolist(), strict=True)) == found
    assert together.confidence_G.tolist() == sorted(set(confidence.tolist()), reverse=True)
    assert excess_aurc(confidence, wrong) >= 0


def test_the_perfect_order_has_no_excess() -> None:
    _, wrong = drawn(1, 500, None)
    perfect = np.where(wrong, 0.0, 1.0) + np.random.default_rng(2).random(500) / 2
    assert excess_aurc(perfect, wrong) == pytest.approx(0, abs=1e-15)
    assert excess_aurc(-perfect, wrong) > 0.3
    # The paper's closed form for many rows.
    rate = wrong.mean()
    assert aurc(perfect, wrong) == pytest.approx(rate + (1 - rate) * np.log1p(-rate), abs=0.001)
    assert excess_aurc(perfect, np.zeros(500, bool)) == 0
    assert aurc(perfect, np.ones(500, bool)) == 1


def test_augrc_is_the_paper_s_closed_form() -> None:
    """Traub et al. 2024: (1 - AUROC) r (1 - r) + r^2 / 2, and r / 2N for the sum over rows instead of the integral."""
    confidence, wrong = drawn(4, 300, None)
    rate = wrong.mean()
    expected = (1 - auroc(confidence[~wrong], confidence[wrong])) * rate * (1 - rate) + rate**2 / 2 + rate / 600
    assert augrc(confidence, wrong) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("digits", [None, 1])
def test_the_band_is_that_of_drawing_the_rows_themselves(digits: int | None) -> None:
    confidence, wrong = drawn(6, 150, digits)
    draw, coverages = np.random.default_rng(3), [0.2, 0.5, 0.9, 1.0]
    found = []
    for _ in range(400):
        rows = draw.integers(150, size=150)
        found.append([risk_at_coverage(confidence[rows], wrong[rows], c) for c in coverages])
    band = risk_band(confidence, wrong, coverages, 3, draws=400)
    assert band.risk_C.tolist() == [risk_at_coverage(confidence, wrong, c) for c in coverages]
    np.testing.assert_allclose([band.lower_C, band.upper_C], np.quantile(found, [0.025, 0.975], axis=0), atol=1e-12)
    assert (risk_band(confidence, wrong, coverages, 4, draws=400).upper_C != band.upper_C).any()


@pytest.mark.parametrize("digits", [None, 1])
def test_the_difference_is_that_of_drawing_the_rows_themselves(digits: int | None) -> None:
    """With 399 draws the ends are the 9th from either side: 2 * 9 / 400 is the last below 0.05."""
    confidence, wrong = drawn(6, 150, digits)
    other, other_wrong = drawn(7, 150, digits)
    draw = np.random.default_rng(3)
    found = []
    for _ in range(399):
        rows = draw.integers(150, size=150)
        found.append(aurc(confidence[rows], wrong[rows]) - aurc(other[rows], other_wrong[rows]))
    difference = paired_aurc_difference(confidence, wrong, other, other_wrong, 3, draws=399)
    assert difference.difference == aurc(confidence, wrong) - aurc(other, other_wrong)
    assert (difference.lower, difference.upper) == pytest.approx((sorted(found)[8], sorted(found)[-9]), abs=1e-12)
    beyond = min(np.sum(np.array(found) <= 0), np.sum(np.array(found) >= 0))
    assert difference.p_value == pytest.approx(2 * (beyond + 1) / 400)
    assert difference != paired_aurc_difference(confidence, wrong, other, other_wrong, 4, draws=399)


def test_draws_that_are_equal_but_for_rounding_count_for_both_sides() -> None:
    """Against fractions: with few rows and ties many draws have equal areas, which floats put on one side of 0."""

    def area(confidence: np.ndarray, wrong: np.ndarray) -> Fraction:
        found = answered_together(confidence, wrong)
        sizes = np.diff(found.answered_G, prepend=0).tolist()
        risks = [Fraction(w, a) for w, a in zip(found.wrong_G.tolist(), found.answered_G.tolist(), strict=True)]
        return sum((size * risk for size, risk in zip(sizes, risks, strict=True)), Fraction(0)) / len(wrong)

    equal = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = int(rng.integers(5, 60))
        given = [(rng.integers(0, 4, rows) / 4, rng.random(rows) < 0.4) for _ in range(2)]
        draw, drawn_D = np.random.default_rng(seed), []
        for _ in range(43):
            taken = draw.integers(rows, size=rows)
            drawn_D.append(area(given[0][0][taken], given[0][1][taken]) - area(given[1][0][taken], given[1][1][taken]))
        beyond = min(sum(one <= 0 for one in drawn_D), sum(one >= 0 for one in drawn_D))
        found = paired_aurc_difference(*given[0], *given[1], seed, draws=43)
        assert found.p_value == min(1.0, 2 * (beyond + 1) / 44), seed
        assert (found.lower <= 0 <= found.upper) == (found.p_value >= 0.05)
        equal += drawn_D.count(Fraction(0))
    assert equal > 10


def test_the_band_holds_the_true_risk_about_as_often_as_it_says() -> None:
    """Errors of 0.5 (1 - t) at confidence t, so a risk of 0.125 among the surer half."""
    held = 0
    for seed in range(300):
        confidence, wrong = drawn(seed, 400, None)
        band = risk_band(confidence, wrong, [0.5], seed, draws=200)
        held += band.lower_C[0] <= 0.125 <= band.upper_C[0]
    assert 0.9 <= held / 300 <= 0.98


@settings(max_examples=examples(60), deadline=None)
@given(
    seed=st.integers(0, 10**6), shift=st.sampled_from([0.0, 0.1, 0.2]), confidence=st.sampled_from([0.5, 0.9, 0.95]),
    draws=st.sampled_from([99, 199, 250]),
)  # fmt: skip
def test_interval_and_p_value_never_contradict(seed: int, shift: float, confidence: float, draws: int) -> None:
    score, wrong = drawn(seed, 40, 1)
    other = score - shift * wrong
    found = paired_aurc_difference(score, wrong, other, wrong, seed, confidence, draws)
    assert found.lower <= found.upper
    assert (found.lower > 0 or found.upper < 0) == (found.p_value < round(1 - confidence, 9))
    same = paired_aurc_difference(score, wrong, score, wrong, seed, confidence, draws)
    assert same == (0, 0, 0, 1)


def test_equal_areas_are_found_different_as_seldom_as_said() -> None:
    """Two noisy readings of one confidence."""
    draw, rejected, tries = np.random.default_rng(5), 0, 300
    for seed in range(tries):
        truth, wrong = drawn(1000 + seed, 300, None)
        one, other = truth + draw.normal(0, 0.2, (2, 300))
        rejected += paired_aurc_difference(one, wrong, other, wrong, seed, draws=199).p_value < 0.05
    assert 0.01 <= rejected / tries <= 0.08


def test_unknown_images_are_errors_when_answered() -> None:
    """By hand, and torch-uncertainty 0.13.0's SCODAURC for the same rows at its cost of 1/2: 0.17937049."""
    unknown = np.array([0.5, 0.88, 0.62])
    curve = scod_risk_coverage(CONFIDENCE, WRONG, unknown)
    wrong = np.cumsum([0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1])
    assert curve.error == pytest.approx(wrong / np.arange(1, 12))
    assert curve.area == pytest.approx(np.mean(wrong / np.arange(1, 12)))
    assert (curve.area + (curve.area - 6 / 11 / 2) / 10) / 2 == pytest.approx(0.17937049, abs=1e-7)
    assert scod_risk_coverage(CONFIDENCE, WRONG, unknown[:0]).area == risk_coverage(CONFIDENCE, WRONG).area


def test_nonsense_is_refused() -> None:
    with pytest.raises(AssertionError, match="1 confidences are NaN"):
        augrc(np.array([0.5, np.nan]), np.array([True, False]))
    with pytest.raises(AssertionError, match="no rows"):
        coverage_at_risk(np.empty(0), np.empty(0, bool), 0.1)
    with pytest.raises(AssertionError, match="coverage"):
        risk_at_coverage(CONFIDENCE, WRONG, 0.0)
    with pytest.raises(AssertionError, match="too few"):
        paired_aurc_difference(CONFIDENCE, WRONG, CONFIDENCE, WRONG, 0, draws=20)
