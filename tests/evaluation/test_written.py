"""Rounding never says more than is known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.evaluation.written import loss, p_equation, p_value, percent, percent_interval, points
from tests.amounts import examples

rates = st.floats(0, 1) | st.floats(0, 1e-6) | st.floats(0, 1e-6).map(lambda x: 1 - x)


@settings(max_examples=examples(300), deadline=None)
@given(rate=rates, digits=st.integers(0, 4))
def test_certainty_is_written_of_certainty_alone(rate, digits):
    text = percent(rate, digits)
    assert (float(text.lstrip("<>")) == 100) == (rate == 1)
    assert (float(text.lstrip("<>")) == 0) == (rate == 0)
    assert not text.startswith("-")
    assert float(text.lstrip("<>")) == pytest.approx(100 * rate, abs=10.0**-digits)


@settings(max_examples=examples(300), deadline=None)
@given(p=st.floats(0, 1) | st.floats(0.04999, 0.05001))
def test_a_p_value_stays_on_its_side_of_the_level(p):
    text = p_value(p)
    shown = float(text.lstrip("<"))
    assert (shown < 0.05) == (p < 0.05) or text == f"{p:.8g}"
    assert p_equation(p) in (f"p = {text}", f"p < {text[1:]}")
    assert "= <" not in p_equation(p)


@settings(max_examples=examples(300), deadline=None)
@given(difference=st.floats(-1, 1) | st.floats(-1e-5, 1e-5))
def test_the_end_of_an_interval_does_not_become_zero(difference):
    shown = float(points(difference))
    if abs(difference) > 1e-9:
        assert (shown > 0) == (difference > 0)
        assert (shown < 0) == (difference < 0)
    assert not points(0.0 * difference).startswith("-")


def test_by_hand():
    assert [percent(x) for x in (0.1234, 1e-5, 0.0, 0.99999, 1.0, 0.5)] == [
        "12.34",
        "<0.01",
        "0.00",
        ">99.99",
        "100.00",
        "50.00",
    ]
    assert percent_interval(0.0, 0.25) == "0.00-25.00"
    assert percent_interval(1e-9, 0.25) == "<0.01 to 25.00"
    assert percent_interval(-0.01, 0.25) == "-1.00 to 25.00"
    assert [loss(x) for x in (-0.0, -1e-9, 0.25, -0.3)] == ["0.0000", "0.0000", "0.2500", "-0.3000"]
    assert [p_value(x) for x in (0.0, 0.04996, 0.0504, 0.05, 0.0123, 1.0)] == [
        "<0.0001",
        "0.04996",
        "0.0504",
        "0.05",
        "0.012",
        "1",
    ]
    assert [points(x) for x in (0.0, -0.0467, -0.0000021)] == ["+0.00", "-4.67", "-0.0002"]
    assert {f(math.nan) for f in (percent, points, loss, p_value)} == {"-"}


@pytest.mark.parametrize("rest", [0.0, 4.3e-19, -4.3e-19, 2e-12])
def test_what_rounding_leaves_of_nothing_is_nothing(rest: float) -> None:
    assert points(rest) == "+0.00"
    assert points(1e-9 + rest) == "+0.0000001"
