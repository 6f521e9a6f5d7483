"""DeLong's interval and test against their definition over all pairs, and how often the interval holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ensemble.evaluation.delong import delong_interval, paired_delong
from ensemble.evaluation.roc import auroc
from tests.amounts import examples


def pair_values(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """[N, U]: 1 where the known image scores higher, 1/2 where both score the same."""
    return (known[:, None] > unknown) + 0.5 * (known[:, None] == unknown)


def covariance(known_SN: np.ndarray, unknown_SU: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and their covariance as in DeLong et al. 1988, equations 4 to 6, over all pairs."""
    values = np.array([pair_values(k, u) for k, u in zip(known_SN, unknown_SU, strict=True)])
    by_known, by_unknown = values.mean(axis=2), values.mean(axis=1)
    return values.mean(axis=(1, 2)), np.cov(by_known) / by_known.shape[1] + np.cov(by_unknown) / by_unknown.shape[1]


def drawn(seed: int, known: int, unknown: int, digits: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Two related scores."""
    draw = np.random.default_rng(seed)
    first = draw.normal(1.2, 1, known), draw.normal(0, 1, unknown)
    second = first[0] + draw.normal(0, 1, known), first[1] + draw.normal(0, 1, unknown)
    both = np.array([first[0], second[0]]), np.array([first[1], second[1]])
    return both if digits is None else (both[0].round(digits), both[1].round(digits))


@pytest.mark.parametrize("digits", [None, 1, 0])
@pytest.mark.parametrize("sizes", [(40, 25), (7, 90), (200, 200)])
def test_interval_and_test_are_those_over_all_pairs(sizes: tuple[int, int], digits: int | None) -> None:
    known_SN, unknown_SU = drawn(11, *sizes, digits)
    areas, covariance_SS = covariance(known_SN, unknown_SU)
    z = stats.norm.ppf(0.975)
    for s in range(2):
        half = z * math.sqrt(covariance_SS[s, s]) / (areas[s] * (1 - areas[s]))
        centre = math.log(areas[s] / (1 - areas[s]))
        expected = [1 / (1 + math.exp(-(centre + sign * half))) for sign in (-1, 1)]
        assert delong_interval(known_SN[s], unknown_SU[s]) == pytest.approx(expected, abs=1e-12)
    error = math.sqrt(covariance_SS[0, 0] + covariance_SS[1, 1] - 2 * covariance_SS[0, 1])
    difference, lower, upper, p = paired_delong(known_SN, unknown_SU)
    assert difference == pytest.approx(areas[0] - areas[1], abs=1e-12)
    assert (lower, upper) == pytest.approx((difference - z * error, difference + z * error), abs=1e-12)
    assert p == pytest.approx(2 * stats.norm.sf(abs(difference) / error), rel=1e-9)


@settings(max_examples=examples(100), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    digits=st.sampled_from([None, 0]),
    confidence=st.sampled_from([0.5, 0.9, 0.95]),
)
def test_interval_and_p_value_never_contradict(
    seed: int, sizes: tuple[int, int], digits: int | None, confidence: float
) -> None:
    known_SN, unknown_SU = drawn(seed, *sizes, digits)
    difference, lower, upper, p = paired_delong(known_SN, unknown_SU, confidence)
    assert -1 <= lower <= difference <= upper <= 1
    assert (lower > 0 or upper < 0) == (p < 1 - confidence)
    turned = paired_delong(known_SN[::-1], unknown_SU[::-1], confidence)
    assert turned == pytest.approx((-difference, -upper, -lower, p), abs=1e-12)
    interval = delong_interval(known_SN[0], unknown_SU[0], confidence)
    assert 0 <= interval.lower <= auroc(known_SN[0], unknown_SU[0]) <= interval.upper <= 1


def test_scores_that_order_alike_do_not_differ() -> None:
    known_SN, unknown_SU = drawn(2, 50, 30, None)
    known, unknown = known_SN[0], unknown_SU[0]
    for other in (known, unknown), (np.exp(known), np.exp(unknown)):
        found = paired_delong(np.array([known, other[0]]), np.array([unknown, other[1]]))
        assert (found.difference, found.p_value) == (0, 1)
        # 30 disjoint pairs without a difference: at least 0.025^(1/30) of all pairs have none.
        assert (found.lower, found.upper) == pytest.approx((0.025 ** (1 / 30) - 1, 1 - 0.025 ** (1 / 30)))


def test_where_the_variance_is_zero_pairs_are_counted() -> None:
    """12 disjoint pairs all in order: a share of 0.025^(1/12) of all pairs being in order leaves that a chance of 2.5 %."""
    high, low = np.linspace(2, 3, 20), np.linspace(0, 1, 12)
    assert delong_interval(high, low) == pytest.approx((0.025 ** (1 / 12), 1))
    assert delong_interval(low, high) == pytest.approx((0, 1 - 0.025 ** (1 / 12)))
    half = (1 - 0.025 ** (1 / 12)) / 2
    assert delong_interval(np.ones(20), np.ones(12)) == pytest.approx((0.5 - half, 0.5 + half))
    found = paired_delong(np.array([high, -high]), np.array([low, -low]))
    assert found.difference == 1
    assert found.p_value == pytest.approx(2 * 0.5**12)
    assert (found.lower, found.upper) == pytest.approx((2 * 0.025 ** (1 / 12) - 1, 1))
    assert paired_delong(np.array([high[:5], -high[:5]]), np.array([low[:5], -low[:5]])).lower < 0


def test_one_image_of_a_kind_has_no_spread() -> None:
    assert all(map(math.isnan, delong_interval(np.array([1.0, 2.0]), np.array([0.0]))))
    found = paired_delong(np.array([[1.0, 2.0], [1.0, 0.5]]), np.array([[0.0], [0.7]]))
    assert found.difference == 0.5
    assert math.isnan(found.p_value)


@pytest.mark.parametrize("images", [50, 200])
@pytest.mark.parametrize("area", [0.7, 0.9, 0.97])
def test_the_interval_holds_the_true_area_as_often_as_it_says(area: float, images: int) -> None:
    """Normal scores of equal spread, their means so far apart that the area is the one wanted."""
    draw = np.random.default_rng(8)
    apart, tries = stats.norm.ppf(area) * math.sqrt(2), 3000
    held = 0
    for _ in range(tries):
        interval = delong_interval(draw.normal(apart, 1, images), draw.normal(0, 1, images))
        held += interval.lower <= area <= interval.upper
    assert 0.94 - 0.008 <= held / tries <= 0.96 + 0.008  # two standard errors of 3000 tries


def test_equal_scores_are_found_different_as_seldom_as_said() -> None:
    """Two noisy readings of one quantity have the same area."""
    draw = np.random.default_rng(9)
    rejected, tries = 0, 2000
    for _ in range(tries):
        truth = draw.normal(1, 1, 100), draw.normal(0, 1, 100)
        known_SN, unknown_SU = (scores + draw.normal(0, 0.7, (2, 100)) for scores in truth)
        rejected += paired_delong(known_SN, unknown_SU).p_value < 0.05
    assert rejected / tries == pytest.approx(0.05, abs=0.015)
