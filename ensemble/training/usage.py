"""What the process that trains takes of its machine: cores, memory, and its GPU.

usage = Usage(device)
...                       # an epoch
usage.since_last()        # Used(cpu_cores=1.0, memory_bytes=612_000_000, gpu_memory_bytes=None, gpu_percent=None)
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ensemble.outside.memory import resident_memory


@dataclass(frozen=True, slots=True)
class Used:
    """cpu_cores: kept busy on average, by all threads. memory_bytes: resident. gpu_memory_bytes: taken from the GPU, its caches
    too. gpu_percent: of the time of late in which the GPU computed, by its driver. None where nobody says.
    """

    cpu_cores: float | None
    memory_bytes: int | None
    gpu_memory_bytes: int | None
    gpu_percent: float | None


class Usage:
    """Of this process, on this device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._at, self._cpu_s = time.monotonic(), time.process_time()
        self._gpu_says = device.type == "cuda"  # until it does not

    def since_last(self) -> Used:
        """What was used since the last call, or since the beginning."""
        at, cpu_s = time.monotonic(), time.process_time()
        cores = (cpu_s - self._cpu_s) / (at - self._at) if at > self._at else None
        self._at, self._cpu_s = at, cpu_s
        return Used(
            cores,
            resident_memory(),
            torch.cuda.memory_reserved(self._device) if self._device.type == "cuda" else None,
            self._busy_percent(),
        )

    def _busy_percent(self) -> float | None:
        """By NVML, for which torch asks a package of its own (nvidia-ml-py); None without it, or where the card does not say."""
        if self._gpu_says:
            try:
                return float(torch.cuda.utilization(self._device))
            except (
                Exception
            ):  # the package's own errors are of no common kind, and a figure for a dashboard is worth no run
                self._gpu_says = False
        return None
