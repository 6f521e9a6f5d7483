"""What importing costs: no heavy package before it is needed. And no two files that need each other."""

from __future__ import annotations

import subprocess
import sys
import time
from graphlib import TopologicalSorter

import grimp
import pytest

HEAVY = "{'torch', 'ray', 'accelerate', 'wandb', 'torchvision', 'matplotlib'}"
LIGHT = [
    "ensemble", "ensemble.commands.main", "ensemble.types", "ensemble.events", "ensemble.seeding", "ensemble.config",
    "ensemble.methods", "ensemble.storage", "ensemble.evaluation.evaluate", "ensemble.results.judging", "ensemble.data",
    "ensemble.tracking", "ensemble.overview.table", "ensemble.overview.removal", "ensemble.overview.watching",
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
        subprocess.run([sys.executable, "-m", "ensemble", "--help"], check=True, capture_output=True, timeout=60)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.3


def test_no_files_import_each_other_in_a_circle() -> None:
    """For type annotations alone neither, nor inside functions: a circle is one thing in several files."""
    graph = grimp.build_graph("ensemble")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the files
