"""How much memory this process has, and may still take, by what the machine and its control groups say."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ensemble.outside.control_groups import groups_of

_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")  # size and resident pages
_NO_LIMIT = 1 << 60


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, and within the limits of this process's control groups; None where nobody says.

    What a group holds as copies of files counts as free, since the system drops it when room is needed.
    """
    found = [*_of_machine(), *_of_groups()]
    return min(found) if found else None


def resident_memory() -> int | None:
    """Bytes of this process that are in RAM now; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_machine() -> list[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return [int(line.split()[1]) * 1024]
    return []


def _of_groups() -> list[int]:
    """What is left in every group that this process is in."""
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
        2: ("memory.max", "memory.current", "file"),
    }
    return [left for version, group in groups_of("memory") for left in _left_in(group, *names[version])]


def _left_in(group: Path, limit: str, used: str, cache: str) -> list[int]:
    with suppress(OSError, ValueError):
        most = int((group / limit).read_text())  # "max" is no number, and no limit
        if most < _NO_LIMIT:
            lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
            dropped = next((int(value) for name, value in lines if name == cache), 0)
            return [max(0, most - int((group / used).read_text()) + dropped)]
    return []
