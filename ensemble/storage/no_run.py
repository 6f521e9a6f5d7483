"""What to say where somebody names a run that there is not: the one that was meant, else what runs there are."""

from __future__ import annotations

import os
from pathlib import Path

from ensemble.config.explain import closest
from ensemble.errors import StorageError
from ensemble.storage.manifest import MANIFEST

ROOT = "runs"  # where commands look for names
_MOST = 5  # runs that are named


def no_run(path: Path, given: str = "") -> StorageError:
    """The error for a path that is no run. given: what was typed for it, where that is something else."""
    return StorageError(f"{given or path}: no run here (there is no {MANIFEST}); {instead_of(path)}")


def instead_of(path: Path) -> str:
    """What to type in place of a path that is no run: the run of a like name beside it or under runs/, or any that there are."""
    within = _runs_in(path)
    if within:
        return f"it is a folder of runs: give one of them, such as {_named(within)}"
    beside = [run for run in dict.fromkeys([*_runs_in(path.parent), *_runs_in(Path(ROOT))]) if run != path]
    near = closest(path.name, [run.name for run in beside])
    if near is not None:
        return f"did you mean {next(run for run in beside if run.name == near)}?"
    if beside:
        return f"give one of the runs that there are: {_named(beside)}"
    return f"give the folder of a run, such as {ROOT}/NAME; there is none in {path.parent}: `ensemble train quickstart` makes one"


def _named(runs: list[Path]) -> str:
    more = f" and {len(runs) - _MOST} more (`ensemble runs {runs[0].parent}`)" if len(runs) > _MOST else ""
    return ", ".join(map(str, runs[:_MOST])) + more


def _runs_in(folder: Path) -> list[Path]:
    """By name; none where the folder cannot be looked through."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
        return [folder / name for name in names if (folder / name / MANIFEST).is_file()]
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return []
