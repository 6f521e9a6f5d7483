"""Many runs at once: what each came to, and only that of their configurations in which they differ.

    overview = read_overview([Path("runs/a"), Path("runs/b")])

Reads what a run keeps of its judgement and its configuration, no votes and no events, so 50 runs take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ensemble.errors import StorageError
from ensemble.evaluation.records import Evaluation
from ensemble.results.differing_keys import differing_settings
from ensemble.results.judging import stored_evaluation
from ensemble.storage import RunFolder
from ensemble.storage.listed_folder import is_file
from ensemble.storage.manifest import MANIFEST


@dataclass(frozen=True, eq=False)
class RunLine:
    """A run as one line. name: its folder's; record: evaluation.json as it lies on disk, which every number is taken from."""

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
    return RunLine(path.resolve().name, path, evaluation, record, config)


def read_overview(paths: Sequence[Path]) -> Overview:
    """The judged runs among these, under names that tell them apart.

    Raises StorageError where one is no run at all, or none is judged: what the first is missing.
    """
    lines: list[RunLine] = []
    errors: list[StorageError] = []
    for path in paths:
        if not is_file(path / MANIFEST):
            RunFolder.read(path)  # which says what is wrong
        try:
            lines.append(read_line(path))
        except StorageError as error:
            errors.append(error)
    if not lines:
        raise errors[0]
    lines = _told_apart(lines)
    changed = differing_settings([line.config for line in lines])
    return Overview(tuple(lines), changed, tuple(f"left out: {error}" for error in errors))


def _told_apart(lines: Sequence[RunLine]) -> list[RunLine]:
    """Runs of one name get as much of their folders' paths as it takes."""
    names = [line.name for line in lines]
    paths = [line.path.resolve().parts for line in lines]
    for depth in range(2, max(map(len, paths)) + 1):
        if len(set(names)) == len(names):
            break
        names = [
            "/".join(path[-depth:]) if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)
        ]
    return [replace(line, name=name) for line, name in zip(lines, names, strict=True)]
