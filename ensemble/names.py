"""Names that people chose (of classes, files, folders, settings), made fit to be shown; one function per kind of output.

    shown(name)           one line for a terminal, a figure or a page that escapes by itself
    in_markdown(name)     the same within Markdown: a table cell, a list, a sentence
    markdown_text(text)   a whole text, its names shown already, so that Markdown reads no sign of it as markup
    fenced(language, text), shell_word(path)   for code within Markdown and for commands to be copied

A name is data: it may hold line ends, control codes, signs that turn the direction of writing, halves of signs that are
no text at all, markup, or a hundred thousand letters. Files that are read by programs (JSON, CSV) keep it as it is.
"""

from __future__ import annotations

import os
import re
import shlex
import unicodedata

from ensemble.visible import escaped

LONGEST = 100  # signs shown of a name
LONGEST_PATH = 4096  # of a path, which is for copying
_JOINERS = "\u200c\u200d"  # part of words in several scripts, and of composed pictures
_MARKDOWN = {sign: f"\\{sign}" for sign in "\\`*_[]|~$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def shown(name: str, longest: int = LONGEST) -> str:
    """The name on one line: signs that cannot be seen as \\x1b or \\u202e, the middle of a long name as an ellipsis."""
    if len(name) > longest:
        head = longest - longest // 3 - 1
        name = f"{name[:head]}…{name[len(name) - longest // 3 :]}"
    return "".join(sign if _visible(sign) else escaped(sign) for sign in name)


def in_markdown(name: str, longest: int = LONGEST) -> str:
    """The same where Markdown or HTML would be read: no sign of it starts a cell, a link, an emphasis, a formula or a tag."""
    return markdown_text(shown(name, longest))


def markdown_text(text: str) -> str:
    """A text of any length for Markdown; control codes and line ends must be gone from it, see `shown`."""
    return "".join(_MARKDOWN.get(sign, sign) for sign in shown(text, len(text)))


def fenced(language: str, text: str) -> str:
    """Lines of code within Markdown, between more backticks than any line of it has in a row; line ends stay."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = (shown(line, len(line)) for line in text.split("\n"))
    return "\n".join([f"{fence}{language}", *lines, fence])


def shell_word(text: str) -> str:
    """A word of a command for bash and zsh that can be copied: quoted, and on one line whatever it holds."""
    if shown(text, len(text)) == text:
        return shlex.quote(text)
    quoted = "".join(
        sign if _visible(sign) and sign not in "\\'" else "".join(f"\\x{byte:02x}" for byte in os.fsencode(sign))
        for sign in text
    )
    return f"$'{quoted}'"


def _visible(sign: str) -> bool:
    return sign.isprintable() or sign in _JOINERS or unicodedata.category(sign) == "Zs"
