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

counts = st.integers(0, 3000)


@settings(max_examples=100, deadline=None)
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


@settings(max_examples=100, deadline=None)
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
    assert math.isnan(mean_interval([0.01]).lower)


def test_paired_difference_interval_covers():
    rng = np.random.default_rng(0)
    n, p1, p2 = 2000, 0.006, 0.003
    inside = 0
    for _ in range(1000):
        b, c, _ = rng.multinomial(n, [p1, p2, 1 - p1 - p2])
        interval = paired_difference_interval(int(b), int(c), n)
        inside += interval.lower <= p1 - p2 <= interval.upper
    assert 935 <= inside <= 970


def test_paired_difference_interval_by_hand():
    lower, upper = paired_difference_interval(9, 1, 98)
    # p1 = 10/100, p2 = 2/100: 0.08 +- 1.96 sqrt((0.12 - 0.0064) / 100)
    half = 1.959963985 * math.sqrt(0.001136)
    assert (lower, upper) == pytest.approx((0.08 - half, 0.08 + half))
    assert paired_difference_interval(1, 9, 98) == pytest.approx((-upper, -lower))
