"""A short bagging run on all of MNIST: what the tests of launched worlds train and compare with."""

from __future__ import annotations

import json
from pathlib import Path

from ensemble.config import load_config
from ensemble.executors import InlineExecutor
from ensemble.run.run import run_ensemble

# The plan is fixed, so that the members and their bits do not depend on how many processes there are.
CONFIG = """\
num_members: 4
method: {name: bagging}
baseline: false
data: {name: mnist}
model: {name: mlp, widths: [32]}
training: {epochs: 1, lr: 3e-3, batch_size: 500}
compute: {stack_size: 1, device: cpu, kernels: torch, threads_per_task: 1}
tracking: {wandb: {mode: disabled}}
"""


def train_inline(home: Path, data: Path) -> dict[str, str]:
    """Train here, in one process; returns the members' digests."""
    (home / "mnist.yaml").write_text(CONFIG)
    words = ["name=inline", f"output_dir={home}", f"data.root={data}"]
    experiment = load_config(home / "mnist.yaml", words).experiment
    outcome = run_ensemble(experiment, lambda *_: InlineExecutor(), lambda _folder: [])
    return member_digests(outcome.path)


def member_digests(path: Path) -> dict[str, str]:
    """SHA-256 of each member's weights and votes."""
    files = json.loads((path / "manifest.json").read_text())["files"]
    return {name: f["sha256"] for name, f in files.items() if name.endswith(("weights.safetensors", "votes.npz"))}


def processes_that_trained(path: Path) -> set[int]:
    """Their numbers, from the events of their tasks."""
    lines = (path / "events.jsonl").read_text().splitlines()
    return {json.loads(line)["pid"] for line in lines if '"TaskStarted"' in line}
