"""8 bagged LeNet-5 of configs/bagging_lenet5_mnist.yaml on one GPU, whole processes: imports, training, votes, judgement.

Ensemble-PyTorch trains its members one after another, for minutes, so it runs one epoch, and the other nine are added
from the time of that one; --full-peer runs them all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.cases import Cases

ROOT = Path(__file__).resolve().parents[2]
_EPOCHS = 10


def run(bench: Bench, cases: Cases) -> None:
    """Ours with 10 epochs (the second start finds the files in the page cache, as theirs does), then theirs, then ours with 1."""
    with cases.case("ours, 10 epochs") as values:
        values.update(_ours(bench, bench.size(_EPOCHS, 1)))
    if not bench.small:  # Ensemble-PyTorch's program needs torchvision's MNIST
        with cases.case("theirs") as values:
            values.update(_theirs(bench, _EPOCHS if bench.full_peer else 1))
        with cases.case("ours, 1 epoch") as values:
            values.update(_ours(bench, 1))


def _ours(bench: Bench, epochs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "ensemble", "train", str(ROOT / "configs/bagging_lenet5_mnist.yaml"), "--json",
            f"data.name={bench.data_name}", f"num_members={bench.size(8, 2)}", f"training.epochs={epochs}",
            f"compute.device={bench.device}", f"compute.cuda_graph={str(bench.on_gpu).lower()}",
            "compute.executor=inline", "tracking.wandb.mode=disabled", "baseline=false",
            f"output_dir={folder}",
        ]  # fmt: skip
        seconds, printed = _timed(command)
    vote = json.loads(printed)["leaderboard"][0]
    return {"seconds": seconds, "test_error": vote["test_error"]}


def _theirs(bench: Bench, epochs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu.ensemble_pytorch", "8", str(epochs), bench.device]
    seconds, printed = _timed(command)
    epoch_s, error = map(float, printed.split()[-2:])
    return {
        "epochs": epochs, "seconds": seconds, "epoch_s": epoch_s, "test_error": error,
        "seconds_10_epochs": seconds + (_EPOCHS - epochs) * epoch_s, "extrapolated": epochs < _EPOCHS,
    }  # fmt: skip


def _timed(command: list[str]) -> tuple[float, str]:
    """Seconds of a whole process, and what it printed. Raises RuntimeError with its last words when it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        print(done.stdout, done.stderr)
        raise RuntimeError(f"{' '.join(command[1:4])} ended with {done.returncode}: {done.stderr[-200:]}")
    return seconds, done.stdout
