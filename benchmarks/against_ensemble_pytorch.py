"""Bagging 8 LeNet-5 on MNIST: this project beside Ensemble-PyTorch 0.2.0, in one go.

    ENSEMBLE_DATA=FOLDER python -m benchmarks.against_ensemble_pytorch [--epochs 10] [--repeats 2] [--jobs 1 2]

Same members, epochs, batch 64, Adam at 1e-3, same training rows (validation rows are left out on both sides), float32
on the CPU. Timed: each side's whole process, from the start of Python to the last printed figure, so imports, data
loading, Ray's start, voting and (ours only) all statistics and files are inside. The sides take turns; before, each has
run for an epoch untimed, so that no library is compiled to bytecode or C within the timing.
Ensemble-PyTorch gets torchvision's MNIST through a DataLoader, as its documentation shows, and no test loader, so that
it evaluates once at the end, as we do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = {"members": 8, "batch": 64, "lr": 1e-3}


def ours(epochs: int, seed: int) -> float:
    """Train with this project in a process of its own; returns the test error."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            sys.executable, "-m", "ensemble", "train", "configs/bagging_lenet5_mnist.yaml", "--json", "--quiet", "baseline=false",
            f"training.epochs={epochs}", f"seed={seed}", f"output_dir={folder}", "tracking.wandb.mode=disabled", "compute.executor=ray",
        ]  # fmt: skip
        done = subprocess.run(arguments, check=True, capture_output=True, text=True)
        rows = json.loads(done.stdout)["leaderboard"]
        return float(next(row["test_error"] for row in rows if row["headline"]))


def theirs(epochs: int, jobs: int, seed: int) -> float:
    """Train with Ensemble-PyTorch in a process of its own; returns the test error."""
    arguments = [
        sys.executable,
        "-m",
        "benchmarks.against_ensemble_pytorch",
        "--side",
        str(jobs),
        "--epochs",
        str(epochs),
        "--seed",
        str(seed),
    ]
    # Its own default: with one job torch takes all cores; several jobs share them.
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.strip().splitlines()[-1])


def their_side(epochs: int, jobs: int, seed: int) -> None:
    """The other side's whole program."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Subset
    from torchensemble import BaggingClassifier
    from torchvision.datasets import MNIST
    from torchvision.transforms import Compose, Normalize, ToTensor

    from ensemble.config.schema import DataConfig
    from ensemble.data import split_rows
    from ensemble.models import build_model
    from ensemble.models.lenet import LeNet5Config

    class LeNet5(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = build_model(LeNet5Config(name="lenet5"), (1, 28, 28), 10)

        def forward(self, x: Any) -> Any:
            return self.network(x)

    torch.manual_seed(seed)  # of starting weights and bags
    transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])
    root = os.environ["ENSEMBLE_DATA"]
    train, test = MNIST(root, train=True, transform=transform), MNIST(root, train=False, transform=transform)
    rows = split_rows(train.targets.numpy(), 10, DataConfig(name="mnist"), 0).train_rows
    model = BaggingClassifier(LeNet5, SIZES["members"], n_jobs=jobs, cuda=False)
    model.set_optimizer("Adam", lr=SIZES["lr"])
    loader = DataLoader(Subset(train, rows.tolist()), batch_size=int(SIZES["batch"]), shuffle=True)
    model.fit(loader, epochs=epochs, log_interval=10**9, save_model=False)
    accuracy = model.evaluate(DataLoader(test, batch_size=1000))
    print(1 - accuracy / 100)


def main() -> None:
    """Both sides in turn; prints the table and writes JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=2)
    # On 2 cores 2 are quickest: 435 s, while one on two threads took 674 s (docs/log.md).
    parser.add_argument("--jobs", type=int, nargs="+", default=[os.cpu_count() or 1])
    parser.add_argument("--side", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of a side; the repeats have 0, 1 and so on")
    parser.add_argument("--out", type=Path, default=Path("docs/results/against_ensemble_pytorch.json"))
    options = parser.parse_args()
    if options.side is not None:
        their_side(options.epochs, options.side, options.seed)
        return
    if "ENSEMBLE_DATA" not in os.environ:
        sys.exit("set ENSEMBLE_DATA to a folder with MNIST/raw")
    sides: dict[str, Any] = {"ours": lambda seed: ours(options.epochs, seed)}
    for jobs in options.jobs:
        sides[f"Ensemble-PyTorch n_jobs={jobs}"] = lambda seed, jobs=jobs: theirs(options.epochs, jobs, seed)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    errors: dict[str, list[float]] = {name: [] for name in sides}
    ours(1, 0), theirs(1, options.jobs[0], 0)
    for repeat in range(options.repeats):
        for name, run in sides.items():
            started = time.perf_counter()
            errors[name].append(run(repeat))
            seconds[name].append(time.perf_counter() - started)
            print(
                f"repeat {repeat + 1}: {name}: {seconds[name][-1]:.1f} s, test error {errors[name][-1]:.2%}", flush=True
            )
    report(options, seconds, errors)


def report(options: argparse.Namespace, seconds: dict[str, list[float]], errors: dict[str, list[float]]) -> None:
    """Medians, ratios with their range over the repeats, hardware."""
    from ensemble.run.environment import describe_environment

    best = min((name for name in seconds if name != "ours"), key=lambda name: statistics.median(seconds[name]))
    ratios = [there / here for there, here in zip(seconds[best], seconds["ours"], strict=True)]
    environment = describe_environment()
    record = {
        "epochs": options.epochs, **SIZES, "seconds": seconds, "test_errors": errors, "best_other": best,
        "ratio_median": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)],
        "environment": environment, "host": platform.machine(),
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    for name in seconds:
        print(f"{name:32} {statistics.median(seconds[name]):8.1f} s   test error {statistics.mean(errors[name]):.2%}")
    low, high = record["ratio_range"]
    print(f"{best} / ours: {record['ratio_median']:.2f} (range {low:.2f}-{high:.2f} over {options.repeats} repeats)")
    print(f"{environment['processor']}, {environment['cores']} cores")


if __name__ == "__main__":
    main()
