"""Text from outside (names of classes, files and settings, values, messages of libraries), made fit to be shown.

    visible(text)         a text of several lines, where it leaves for a terminal
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

LONGEST = 100  # signs shown of a name
LONGEST_PATH = 4096  # of a path, which is for copying
_JOINERS = frozenset("\u200c\u200d")  # within words of Persian and Hindi, and within emoji
_LAYOUT = frozenset("\n\t")
# Cc: control characters; Cf: invisible marks, such as those that turn the direction of writing; Cs: half characters,
# of which names of files that are no UTF-8 are full; Co, Cn: private and not assigned, which nobody can see; Zl, Zp:
# further line breaks.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKDOWN = {sign: f"\\{sign}" for sign in "\\`*_[]|~$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def visible(text: str) -> str:
    """The text with every character that a terminal would obey instead of showing written as an escape.

    Line breaks and tabs stay: messages and tables have their own.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign in _LAYOUT or _shows(sign) else _escaped(sign) for sign in text)


def shown(name: str, longest: int = LONGEST) -> str:
    """The name on one line: signs that cannot be seen as \\x1b or \\u202e, the middle of a long name as an ellipsis."""
    if len(name) > longest:
        head = longest - longest // 3 - 1
        name = f"{name[:head]}…{name[len(name) - longest // 3 :]}"
    return "".join(sign if _shows(sign) else _escaped(sign) for sign in name)


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
        sign if _shows(sign) and sign not in "\\'" else "".join(f"\\x{byte:02x}" for byte in os.fsencode(sign))
        for sign in text
    )
    return f"$'{quoted}'"


def _shows(sign: str) -> bool:
    return sign in _JOINERS or unicodedata.category(sign) not in _HIDDEN


def _escaped(sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
