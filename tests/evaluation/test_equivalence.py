"""Equivalence within a margin: published values, the likelihood itself, and error rates summed over all tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from ensemble.evaluation.equivalence import compare, equivalence_p, tango_interval, tango_score
from tests.amounts import examples


def test_published_values() -> None:
    """Tango 1998, 44 lenses, 1 of which only one of the two treatments disinfects: Z = 1.709, p = 0.044 for a margin of 0.1.

    Fagerland, Lydersen and Laake 2014, airway hyper-responsiveness before and after transplantation (1 and 7 of 21 discordant): 95 %
    score interval -0.517 to -0.026.
    """
    assert float(tango_score(1, 0, 44, 0.1)) == pytest.approx(-1.709, abs=0.0005)
    assert equivalence_p(1, 0, 44, 0.1) == pytest.approx(0.044, abs=0.0005)
    assert tango_interval(1, 7, 21, 0.95) == pytest.approx((-0.517, -0.026), abs=0.0005)


@pytest.mark.parametrize(("b", "c", "total"), [(3, 9, 50), (12, 2, 50), (40, 20, 160), (1, 0, 44), (0, 0, 30)])
@pytest.mark.parametrize("difference", [-0.3, -0.02, 0.001, 0.1])
def test_the_score_is_that_of_the_likelihood_maximised_numerically(
    b: int, c: int, total: int, difference: float
) -> None:
    def minus_log_likelihood(q: float) -> float:
        rates = np.array([q + difference, q, 1 - 2 * q - difference])
        return -float(np.sum([n * math.log(p) for n, p in zip([b, c, total - b - c], rates, strict=True) if n]))

    edge = 1e-13
    lowest, highest = max(0, -difference) + edge, (1 - difference) / 2 - edge
    q = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12}
    ).x
    expected = (b - c - total * difference) / math.sqrt(total * (2 * q + difference * (1 - difference)))
    assert float(tango_score(b, c, total, difference)) == pytest.approx(expected, rel=1e-4)


def test_at_no_difference_it_is_mcnemar_s() -> None:
    assert float(tango_score(30, 12, 5000, 0.0)) == pytest.approx(18 / math.sqrt(42), rel=1e-12)
    assert float(tango_score(0, 0, 5000, 0.0)) == 0


@settings(max_examples=examples(200), deadline=None)
@given(b=st.integers(0, 60), c=st.integers(0, 60), rest=st.integers(0, 3000), margin=st.floats(0.0005, 0.2))
def test_interval_and_p_value_never_contradict(b: int, c: int, rest: int, margin: float) -> None:
    total = b + c + rest
    if total == 0:
        return
    lower, upper = tango_interval(b, c, total)
    p = equivalence_p(b, c, total, margin)
    assert (-margin < lower and upper < margin) == (p < 0.05)
    assert -1 <= lower <= (b - c) / total <= upper <= 1
    assert tango_interval(c, b, total) == pytest.approx((-upper, -lower), abs=1e-12)
    assert equivalence_p(c, b, total, margin) == pytest.approx(p, rel=1e-9)
    scores = tango_score(b, c, total, np.linspace(-0.999, 0.999, 400))
    assert (np.diff(scores) < 1e-9).all()  # it falls, so the interval has one piece


def rejections(total: int, discordant: float, margin: float) -> tuple[float, float]:
    """Probabilities, at a true difference of `margin`, that the upper test rejects and that both do, over all likely tables."""
    rates = (discordant + margin) / 2, (discordant - margin) / 2
    spans = [np.arange(stats.binom.isf(1 - 1e-9, total, p), stats.binom.isf(1e-9, total, p) + 1) for p in rates]
    b, c = (axis.ravel() for axis in np.meshgrid(*spans, indexing="ij"))
    chances = stats.binom.pmf(b, total, rates[0]) * stats.binom.pmf(c, total - b, rates[1] / (1 - rates[0]))
    z = stats.norm.ppf(0.95)
    upper = tango_score(b, c, total, margin) < -z
    both = upper & (tango_score(b, c, total, -margin) > z)
    return float(chances[upper].sum()), float(chances[both].sum())


@pytest.mark.parametrize("total", [1000, 10_000])
@pytest.mark.parametrize("discordant", [0.005, 0.01, 0.02, 0.05])
@pytest.mark.parametrize("margin", [0.001, 0.002, 0.005, 0.01])
def test_what_is_a_margin_apart_is_rarely_called_equivalent(total: int, discordant: float, margin: float) -> None:
    upper, both = rejections(total, max(discordant, margin), margin)
    assert both <= 0.0501
    assert both <= upper <= 0.056


def test_what_is_equal_is_found_equivalent_when_there_are_rows_enough() -> None:
    assert compare(50, 50, 10_000, 0.005).verdict == "equivalent"
    assert compare(50, 50, 10_000, 0.001).verdict == "not shown to be equivalent"
    assert compare(5, 5, 1000, 0.005).verdict == "not shown to be equivalent"
    # Without any discordant row it takes z^2 (1 - margin) / margin rows, 538.4 at half a point.
    assert compare(0, 0, 538, 0.005).verdict == "not shown to be equivalent"
    assert compare(0, 0, 539, 0.005).verdict == "equivalent"


@pytest.mark.parametrize(
    ("b", "c", "verdict", "outcome", "claim"),
    [
        (20, 22, "equivalent", "not distinguishable", "The first is as good as the second within 0.50 points: a difference of -0.02"),
        (5, 25, "equivalent", "better", "The first is better than the second, but equivalent within 0.50 points: "),
        (90, 20, "not shown to be equivalent", "worse", "The first is worse than the second, and not shown to be equivalent within"),
        (300, 290, "not shown to be equivalent", "not distinguishable", "The first is not distinguishable from the second, and not shown"),
    ],
)  # fmt: skip
def test_both_answers_are_given(b: int, c: int, verdict: str, outcome: str, claim: str) -> None:
    found = compare(b, c, 10_000, 0.005)
    assert (found.verdict, found.outcome) == (verdict, outcome)
    assert found.sentence.startswith(claim)
    assert found.difference == (b - c) / 10_000
    assert found.p_value == equivalence_p(b, c, 10_000, 0.005)
    assert (found.lower, found.upper) == tango_interval(b, c, 10_000, 0.9)


def test_no_rows_show_nothing_and_nonsense_is_refused() -> None:
    found = compare(0, 0, 0, 0.01)
    assert (found.verdict, found.outcome, found.p_value) == ("not shown to be equivalent", "not distinguishable", 1.0)
    assert math.isnan(found.difference)
    assert math.isnan(found.lower)
    with pytest.raises(AssertionError, match="discordant rows of"):
        compare(3, 3, 5, 0.01)
    with pytest.raises(AssertionError, match="margin"):
        compare(3, 3, 50, 0.0)
