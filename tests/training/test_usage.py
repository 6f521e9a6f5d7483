"""What a training process takes of its machine, as events and dashboards tell it."""

from __future__ import annotations

import gc
import mmap
import os
import time

import pytest
import torch

from ensemble.outside.memory import resident_memory
from ensemble.training.usage import Usage


def busy(seconds: float) -> None:
    """Compute for so much CPU time, however long that takes on a busy machine."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_cores_are_those_that_were_busy_since_the_last_time() -> None:
    usage = Usage(torch.device("cpu"))
    started = time.monotonic()
    busy(0.3)
    first = usage.since_last()
    wall = time.monotonic() - started
    assert first.cpu_cores is not None
    assert 0.8 * 0.3 / wall <= first.cpu_cores <= 1.3
    time.sleep(0.5)
    second = usage.since_last()
    assert second.cpu_cores is not None
    assert second.cpu_cores < first.cpu_cores
    assert (first.gpu_memory_bytes, first.gpu_percent) == (None, None)


def test_memory_is_what_is_resident() -> None:
    """Of several tries, since whatever else the process holds may be let go of in between; of pages of their own, since the heap may have kept as much."""
    more = []
    for _ in range(5):
        gc.collect()
        before = resident_memory()
        assert before is not None
        with mmap.mmap(-1, 200 << 20) as pages:
            for place in range(0, len(pages), mmap.PAGESIZE):
                pages[place] = 1
            after = resident_memory()
        assert after is not None
        more.append(after - before)
    assert any(150 << 20 < each < 300 << 20 for each in more), more
    assert 200 << 20 < after < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_card_that_does_not_say_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def utilization(device: object) -> int:
        asked.append(device)
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5)
    usage = Usage(torch.device("cuda", 0))
    found = [usage.since_last() for _ in range(3)]
    assert [(used.gpu_memory_bytes, used.gpu_percent) for used in found] == [(5, None)] * 3
    assert asked == [torch.device("cuda", 0)]
