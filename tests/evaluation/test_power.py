"""The difference that a test set could have shown, against simulation and against sums written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from ensemble.evaluation.power import POWER, detectable_difference, mcnemar_power, needed_rows
from ensemble.evaluation.statistics import mcnemar_exact


@pytest.mark.parametrize(
    ("difference", "share", "total"), list(itertools.product([0, 0.05, 0.2], [0.2, 0.6, 1.0], [1, 5, 12, 40]))
)
def test_power_is_the_sum_over_all_tables(difference: float, share: float, total: int) -> None:
    """Over every pair of discordant counts, with the test's own p-value."""
    expected = 0.0
    for b in range(total + 1):
        for c in range(total + 1 - b):
            if mcnemar_exact(b, c) < 0.05:
                rates = [(share + difference) / 2, (share - difference) / 2, 1 - share]
                expected += float(stats.multinomial.pmf([b, c, total - b - c], total, rates))
    assert mcnemar_power(difference, share, total) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("discordant", "total"), [(46, 355), (6, 355), (60, 10_000), (3000, 10_000), (0, 10_000), (9, 40)]
)
def test_the_detectable_difference_is_found_four_times_in_five(discordant: int, total: int) -> None:
    found = detectable_difference(discordant, total)
    share = max(discordant / total, found)
    noise = np.random.default_rng(1)
    b, c, _ = noise.multinomial(total, [(share + found) / 2, (share - found) / 2, 1 - share], 4000).T
    rejected = np.mean([mcnemar_exact(int(x), int(y)) < 0.05 for x, y in zip(b, c, strict=True)])
    assert rejected == pytest.approx(POWER, abs=4 * math.sqrt(POWER * (1 - POWER) / 4000))


def test_more_rows_and_fewer_disagreements_show_smaller_differences() -> None:
    assert detectable_difference(100, 10_000) < detectable_difference(10, 1000) < detectable_difference(30, 1000)


def test_without_disagreements_it_takes_six_rows_on_one_side() -> None:
    """The exact test cannot reject with fewer than six discordant rows."""
    found = detectable_difference(0, 1000)
    assert stats.binom.sf(5, 1000, found) == pytest.approx(POWER, abs=1e-6)


def test_too_few_rows_show_nothing() -> None:
    assert math.isnan(detectable_difference(2, 5))
    assert math.isnan(detectable_difference(0, 0))
    assert detectable_difference(6, 6) > 0


def test_large_sets_take_no_time() -> None:
    assert 0 < detectable_difference(100_000, 1_000_000) < 0.01


@pytest.mark.parametrize(("difference", "share"), [(0.005, 0.01), (0.01, 0.05), (0.02, 0.02), (0.05, 0.3)])
def test_needed_rows_find_it_and_a_hundredth_fewer_do_not(difference: float, share: float) -> None:
    rows = needed_rows(difference, share)
    assert rows is not None
    assert mcnemar_power(difference, share, rows) >= 0.8
    assert mcnemar_power(difference, share, round(rows * 0.97)) < 0.81
    # The other way round: with so many rows, about this difference is the smallest that is found.
    assert detectable_difference(round(share * rows), rows) == pytest.approx(difference, rel=0.03)


def test_what_nothing_finds_needs_no_rows() -> None:
    assert needed_rows(0.0, 0.1) is None
    assert needed_rows(1e-6, 0.5) is None
