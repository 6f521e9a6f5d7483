"""How numbers are written: the same way in sentences, on the console, in figures and on the page.

Rates are fractions everywhere else and become percent only here. A figure that does not exist (NaN) is written as "-".
Rounding never says more than is known: "100.00" and "0.00" are written of exactly that alone, a p-value is not rounded
onto the 0.05 it is compared with, and the end of an interval not onto a 0 that it leaves out.
"""

from __future__ import annotations

import math

NONE = "-"
ALPHA = 0.05
_MOST_DIGITS = 9  # of points: a share of 100 billion images


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction as percent, without the sign: 12.34, or <0.01 and >99.99 for what rounding would make certain."""
    if math.isnan(fraction):
        return NONE
    step = 10.0**-digits
    if fraction > 0 and round(100 * fraction, digits) == 0:
        return f"<{step:.{digits}f}"
    if fraction < 1 and round(100 * fraction, digits) >= 100:
        return f">{100 - step:.{digits}f}"
    return f"{100 * fraction + 0.0:.{digits}f}"


def percent_interval(lower: float, upper: float) -> str:
    """Both ends in percent; an end with a sign needs the word, or the sign would look like the dash."""
    if math.isnan(lower) or math.isnan(upper):
        return NONE
    ends = percent(lower), percent(upper)
    return (" to " if any(end[0] in "-<>" for end in ends) else "-").join(ends)


def points(difference: float) -> str:
    """A difference of rates in percentage points with its sign; more digits where two would round it to 0."""
    if math.isnan(difference):
        return NONE
    if round(100 * difference, _MOST_DIGITS) == 0:  # what the adding of many numbers leaves of 0
        difference = 0.0
    digits = 2
    while difference != 0 and round(100 * difference, digits) == 0:
        digits += 1
    return f"{100 * difference + 0.0:+.{digits}f}"


def loss(value: float) -> str:
    """A loss, score or share with four digits."""
    if math.isnan(value):
        return NONE
    text = f"{value:.4f}"
    return text.removeprefix("-") if float(text) == 0 else text


def p_value(p: float) -> str:
    """A p-value with two significant digits, more where these would be the 0.05 it is not; small ones as a bound."""
    if math.isnan(p):
        return NONE
    if p < 1e-4:
        return "<0.0001"
    digits = 2
    while p != ALPHA and digits < 9 and float(f"{p:.{digits}g}") == ALPHA:
        digits += 1
    return f"{p:.{digits}g}"


def p_equation(p: float) -> str:
    """A p-value within a sentence: p = 0.012, p < 0.0001."""
    text = p_value(p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def count(value: float) -> str:
    """A count; a mean of counts with one digit."""
    if math.isnan(value):
        return NONE
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def seconds(value: float) -> str:
    """Seconds: one digit below ten, none above."""
    if math.isnan(value):
        return NONE
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def plural(number: int, noun: str) -> str:
    """1 member, 2 members."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
