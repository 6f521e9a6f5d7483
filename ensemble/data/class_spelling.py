"""Names of classes that may have been meant as one: "cat", "Cat" and "cat ", "1" and "1.0", two spellings of an umlaut.

    remarks = spelling_remarks(place, class_names)      # for the account of a data set

Folders, tables and labels in files are typed by people and written by programs, and one stray blank makes a class of its own
that is trained, voted on and judged like any other.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

from ensemble.data.account import Remark
from ensemble.data.picture_tree import few
from ensemble.data.regular_files import shown
from ensemble.errors import DataError

SHOWN = 3  # groups of alike names in a message
_MISSING = frozenset({"nan", "nat", "<na>", "n/a", "#n/a"})  # as tables and libraries write that there is no value
_APART = frozenset("_-")


def spelling_remarks(place: str, class_names: Sequence[str]) -> list[Remark]:
    """Warnings about names that differ only in how they are written, and about those that stand for a missing value.

    Raises DataError where two names are the same text in other normal forms of Unicode, which nobody could tell apart.
    """
    if same := _groups(class_names, lambda name: unicodedata.normalize("NFC", name)):
        raise DataError(
            f"{place}: found the classes {few(same, SHOWN)}, which read the same and differ only in how letters are composed "
            "(Unicode normal forms); write them in one way"
        )
    said = []
    if alike := _groups(class_names, _reading):
        said.append(
            Remark(
                f"{place}: the classes {few(alike, SHOWN)} differ only in how they are written; if they are one class, write them in one way",
                True,
            )
        )
    if missing := [_quoted(name) for name in class_names if name.strip().casefold() in _MISSING]:
        said.append(
            Remark(
                f"{place}: the class {few(missing, SHOWN)} looks like a missing value; if it is one, leave these images out",
                True,
            )
        )
    return said


def _groups(class_names: Sequence[str], reading: Callable[[str], str]) -> list[str]:
    """Names that have one reading, as texts for a message."""
    by_reading: dict[str, list[str]] = {}
    for name in class_names:
        by_reading.setdefault(reading(name), []).append(name)
    return [" and ".join(map(_quoted, found)) for found in by_reading.values() if len(found) > 1]


def _reading(name: str) -> str:
    """What is left of a name without case, blanks, invisible signs and marks between words; of a number its value."""
    plain = unicodedata.normalize("NFKC", name).strip()
    try:
        return repr(float(plain))
    except ValueError:
        pass
    if len(plain) == 1:  # "A" and "a" are two classes of letters
        return plain
    return "".join(
        sign for sign in plain.casefold() if sign not in _APART and unicodedata.category(sign) not in ("Cf", "Cc", "Zs")
    )


def _quoted(name: str) -> str:
    return f"'{shown(name)}'"
