"""Sentences of the program's docstrings and descriptions, made into Markdown or reStructuredText.

They are plain text, but for `code` in single backticks and examples that are indented by four columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

_CODE = re.compile(r"(`[^`\n]+`)")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|$~])")
_RST = re.compile(r"([\\`*_|])")


def markdown(text: str) -> str:
    """Running text as Markdown that shows it as it is, on one line."""
    return _around_code(" ".join(text.split()), lambda plain: _MARKDOWN.sub(r"\\\1", plain))


def markdown_blocks(text: str) -> str:
    """A docstring as Markdown: paragraphs, and examples as code."""
    return "\n\n".join(
        "```text\n" + "\n".join(lines) + "\n```" if is_code else markdown(" ".join(lines))
        for is_code, lines in _blocks(text)
    )


def rst_lines(lines: Iterable[str], names: Sequence[str] = ()) -> list[str]:
    """The lines of a docstring as reStructuredText, which would read stars, bars and underscores as markup.

    names: of arguments or fields; what a docstring says of them, `epochs: how many. lr: how fast`, becomes a list.
    """
    made: list[str] = []
    for is_code, block in _blocks("\n".join(lines)):
        if is_code:
            made += ["::", "", *(f"    {line}" for line in block), ""]
            continue
        for piece in _itemised(" ".join(" ".join(block).split()), names):
            made += [_around_code(piece, lambda plain: _RST.sub(r"\\\1", plain), "``"), ""]
    return made


def _itemised(text: str, names: Sequence[str]) -> Iterable[str]:
    """Running text, and of what it says of names one piece each; a sentence about errors stands alone again."""
    if not names:
        yield text
        return
    one = "|".join(map(re.escape, names))
    starts = list(re.finditer(rf"(?:^|(?<=[.;] ))((?:{one})(?:, (?:{one}))*): ", text))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    if before := text[: starts[0].start() if starts else len(text)].strip():
        yield before
    for start, end in zip(starts, ends, strict=False):
        words, raises, errors = text[start.end() : end].strip().partition(". Raises ")
        named = ", ".join(f"`{name}`" for name in start[1].split(", "))
        yield f"- {named}: {words}{'.' if raises else ''}"
        if raises:
            yield f"Raises {errors}"


def _around_code(text: str, escape: Callable[[str], str], tick: str = "`") -> str:
    parts = _CODE.split(text)
    return "".join(f"{tick}{part[1:-1]}{tick}" if i % 2 else escape(part) for i, part in enumerate(parts))


def _blocks(text: str) -> Iterable[tuple[bool, list[str]]]:
    r"""Paragraphs of a docstring whose margin is gone already, each with whether it is code.

    Code is what is indented by four columns, also where a paragraph goes over into it, and what click is told not to wrap (\b).
    """
    for block in re.split(r"\n[ \t]*\n", text.strip("\n")):
        lines = [line.rstrip() for line in block.splitlines()]
        if lines and lines[0].strip() == "\b":
            yield True, lines[1:]
            continue
        prose = next((i for i, line in enumerate(lines) if line.startswith("    ")), len(lines))
        if 0 < prose < len(lines):  # the lines that go on with a sentence of a list of names
            yield False, [line.strip() for line in lines]
        elif lines:
            yield prose == 0, [line[4:] if prose == 0 else line for line in lines]
