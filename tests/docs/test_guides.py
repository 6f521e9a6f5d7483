"""The guides hold: everything that a reader types on them works, and comes to what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.guide import assert_said, blocks, follow

GUIDES = sorted((Path(__file__).parents[2] / "docs" / "guides").glob("*.md"))


@pytest.mark.timeout(1800)  # dozens of commands
@pytest.mark.parametrize("page", [page for page in GUIDES if blocks(page)], ids=lambda page: page.stem)
def test_a_reader_can_follow_it(page: Path, tmp_path: Path) -> None:
    follow(page, tmp_path)


def test_the_two_long_ones_are_among_them() -> None:
    """A page whose blocks are no longer found would be followed without a word."""
    assert {page.stem for page in GUIDES if len(blocks(page)) > 10} >= {"images", "network"}


def test_promises_are_held_to_words_and_their_order() -> None:
    said = "a first line\n  error   0.38 %\nlast\n"
    assert_said("error 1.27 %\nlast\n", said, "here")
    assert_said("a first ...\nlast\n", said, "here")
    for promised in ("last\nerror 0.38 %\n", "errors 0.38 %\n", "a line ...\n"):
        with pytest.raises(AssertionError, match="here"):
            assert_said(promised, said, "here")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```sh\necho one; exit 3\n```\n", "page.md:1: ended with 3"),
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
        ("```sh\necho one\n```\n\n```text\ntwo\n```\n", "page.md:5: 'two' is not"),
        ("```ruby\nputs 1\n```\n", "a block of ruby"),
    ],
)
def test_what_does_not_hold_is_found(text: str, complaint: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError, match=complaint):
        follow(page, tmp_path)
