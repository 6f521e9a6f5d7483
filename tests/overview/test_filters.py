"""The syntax of conditions: what they mean, whatever is written, and what is refused."""

from __future__ import annotations

import contextlib
import math
import operator
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.errors import ConfigError
from ensemble.overview.filters import chosen, in_order, parse_filter
from ensemble.overview.keys import BY_NAME, differing_columns, shown_keys
from ensemble.overview.rows import STATES, Row
from tests.amounts import examples

SIGNS = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
ORDERS = st.sampled_from(sorted(SIGNS))


def row(name="r", state="finished", **more):
    return Row(name, f"runs/{name}", state, **more)


def names(rows, *conditions):
    return [each.name for each in chosen(rows, [parse_filter(text) for text in conditions])]


@settings(max_examples=examples(200), deadline=None)
@given(
    errors=st.lists(st.none() | st.integers(0, 10_000), max_size=8),
    bound=st.integers(0, 10_000),
    sign=ORDERS,
    spaces=st.sampled_from(["", " "]),
)
def test_rates_in_percent_compare_as_numbers_do(errors, bound, sign, spaces):
    """In steps of a hundredth of a percent, so that both sides are the same double where they are equal."""
    rows = [row(str(place), error=None if error is None else error / 10_000) for place, error in enumerate(errors)]
    expected = [
        str(place) for place, error in enumerate(errors)
        if (error is None and sign == "!=") or (error is not None and SIGNS[sign](error, bound))
    ]  # fmt: skip
    found = names(rows, f"error{spaces}{sign}{spaces}{bound / 100}%")
    near = [str(place) for place, error in enumerate(errors) if error == bound]  # division may cost the last bit
    assert [name for name in found if name not in near] == [name for name in expected if name not in near]
    if sign in ("=", "!="):
        assert found == expected


@settings(max_examples=examples(200), deadline=None)
@given(
    sizes=st.lists(st.integers(0, 2**40), max_size=8),
    number=st.integers(0, 5000),
    unit=st.sampled_from(["", "B", "kB", "MB", "GB", "KiB", "mib", "GiB"]),
    sign=ORDERS,
)
def test_sizes_compare_in_their_units(sizes, number, unit, sign):
    factor = {"": 1, "b": 1, "kb": 1000, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}[
        unit.lower()
    ]
    rows = [row(str(place), size=size) for place, size in enumerate([*sizes, number * factor])]
    expected = [each.name for each in rows if SIGNS[sign](each.size, number * factor)]
    if sign in ("=", "!="):  # figures that differ by less than a billionth count as equal
        expected = [each.name for each in rows if math.isclose(each.size, number * factor) == (sign == "=")]
    assert names(rows, f"size{sign}{number}{unit}") == expected


@settings(max_examples=examples(200), deadline=None)
@given(
    texts=st.lists(st.text("ab_.-0", min_size=1, max_size=6), max_size=6),
    wanted=st.text("ab_.-0", min_size=1, max_size=6),
)
def test_texts_are_equal_or_not(texts, wanted):
    if wanted == "-":
        wanted = "a"
    rows = [row(text) for text in texts]
    assert names(rows, f"name={wanted}") == [text for text in texts if text == wanted]
    assert names(rows, f"name!={wanted}") == [text for text in texts if text != wanted]
    assert names(rows, f"name={wanted}*") == [text for text in texts if text.startswith(wanted)]
    assert names(rows, f"name=*{wanted}*") == [text for text in texts if wanted in text]
    assert names(rows, f"name={wanted},aa") == [text for text in texts if text in (wanted, "aa")]


@settings(max_examples=examples(300), deadline=None)
@given(
    text=st.text(max_size=20)
    | st.builds("{}{}{}".format, st.sampled_from(sorted(BY_NAME)), ORDERS, st.text(max_size=8))
)
def test_whatever_is_written_is_a_condition_or_refused_in_words(text):
    rows = [row("a", error=0.1, date=1e9, method="bagging"), row("b", "damaged", problem="cut")]
    with contextlib.suppress(ConfigError):
        kept = names(rows, text)
        assert set(kept) <= {"a", "b"}


@settings(max_examples=examples(100), deadline=None)
@given(values=st.lists(st.none() | st.floats(0, 1), max_size=10), back=st.booleans())
def test_sorting_puts_what_is_not_known_last_either_way(values, back):
    rows = [row(str(place), nll=value) for place, value in enumerate(values)]
    found = [each.nll for each in in_order(rows, "-nll" if back else "nll")]
    known = [value for value in found if value is not None]
    assert known == sorted((value for value in values if value is not None), reverse=back)
    assert found[len(known) :] == [None] * values.count(None)


def test_values_of_the_configuration():
    rows = [
        row("a", values={"training.lr": 0.001, "model.widths": [16, 32], "baseline": True, "data.root": None}),
        row("b", values={"training.lr": 0.1, "model.widths": [8], "baseline": False, "data.root": "x"}),
        row("c", "damaged", problem="no config"),
    ]
    assert names(rows, "training.lr<1e-2") == ["a"]
    assert names(rows, "training.lr=1e-3") == ["a"]
    assert names(rows, "training.lr!=0.001") == ["b", "c"]
    assert names(rows, "model.widths=[16,32]") == ["a"]
    assert names(rows, "model.widths=[16,32],[8]") == ["a", "b"]
    assert names(rows, "baseline=true") == names(rows, "baseline=True") == ["a"]
    assert names(rows, "data.root=-", "state=finished") == ["a"]
    assert [each.name for each in in_order(rows, "-training.lr")] == ["b", "a", "c"]


def test_dates_and_ages(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    rows = [row("new", date=time.time() - 60), row("old", date=time.time() - 3 * 86400), row("never")]
    assert names(rows, "age<2d") == ["new"]
    assert names(rows, "age>=2d") == ["old"]
    assert names(rows, "date=-") == ["never"]
    assert names(rows, f"date>{time.strftime('%Y-%m-%d', time.gmtime(time.time() - 2 * 86400))}") == ["new"]
    assert names(rows, "date>2001-01-01 12:00") == ["new", "old"]


def test_every_state_may_be_asked_for():
    rows = [row(state, state) for state in STATES]
    for state in STATES:
        assert names(rows, f"state={state}") == [state]
    assert names(rows, "state!=finished") == [state for state in STATES if state != "finished"]
    assert names(rows, "state=running,failed") == ["running", "failed"]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("error", "expected KEY OPERATOR VALUE"),
        ("error<", "expected KEY OPERATOR VALUE"),
        ("=x", "expected KEY OPERATOR VALUE"),
        ("eror<1%", "did you mean error"),
        ("lr<1", "did you mean training.lr"),
        ("training.lrr<1", "did you mean training.lr"),
        ("nonsense=1", "expected one of name, state"),
        ("error<1", "write 1% for percent"),
        ("error<much", "expected a number, plain or with %"),
        ("size>10XB", "KiB"),
        ("age<2 weeks", "with s, m, h, d"),
        ("date>yesterday", "age<2d"),
        ("name<b", "texts are compared with = and !="),
        ("state=finishd", "did you mean finished"),
        ("members=1e999", "expected a number"),
    ],
)
def test_mistakes_are_named_with_what_is_known(condition, message):
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")) as caught:
        parse_filter(condition)
    assert condition.split("<")[0].split("=")[0].split(">")[0] in str(caught.value)


def test_an_unknown_key_to_sort_by_is_refused():
    with pytest.raises(ConfigError, match="--sort eror: unknown key 'eror'; did you mean error"):
        in_order([], "eror")


def test_shown_keys_are_those_of_runs_that_have_them():
    rows = [
        row("a", values={"name": "a", "seed": 1, "training.lr": 0.1, "method.rounds": 3, "compute.slots": 1}),
        row("b", values={"name": "b", "seed": 1, "training.lr": 0.2, "compute.slots": 2}),
        row("c", "damaged", problem="x"),
    ]
    assert shown_keys(rows) == ["training.lr", "compute.slots"], "what no member depends on comes last"
    assert [key.title for key in differing_columns(rows)] == ["lr", "slots"]
    assert shown_keys(rows[:1]) == []
