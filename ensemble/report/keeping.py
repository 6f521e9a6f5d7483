"""A table or page is replaced by its own newer version only, never by that of other runs.

mark = mark_of("report", ["runs/a", "runs/b"])
refuse_other(path, mark, "the report of other runs")      # before anything is worked out
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from ensemble.errors import ConfigError, StorageError
from ensemble.outside.paths import read_regular_file

_MOST_BYTES = 2**28  # more than any page or table that is written here


def mark_of(kind: str, words: Sequence[str]) -> str:
    """What a written file says about what it is of; the same words in the same order give the same mark."""
    return f"ensemble-{kind}-{hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()[:16]}"


def marks_of_all(kind: str, words: Sequence[str]) -> str:
    """The same of a file that is one of many things, with a mark for each of them: `refuse_other` lets more of them take its place."""
    return " ".join([mark_of(kind, words), *(mark_of(f"{kind}-part", [word]) for word in words)])


def refuse_other(path: Path, mark: str, otherwise: str) -> None:
    """Raises ConfigError where there is a file without this mark. otherwise: what it must hold then, in words.

    mark: as `mark_of` or `marks_of_all` give it. A file of many things may be replaced by one of all these things and more.
    """
    try:
        content = read_regular_file(path, _MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageError(
            f"{path}: is there already and cannot be read ({error.strerror}); use another --out"
        ) from error
    whole, *parts = mark.split(" ")
    known = set(re.findall(rb"ensemble-[a-z]+-part-[0-9a-f]{16}", content))
    if whole.encode() not in content and not (known and known <= {part.encode() for part in parts}):
        raise ConfigError(
            f"{path}: is there already and is {otherwise} or something else altogether; it was left as it is. Write to "
            "another file with --out, or remove this one"
        )
