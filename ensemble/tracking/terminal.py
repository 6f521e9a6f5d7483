"""The one way in which tables and views get a console: how wide it is, and that names cannot steer the terminal.

    console = open_table_console()              # stdout
    console = open_table_console(stream)

On a terminal a table is as wide as that; in a pipe or a file it has all the room it needs, so that grep finds every
name. COLUMNS decides in both, but a width below 20, such as the 0 of some shells and containers, counts as not known.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from ensemble.outside.names import visible

NARROWEST = 20
USUAL = 80
NO_LIMIT = 1000  # wider than any table; rich needs a number


class VisibleConsole(Console):
    """A console that shows control characters of texts instead of sending them on."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, with every text made visible; rich's own control codes stay."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(visible(text), style)


def open_table_console(stream: TextIO | None = None, **options: Any) -> Console:
    """A console on `stream`, by default stdout, without highlighting, markup and emoji.

    options: further ones of rich's Console.
    """
    target = sys.stdout if stream is None else stream
    plain = {"highlight": False, "markup": False, "emoji": False}
    return VisibleConsole(file=stream, width=width_of(target), **(plain | options))


# Legible on light and on dark terminals, which letters in yellow or green are not.
GOOD, BAD, OPEN = "black on green", "white on red", "black on yellow"


def marked(line: str, word: str, mark: str, style: str = "") -> Text:
    """A line in which the first `word` stands out."""
    text = Text(line, style)
    start = line.find(word)
    if start >= 0:
        text.stylize(mark, start, start + len(word))
    return text


def width_of(stream: TextIO | None) -> int:
    """The columns that a table on this stream may take."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and int(given) >= NARROWEST:
        return min(int(given), NO_LIMIT)
    if stream is None or not stream.isatty():
        return NO_LIMIT
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # a stream that says it is a terminal and is none
        return USUAL
    return found if found >= NARROWEST else USUAL
