"""The control groups that limit this process, of either version of Linux's."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def groups_of(controller: str) -> list[tuple[int, Path]]:
    """Version (1 or 2) and folder of every group with this controller that this process is in, from its own upwards."""
    found = []
    with suppress(OSError, ValueError):
        for line in _GROUPS.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers == "":
                version, root = 2, _ROOT
            elif controller in controllers.split(","):
                version, root = 1, _ROOT / controller
            else:
                continue
            folder = root / name.lstrip("/")
            # In a container the names are those outside, and its own group is mounted as the root.
            for group in [folder, *folder.parents] if folder.is_dir() else [root]:
                found.append((version, group))
                if group == root:
                    break
    return found
