"""What importing costs: no heavy package before it is needed. And no two files that need each other."""

from __future__ import annotations

import subprocess
import sys
import time
from graphlib import TopologicalSorter
from pathlib import Path

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


SMALL = """\
name: small
num_members: 2
method: {name: bagging}
data: {name: digits, max_train_rows: 100}
model: {name: cnn, widths: [4], batch_norm: true}
training: {epochs: 1}
compute: {executor: inline, device: cpu, threads_per_task: 1}
tracking: {wandb: {mode: disabled}}
"""
# Torch's compiler and what it brings, each seconds of every process that trains; and what only other commands need.
UNUSED = (
    "sympy", "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.onnx", "torchvision", "scipy.ndimage", "scipy.stats",
    "sklearn", "pandas", "matplotlib", "ray", "wandb", "jinja2",
)  # fmt: skip


@pytest.mark.parametrize(
    ("command", "unused"),
    [("train small.yaml", UNUSED), ("evaluate runs/small", (*UNUSED, "torch", "accelerate"))],
)
def test_a_command_imports_nothing_that_it_does_not_need(command: str, unused: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    run = "import sys\nfrom ensemble.commands.main import main\n"
    check = f"""\
try:
    main({command.split()!r})
except SystemExit as ended:
    assert not ended.code, ended.code
found = sorted(set({unused!r}) & set(sys.modules))
assert not found, found
"""
    if not command.startswith("train"):
        train = [sys.executable, "-m", "ensemble", "train", "small.yaml"]
        subprocess.run(train, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    done = subprocess.run(
        [sys.executable, "-c", run + check], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
