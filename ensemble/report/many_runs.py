"""Many runs at once: what each came to, and only that of their configurations in which they differ.

    overview = read_overview([Path("runs/a"), Path("runs/b")])

Reads what a run keeps of its judgement and its configuration, no votes and no events, so 50 runs take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.errors import StorageError
from ensemble.evaluation.records import Evaluation
from ensemble.results.differing_keys import differing_settings
from ensemble.results.judging import stored_evaluation
from ensemble.storage import RunFolder


@dataclass(frozen=True, eq=False)
class RunLine:
    """A run as one line. record: evaluation.json as it lies on disk, which every number is taken from."""

    name: str
    path: Path
    evaluation: Evaluation
    record: Mapping[str, Any]
    config: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Overview:
    """Several runs, and the keys in which they differ with the values of each. left_out: why others are not here."""

    lines: tuple[RunLine, ...]
    changed: Mapping[str, tuple[Any, ...]]
    left_out: tuple[str, ...] = ()


def read_line(path: Path) -> RunLine:
    """Read a judged run. Raises StorageError where there is none, it has not been judged yet, or one of these files is damaged."""
    folder = RunFolder.read(path)
    record, evaluation = stored_evaluation(folder)
    config = folder.config()
    return RunLine(str(config.get("name", path.name)), path, evaluation, record, config)


def read_overview(paths: Sequence[Path]) -> Overview:
    """The judged runs among these. Raises StorageError where there is none: what the first is missing."""
    lines: list[RunLine] = []
    errors: list[StorageError] = []
    for path in paths:
        try:
            lines.append(read_line(path))
        except StorageError as error:
            errors.append(error)
    if not lines:
        raise errors[0]
    changed = differing_settings([line.config for line in lines])
    return Overview(tuple(lines), changed, tuple(f"left out: {error}" for error in errors))
