"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

from ensemble.outside.control_groups import groups_of


def cpus_here() -> int:
    """Processors that this process may run on, and its control groups' limits to their time (rounded up); at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [_limit(version, group) for version, group in groups_of("cpu")]
    return max(1, math.ceil(min([count, *limits])))


def _limit(version: int, group: Path) -> float:
    """Processors' worth of time that a group may take; infinite where it has no limit."""
    with suppress(OSError, ValueError):
        if version == 2:
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        if int(quota) > 0:  # "max" is no number, and no limit; nor is -1
            return int(quota) / int(period)
    return math.inf
