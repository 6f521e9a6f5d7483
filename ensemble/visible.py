"""Makes text from outside safe to show: names of files and classes, values, messages of libraries.

A terminal obeys control characters: an escape sequence in a file's name could rename the window or hide what follows.
They are shown as what they are, `\\x1b`, once, where text leaves the program.
"""

from __future__ import annotations

import unicodedata

# Cc: control characters; Cf: invisible marks, such as those that turn the direction of writing; Cs: half characters,
# of which names of files that are no UTF-8 are full; Co, Cn: private and not assigned; Zl, Zp: further line breaks.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # within words of Persian and Hindi, and within emoji
_LAYOUT = frozenset("\n\t")


def visible(text: str) -> str:
    """The text with every character that a terminal would obey instead of showing written as an escape.

    Line breaks and tabs stay: messages and tables have their own.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(char if _shows(char) else escaped(char) for char in text)


def _shows(char: str) -> bool:
    return char in _LAYOUT or char in _JOINERS or unicodedata.category(char) not in _HIDDEN


def escaped(char: str) -> str:
    """One character as an escape, such as \\x1b."""
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
