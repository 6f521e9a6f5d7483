"""What importing costs: no heavy package before it is needed."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = "{'torch', 'ray', 'accelerate', 'wandb', 'torchvision', 'matplotlib'}"
LIGHT = [
    "ensemble", "ensemble.cli", "ensemble.types", "ensemble.events", "ensemble.seeding", "ensemble.config",
    "ensemble.methods", "ensemble.storage", "ensemble.evaluation.evaluate", "ensemble.judging", "ensemble.data",
    "ensemble.tracking",
]  # fmt: skip


@pytest.mark.parametrize("module", LIGHT)
def test_light(module: str) -> None:
    code = f"import sys, {module}; heavy = {HEAVY} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.timed
def test_help_is_quick() -> None:
    """Best of five, since the machine may be busy: the promise is 0.3 s."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ensemble.cli", "--help"], check=True, capture_output=True, timeout=60)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.3
