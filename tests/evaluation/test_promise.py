"""Promised errors: the search against trying every threshold, how often a guarantee holds, and the judgement on test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ensemble.errors import PeekingError
from ensemble.evaluation.promise import (
    Promise,
    choose_empirical_threshold,
    choose_guaranteed_threshold,
    kept,
)
from ensemble.evaluation.splits import Split, SplitVotes
from ensemble.evaluation.statistics import wilson_interval


def answers(
    confidence: np.ndarray, wrong: np.ndarray, split: Split = "validation"
) -> tuple[SplitVotes, np.ndarray, np.ndarray]:
    """Votes with labels 0 and the classes 0 or 1 that make these rows wrong."""
    votes = SplitVotes(split, np.full((1, len(wrong), 2), 0.5), np.zeros(len(wrong), np.int64))
    return votes, wrong.astype(np.int64), confidence


def drawn(draw: np.random.Generator, rows: int, digits: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose error at confidence t is 0.8 (1 - t)^3, so 0.2 (1 - t)^3 among all at or above t."""
    confidence = draw.random(rows)
    wrong = draw.random(rows) < 0.8 * (1 - confidence) ** 3
    return confidence if digits is None else confidence.round(digits), wrong


def test_by_hand() -> None:
    """Ten rows right, one wrong, nine right: 1 wrong of 20 is 5 %; the first ten are without error."""
    confidence, wrong = np.linspace(1, 0.05, 20), np.arange(20) == 10
    promise = choose_empirical_threshold(*answers(confidence, wrong), risk=0.05)
    assert promise[:2] == (confidence[19], 0.05)
    assert (promise.coverage, promise.observed, promise.guaranteed) == (1.0, 0.05, False)
    promise = choose_empirical_threshold(*answers(confidence, wrong), risk=0.04)
    assert (promise.threshold, promise.coverage, promise.observed) == (confidence[9], 0.5, 0.0)
    # 5 steps for 20 confidences, so a tail of 0.01 each: at 15 rows, looked at first, 0.63^15 + 15 * 0.37 * 0.63^14 = 0.0096.
    promise = choose_guaranteed_threshold(*answers(confidence, wrong), risk=0.37)
    assert promise.threshold == confidence[19]
    assert promise.bound == pytest.approx(stats.binomtest(1, 20).proportion_ci(0.98, "exact").high)
    assert promise.guaranteed
    assert choose_guaranteed_threshold(*answers(confidence, wrong), risk=0.3).threshold == math.inf


def test_too_few_rows_to_pass_are_not_looked_at() -> None:
    """4 steps for 10 confidences: without an error 10 rows prove 1 - 0.0125^(1/10) = 0.355 and 9 rows 0.385."""
    confidence, wrong = np.linspace(1, 0.1, 10), np.zeros(10, bool)
    promise = choose_guaranteed_threshold(*answers(confidence, wrong), risk=0.36)
    assert (promise.threshold, promise.coverage) == (confidence[9], 1.0)
    assert promise.bound == pytest.approx(1 - 0.0125 ** (1 / 10))
    assert choose_guaranteed_threshold(*answers(confidence, wrong), risk=0.35).threshold == math.inf
    assert choose_guaranteed_threshold(*answers(confidence, wrong), risk=0.0).threshold == math.inf
    assert choose_guaranteed_threshold(*answers(confidence, ~wrong), risk=1.0).coverage == 1


@pytest.mark.parametrize("digits", [None, 2, 1])
@pytest.mark.parametrize("risk", [0.02, 0.05, 0.1, 0.2])
def test_what_passes_the_search_has_its_bound(risk: float, digits: int | None) -> None:
    for seed in range(20):
        confidence, wrong = drawn(np.random.default_rng(seed), 500, digits)
        promise = choose_guaranteed_threshold(*answers(confidence, wrong), risk)
        plain = choose_empirical_threshold(*answers(confidence, wrong), risk)
        assert promise.threshold >= plain.threshold
        if promise.threshold == math.inf:
            assert promise.coverage == 0
            continue
        answered = confidence >= promise.threshold
        steps = math.ceil(math.log2(len(np.unique(confidence)) + 1))
        ends = stats.binomtest(int(wrong[answered].sum()), int(answered.sum()))
        assert promise.bound == pytest.approx(ends.proportion_ci(1 - 0.1 / steps, "exact").high, abs=1e-9)
        assert promise.bound <= risk
        assert promise.coverage == answered.mean()
        assert promise.observed == wrong[answered].mean()
        # The next lower confidence failed; it was one of the steps.
        lower = np.unique(confidence)[np.unique(confidence) < promise.threshold]
        if len(lower):
            more = confidence >= lower[-1]
            ends = stats.binomtest(int(wrong[more].sum()), int(more.sum()))
            assert ends.proportion_ci(1 - 0.1 / steps, "exact").high > risk


@pytest.mark.parametrize(("rows", "tries"), [(200, 1000), (2000, 600)])
def test_a_guarantee_holds_as_often_as_it_says_and_the_empirical_threshold_does_not(rows: int, tries: int) -> None:
    """A promise of 10 % among rows at or above t: it is true from 0.2 (1 - t)^3 = 0.1 on."""
    draw = np.random.default_rng(rows)
    held, held_plain, coverage = 0, 0, 0.0
    for _ in range(tries):
        sample = answers(*drawn(draw, rows))
        promise = choose_guaranteed_threshold(*sample, risk=0.1)
        held += promise.threshold >= 1 - 0.5 ** (1 / 3)
        coverage += promise.coverage / tries
        held_plain += choose_empirical_threshold(*sample, risk=0.1).threshold >= 1 - 0.5 ** (1 / 3)
    assert held / tries >= 0.95
    assert held_plain / tries < 0.6
    # At most 0.794 of the rows can be answered at that risk.
    assert coverage == pytest.approx({200: 0.48, 2000: 0.71}[rows], abs=0.05)


@pytest.mark.parametrize("rows", [200, 2000])
def test_a_guarantee_holds_for_a_confidence_that_says_nothing(rows: int) -> None:
    """The hardest case: every threshold's risk is just above the promised one, so that any promise is wrong."""
    draw, broken, tries = np.random.default_rng(rows), 0, 1000
    for _ in range(tries):
        sample = answers(draw.random(rows), draw.random(rows) < 0.1001)
        broken += choose_guaranteed_threshold(*sample, risk=0.1).coverage > 0
    assert 0.002 <= broken / tries <= 0.05


def test_nothing_is_promised_where_nothing_can_be() -> None:
    confidence = np.linspace(0, 1, 30)
    for choose in (choose_guaranteed_threshold, choose_empirical_threshold):
        promise = choose(*answers(confidence, np.ones(30, bool)), risk=0.1)
        assert (promise.threshold, promise.coverage) == (math.inf, 0.0)
        assert math.isnan(promise.observed)
        found = kept(promise, confidence, np.ones(30, bool))
        assert (found.answered, found.coverage, found.outcome) == (0, 0.0, "cannot be told")
    # Two rows without error promise little.
    assert choose_guaranteed_threshold(*answers(confidence[:2], np.zeros(2, bool)), risk=0.1).threshold == math.inf


def test_test_votes_choose_no_threshold() -> None:
    sample = answers(np.linspace(0, 1, 30), np.zeros(30, bool), "test")
    for choose in (choose_guaranteed_threshold, choose_empirical_threshold):
        with pytest.raises(PeekingError):
            choose(*sample, risk=0.1)
    assert (
        choose_guaranteed_threshold(*answers(np.ones(300), np.zeros(300, bool), "out_of_bag"), risk=0.1).coverage == 1
    )


@pytest.mark.parametrize(
    ("wrong", "outcome"), [(0, "kept"), (2, "kept"), (9, "cannot be told"), (14, "cannot be told"), (30, "broken")]
)
def test_kept_by_wilson_s_interval(wrong: int, outcome: str) -> None:
    """400 of 500 rows answered, a promise of 2.5 %, so 10 rows."""
    confidence = np.repeat([0.9, 0.8, 0.2], [100, 300, 100])
    is_wrong = np.arange(500) < wrong
    is_wrong[450:] = True  # of rows not answered
    found = kept(Promise(0.8, 0.025, 0.05, 0.8, 0.01, 0.02), confidence, is_wrong)
    assert (found.rows, found.answered, found.wrong, found.coverage, found.risk) == (500, 400, wrong, 0.8, wrong / 400)
    assert found.coverage_interval == wilson_interval(400, 500)
    assert found.risk_interval == wilson_interval(wrong, 400)
    assert found.outcome == outcome
