"""Names as people and attackers give them, made fit to be shown."""

from __future__ import annotations

import subprocess
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.outside.names import fenced, in_markdown, markdown_text, shell_word, shown
from tests.amounts import examples

anything = st.text(st.characters(codec=None), max_size=60)


@settings(max_examples=examples(300), deadline=None)
@given(name=anything)
def test_what_is_shown_is_one_visible_line_that_can_be_encoded(name):
    text = shown(name)
    assert "\n" not in text
    text.encode()
    assert not {unicodedata.category(sign) for sign in text} & {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\ufeff") & set(text)
    if name.isprintable():
        assert text == name


def test_long_names_keep_both_ends():
    assert shown("a" * 100) == "a" * 100
    text = shown("start" + "x" * 100_000 + "end", 30)
    assert len(text) == 30
    assert text.startswith("start")
    assert text.endswith("end")
    assert "…" in text


@settings(max_examples=examples(300), deadline=None)
@given(name=anything)
def test_nothing_of_a_name_is_markup(name):
    text = in_markdown(name)
    for sign in "|*_`[]~$":
        pieces = text.split(sign)
        for before in pieces[:-1]:
            backslashes = len(before) - len(before.rstrip("\\"))
            assert backslashes % 2 == 1, (sign, text)
    assert "<" not in text
    assert ">" not in text


def test_markdown_of_a_whole_text_is_not_cut():
    assert markdown_text("1 < 2, " * 50) == "1 &lt; 2, " * 50


def test_code_cannot_leave_its_fence():
    text = fenced("sh", "echo ```\n````\n\x1b[31m")
    assert text.splitlines() == ["`````sh", "echo ```", "````", r"\x1b[31m", "`````"]


@pytest.mark.parametrize("name", ["plain", "two words", "it's", "a\nb\x1b[0m'\\x", "\u202eab", "umlaut-ä\n", "q\udc80"])
def test_a_shell_reads_the_word_that_was_meant(name):
    word = shell_word(name)
    assert shown(word, len(word)) == word
    said = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert said == name.encode("utf-8", "surrogateescape")
