"""Whether a run folder is sound: every listed file is there and as it was written, and says what its kind of file says.

problems = check_run(Path("runs/my-run"))   # one line each, naming the file
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ensemble.config.loading import parse_stored
from ensemble.errors import EnsembleError
from ensemble.results.judging import stored_evaluation
from ensemble.results.run_data import disputed_images
from ensemble.storage import RunFolder
from ensemble.storage.names import (
    CONFIG,
    DATASET,
    DISPUTED,
    ENVIRONMENT,
    EVALUATION,
    EVENTS,
    LABELS,
    METHOD,
    PLAN,
    ROUNDS,
    STAGED,
    member_of,
)
from ensemble.storage.parsing import json_value

READERS: dict[str, Callable[[RunFolder], object]] = {
    CONFIG: lambda folder: (folder.judged_config(), parse_stored(folder.config(), str(folder.path / CONFIG))),
    PLAN: RunFolder.plan,
    LABELS: RunFolder.load_labels,
    DATASET: RunFolder.dataset,
    METHOD: RunFolder.method,
    EVENTS: RunFolder.events,
    EVALUATION: stored_evaluation,
    DISPUTED: disputed_images,
    ROUNDS: lambda folder: json_value(folder.read_bytes(ROUNDS), folder.path / ROUNDS),
    STAGED: lambda folder: json_value(folder.read_bytes(STAGED), folder.path / STAGED),
    ENVIRONMENT: lambda folder: json_value(folder.read_bytes(ENVIRONMENT), folder.path / ENVIRONMENT),
}


def check_run(path: Path) -> list[str]:
    """What is wrong with a run, one line per file; nothing where all is sound.

    Raises StorageError where there is no run or its manifest cannot be believed.
    """
    folder = RunFolder.read(path)
    damaged = folder.damaged_files()
    hit = {error.name for error in damaged}
    lines = [str(error) for error in damaged] + list(_contents(folder, hit))
    return list(dict.fromkeys(lines))


def _contents(folder: RunFolder, hit: set[str]) -> Iterator[str]:
    """What is wrong in files whose checksum is right."""
    for name, read in READERS.items():
        if folder.has(name) and name not in hit:
            yield from _problem(lambda read=read: read(folder))  # type: ignore[misc]
    broken = {member_of(name) for name in hit}
    for index in sorted(folder.finished() - broken):
        yield from _problem(lambda index=index: folder.load_member(index, weights=True))  # type: ignore[misc]


def _problem(read: Callable[[], object]) -> Iterator[str]:
    try:
        read()
    except EnsembleError as error:
        yield str(error)
