"""Files that are not what the manifest says; what can be done about each is in `remedies`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ensemble.errors import StorageError


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
        raise StorageError(
            f"{folder.path}: {len(damaged)} files are damaged or missing:\n{listed}{more}\n`ensemble check {folder.path}` names all of them"
        )
