"""Files that are not what the manifest says: the error, and what a person can do about each."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ensemble.errors import StorageError
from ensemble.storage.manifest import member_of
from ensemble.storage.names import COST, DERIVED, EVENTS, SET_VOTES, beside_of

# Kept for a while or for people: a run is whole without them.
PASSING = ("checkpoints/", "failures/", COST)


class Damaged(StorageError):
    """A listed file that is missing or was changed. name: as the manifest has it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Sound(Protocol):
    """A folder that can say what of it is damaged."""

    path: Path

    def damaged_files(self) -> list[Damaged]: ...


def require_sound(folder: Sound) -> None:
    """Raises StorageError when any file of a run is damaged, for commands that speak of the whole run."""
    damaged = folder.damaged_files()
    if len(damaged) == 1:
        raise damaged[0]
    if damaged:
        listed = "\n".join(f"  {error}" for error in damaged[:5])
        more = f"\n  and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise StorageError(f"{folder.path}: {len(damaged)} files are damaged or missing:\n{listed}{more}")


def what_to_do(name: str) -> str:
    """How a run comes by an undamaged file of that name."""
    member = member_of(name)
    if member is not None:
        return f"restore it from a copy, or start the run's `ensemble train` again, which trains member {member} again"
    if (which := beside_of(name)) is not None:
        who = "the baseline" if which == "baseline" else f"the control {which}"
        return f"restore it from a copy, or start the run's `ensemble train` again, which trains {who} again"
    if name.startswith(SET_VOTES):
        return "restore it from a copy, or start the run's `ensemble train` again, which votes anew on the sets of its configuration (of others: `ensemble evaluate RUN --on SET`, or --forget SET)"
    if name == COST:
        return "restore it from a copy, or measure again: `ensemble cost RUN`"
    if name in DERIVED or name.startswith(PASSING):
        return "restore it from a copy, or start the run's `ensemble train` again, which writes it anew"
    if name == EVENTS:
        return "restore it from a copy, or remove it and start the run's `ensemble train` again: only the history of what happened is lost"
    return "restore it from a copy; without one the run must be trained anew under another name=..."
