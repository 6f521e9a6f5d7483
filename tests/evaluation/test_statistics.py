from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from ensemble.evaluation.statistics import (
    holm,
    mcnemar_exact,
    mean_interval,
    paired_difference_interval,
    wilson_interval,
)
from tests.amounts import examples

counts = st.integers(0, 3000)


@settings(max_examples=examples(100), deadline=None)
@given(wrong=counts, right=counts, confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_is_statsmodels(wrong, right, confidence):
    if wrong + right == 0:
        assert all(map(math.isnan, wilson_interval(0, 0)))
        return
    theirs = proportion_confint(wrong, wrong + right, alpha=1 - confidence, method="wilson")
    assert wilson_interval(wrong, wrong + right, confidence) == pytest.approx(theirs, abs=1e-12)


def test_wilson_at_the_ends_stays_inside():
    assert wilson_interval(0, 50).lower == 0.0
    assert wilson_interval(50, 50).upper == 1.0
    assert 0 < wilson_interval(0, 50).upper < 0.1


@pytest.mark.parametrize(
    ("wrong", "lower", "upper"), [(80, 0.643, 0.994), (46, 0.345, 0.613), (23, 0.153, 0.345), (9, 0.047, 0.171)]
)
def test_wilson_on_ten_thousand_images(wrong, lower, upper):
    interval = wilson_interval(wrong, 10_000)
    assert (round(100 * interval.lower, 3), round(100 * interval.upper, 3)) == (lower, upper)


@settings(max_examples=examples(100), deadline=None)
@given(b=counts, c=counts)
def test_mcnemar_is_statsmodels_and_scipy(b, c):
    p = mcnemar_exact(b, c)
    assert p == pytest.approx(mcnemar([[0, b], [c, 0]], exact=True).pvalue, rel=1e-10, abs=1e-12)
    if b + c:
        assert p == pytest.approx(stats.binomtest(b, b + c).pvalue, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(
    ("b", "c", "p"), [(5, 0, 0.063), (6, 0, 0.031), (9, 1, 0.021), (12, 3, 0.035), (15, 5, 0.041), (20, 8, 0.036)]
)
def test_mcnemar_by_hand(b, c, p):
    assert mcnemar_exact(b, c) == pytest.approx(p, abs=0.0006)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)


def test_mcnemar_without_discordant_rows_says_nothing():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 0, mid_p=True) == 1.0


@pytest.mark.parametrize(("b", "c"), [(5, 0), (9, 1), (3, 12), (7, 8)])
def test_mid_p_counts_half_of_what_was_seen(b, c):
    n, m = b + c, min(b, c)
    expected = sum(math.comb(n, i) for i in range(m)) / 2**n * 2 + math.comb(n, m) / 2**n
    assert mcnemar_exact(b, c, mid_p=True) == pytest.approx(expected, rel=1e-12)
    assert mcnemar_exact(b, c, mid_p=True) < mcnemar_exact(b, c)


@pytest.mark.parametrize("n", [4, 5])
def test_mid_p_of_no_difference_is_one(n):
    assert mcnemar_exact(n, n, mid_p=True) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_holm_is_statsmodels(count):
    # Rounded, so that some are equal.
    p = np.random.default_rng(count).random(count).round(1) / 5
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)


def test_holm_by_hand_leaves_undefined_ones_out():
    adjusted = holm([0.01, math.nan, 0.04, 0.03])
    assert adjusted[[0, 2, 3]] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(adjusted[1])


def test_mean_interval_is_statsmodels():
    values = [0.011, 0.009, 0.013, 0.0101, 0.0097]
    assert mean_interval(values) == pytest.approx(DescrStatsW(values).tconfint_mean(), rel=1e-9)


@settings(max_examples=examples(100), deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=0, max_size=9))
def test_mean_interval_stays_inside_and_needs_three_values(values):
    lower, upper = mean_interval(values)
    if len(values) < 3 or min(values) == max(values):
        assert math.isnan(lower)
        assert math.isnan(upper)
    else:
        assert 0 <= lower <= np.mean(values) + 1e-15
        assert np.mean(values) - 1e-15 <= upper <= 1


def test_paired_difference_interval_and_mcnemar_agree_on_every_table():
    """All (b, c, n) to n = 400: 0 is left out exactly when p < 0.05. b and c decide; n only scales."""
    for discordant in range(1, 401):
        for b in range(discordant // 2 + 1):  # the other half is their mirror image, see below
            p = mcnemar_exact(b, discordant - b)
            for total in {discordant, 400}:
                lower, upper = paired_difference_interval(b, discordant - b, total)
                assert -1 <= lower <= (2 * b - discordant) / total <= upper <= 1
                assert (lower > 0 or upper < 0) == (p < 0.05), (b, discordant - b, total)


@settings(max_examples=examples(200), deadline=None)
@given(b=counts, c=counts, rest=counts, confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_paired_difference_interval_holds_what_the_exact_test_does_not_reject(b, c, rest, confidence):
    """Against scipy: Clopper and Pearson's ends for the share among discordant rows, and the exact binomial test."""
    if b + c == 0:
        return
    total = b + c + rest
    lower, upper = paired_difference_interval(b, c, total, confidence)
    test = stats.binomtest(b, b + c)
    ends = test.proportion_ci(confidence, "exact")
    low, high = ((b + c) / total * (2 * end - 1) for end in (ends.low, ends.high))
    assert lower <= low + 1e-12
    assert upper >= high - 1e-12
    assert (lower > 0 or upper < 0) == (test.pvalue < 1 - confidence)
    assert paired_difference_interval(c, b, total, confidence) == pytest.approx((-upper, -lower), abs=1e-12)


@pytest.mark.parametrize("total", [60, 150])
@pytest.mark.parametrize(
    ("p1", "p2"), [(0.01, 0.01), (0.05, 0.02), (0.2, 0.01), (0.02, 1e-4), (0.3, 0.05), (0.3, 0.3), (0.4, 0.1)]
)
def test_paired_difference_interval_covers(total, p1, p2):
    """Over all tables, weighted by their probability: the true difference lies inside in at least 95 %."""
    tables = np.array([(b, c) for b in range(total + 1) for c in range(total + 1 - b)])
    chances = stats.multinomial.pmf(np.c_[tables, total - tables.sum(axis=1)], total, [p1, p2, 1 - p1 - p2])
    likely = chances > 1e-9
    ends = np.array([paired_difference_interval(int(b), int(c), total) for b, c in tables[likely]])
    inside = (ends[:, 0] <= p1 - p2) & (p1 - p2 <= ends[:, 1])
    assert chances[likely][inside].sum() + 1e-6 >= 0.95


def test_paired_difference_interval_by_hand():
    lower, upper = paired_difference_interval(9, 1, 98)
    # p1 = 10/100, p2 = 2/100: 0.08 +- 1.96 sqrt((0.12 - 0.0064) / 100), the wider end above; below, Clopper and Pearson's
    # 0.55498 for 9 of 10 in 10/98 (2 q - 1).
    half = 1.959963985 * math.sqrt(0.001136)
    assert upper == pytest.approx(0.08 + half)
    assert lower == pytest.approx(10 / 98 * (2 * 0.554984 - 1), abs=1e-6)
    assert all(map(math.isnan, paired_difference_interval(0, 0, 0)))
