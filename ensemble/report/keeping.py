"""A table or page is replaced by its own newer version only, never by that of other runs.

mark = mark_of("report", ["runs/a", "runs/b"])
refuse_other(path, mark, "the report of other runs")      # before anything is worked out
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ensemble.errors import ConfigError, StorageError
from ensemble.outside.paths import read_regular_file

_MOST_BYTES = 2**28  # more than any page or table that is written here


def mark_of(kind: str, words: Sequence[str]) -> str:
    """What a written file says about what it is of; the same words in the same order give the same mark."""
    return f"ensemble-{kind}-{hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()[:16]}"


def refuse_other(path: Path, mark: str, otherwise: str) -> None:
    """Raises ConfigError where there is a file without this mark. otherwise: what it must hold then, in words."""
    try:
        content = read_regular_file(path, _MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageError(
            f"{path}: is there already and cannot be read ({error.strerror}); use another --out"
        ) from error
    if mark.encode() not in content:
        raise ConfigError(
            f"{path}: is there already and is {otherwise} or something else altogether; it was left as it is. Write to "
            "another file with --out, or remove this one"
        )
