"""Runs whose code is the user's, through every executor: nobody but the driver has the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOORS = {
    "inline": ["-m", "ensemble", "train", "own.yaml", "-q"],
    "ray": ["-m", "ensemble", "train", "own.yaml", "-q", "compute.executor=ray", "compute.slots=2"],
    "ranks": [
        "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "ensemble.launch.accelerate_run", "own.yaml",
        "compute.executor=accelerate",
    ],
}  # fmt: skip


def same_weights_through_every_door(home: Path, members: int) -> None:
    """Train own.yaml of a folder, which is the working directory, through each; the weights must be equal to the bit."""
    for name, words in DOORS.items():
        command = [sys.executable, *words, f"output_dir={name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr
        for number in range(members):
            file = f"own/members/{number:04d}/weights.safetensors"
            assert (home / name / file).read_bytes() == (home / "inline" / file).read_bytes()
