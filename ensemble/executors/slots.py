"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

_LIMITS = (
    Path("/sys/fs/cgroup/cpu.max"),
    Path("/sys/fs/cgroup/cpu"),
)  # of a container: version 2 of control groups, and 1


def cpus_here() -> int:
    """Processors that this process may run on, and a container's limit to their time (rounded up); at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _limit())))


def _limit() -> float:
    with suppress(OSError, ValueError):
        quota, period = _LIMITS[0].read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((_LIMITS[1] / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf
