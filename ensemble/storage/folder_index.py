"""Which members a run folder holds, and which checkpoints of a task, kept as the list of files changes: it is asked for every task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ensemble.storage.manifest import members_of

_CHECKPOINT = re.compile(r"checkpoints/(.+)\.\d+\.safetensors", re.DOTALL)


class FolderIndex:
    """Members and checkpoints among the listed files."""

    def __init__(self, files: Mapping[str, Any]) -> None:
        self.members = members_of(files)
        self._checkpoints: dict[str, set[str]] = {}
        self._add(files)

    def note(self, listed: Mapping[str, Any], removed: Iterable[str]) -> None:
        """These files are listed from now on, and those no longer; a member's come and go together."""
        for name in removed:
            self._checkpoints.get(_task_of(name), set()).discard(name)
        self.members -= members_of(dict.fromkeys(removed))
        self.members |= members_of(listed)
        self._add(listed)

    def checkpoints(self, task: str) -> list[str]:
        """Those of a task, oldest first."""
        return sorted(self._checkpoints.get(task, ()))

    def _add(self, names: Iterable[str]) -> None:
        for name in names:
            if task := _task_of(name):
                self._checkpoints.setdefault(task, set()).add(name)


def _task_of(name: str) -> str:
    """The task that a listed file is a checkpoint of; empty for any other."""
    found = _CHECKPOINT.fullmatch(name)
    return found[1] if found else ""
