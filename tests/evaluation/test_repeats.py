"""Noise of repeats and of images, apart and together, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ensemble.evaluation.repeats import seed_difference, two_way_difference


def simulated(seed: int, repeats: int, images: int, by_seed: float, by_image: float) -> tuple[np.ndarray, np.ndarray]:
    """Losses of two systems without a true difference, each with noise of its repeats and of its images."""
    generator = np.random.default_rng(seed)

    def one() -> np.ndarray:
        return (
            by_seed * generator.standard_normal((repeats, 1))
            + by_image * generator.standard_normal((1, images))
            + generator.standard_normal((repeats, images))
        )

    return one(), one()


@pytest.mark.parametrize(("by_seed", "by_image"), [(0.0, 1.0), (0.05, 0.0), (0.03, 0.5)])
def test_no_difference_is_found_about_one_time_in_twenty_or_less(by_seed, by_image):
    found = [
        two_way_difference(*simulated(s, 12, 400, by_seed, by_image), seed=s, draws=399).p_value < 0.05
        for s in range(300)
    ]
    assert np.mean(found) < 0.085  # three standard errors above 5 %


def test_the_noise_of_images_is_not_that_of_seeds():
    """A difference of these images alone: every repeat shows it, further images would not."""
    a, b = simulated(1, 8, 200, 0.0, 3.0)
    alone, both = seed_difference(a, b), two_way_difference(a, b, seed=0)
    assert alone.difference == both.difference
    assert both.upper - both.lower > 2 * (alone.upper - alone.lower)


def test_the_t_interval_of_the_repeats():
    a, b = simulated(3, 6, 50, 0.2, 0.2)
    found, expected = seed_difference(a, b), stats.ttest_rel(a.mean(1), b.mean(1))
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert np.isnan(seed_difference(a[:2], b[:2]).p_value)


def test_interval_and_p_value_agree():
    for s in range(40):
        a, b = simulated(s, 5, 100, 0.1, 0.3)
        found = two_way_difference(a + 0.25, b, seed=s, draws=999)
        assert (found.lower > 0 or found.upper < 0) == (found.p_value < 0.05)
        assert found.lower < found.difference < found.upper
