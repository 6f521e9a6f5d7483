"""What one big GPU does with many small networks: the stack against the same networks one by one, and what follows.

    ENSEMBLE_DATA=FOLDER python -m benchmarks.gpu [--out docs/results/gpu.json] [--dry-run]

Inline, without Ray or wandb, so it runs on a bare machine with torch and this source. Times are of the training steps
alone, per epoch, median over the epochs after the first; votes and files are not inside. --dry-run does all of it on the
CPU with tiny sizes and scikit-learn's digits, to see that it works; its figures mean nothing. Where Ensemble-PyTorch is
not installed, the part with it is left out. docs/results/speed.md takes the table of what --out wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensemble.config import parse_experiment
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.environment import describe_environment
from ensemble.events import EpochFinished, Notice
from ensemble.training import Trainer
from ensemble.types import Failure, MemberResult, MemberSpec, Task

ROOT = Path(__file__).resolve().parents[1]
_READY = "ready\n"


@dataclass(frozen=True)
class Trained:
    """One task: seconds per epoch, seconds in all, test errors of the members."""

    epoch_s: float
    total_s: float
    errors: tuple[float, ...]


class Bench:
    """MNIST on the device, and tasks trained on it."""

    def __init__(self, dry_run: bool) -> None:
        self.device, self.dry_run = "cpu" if dry_run else "cuda", dry_run
        mnist = load_dataset(DataConfig(name="digits" if dry_run else "mnist"))
        count = len(mnist.train_labels_N)
        held_out = count // 10
        self.data, self.test_labels_N = mnist.name, mnist.test_labels_N
        self.rows = np.arange(count - held_out)
        self.arrays: dict[str, Any] = {
            "train_images": mnist.train_images_NCHW, "train_labels": mnist.train_labels_N,
            "validation_rows": np.arange(count - held_out, count), "test_images": mnist.test_images_NCHW,
            "mean": np.array([0.1307], np.float32), "std": np.array([0.3081], np.float32),
        }  # fmt: skip

    def size(self, real: int, dry: int) -> int:
        return dry if self.dry_run else real

    def train(
        self, count: int, model: dict[str, Any], precision: str = "float32", graph: bool = False, **training: Any
    ) -> Trained:
        """Train one stack of `count` members. graph: by a CUDA graph of a step; an error where there was none."""
        if self.dry_run:
            training["epochs"] = min(2, training["epochs"])
        experiment = parse_experiment({
            "name": "gpu", "num_members": count, "method": {"name": "deep_ensemble"}, "model": model,
            "data": {"name": self.data}, "training": training,
            "compute": {
                "device": self.device, "checkpoint_every_s": 0, "precision": precision, "deterministic": False,
                "cuda_graph": graph and not self.dry_run,
            },
        })  # fmt: skip
        recipe = experiment.groups[0].name
        task = Task("gpu", recipe, tuple(MemberSpec(i, recipe, self.rows) for i in range(count)))
        spent: dict[int, float] = {}
        errors = []
        started = time.perf_counter()
        for item in Trainer.create(experiment, self.device, 10)(task, self.arrays):
            if isinstance(item, EpochFinished):
                spent[item.epoch] = spent.get(item.epoch, 0.0) + item.seconds
            elif isinstance(item, MemberResult):
                errors.append(float((item.votes.test_NK.argmax(1) != self.test_labels_N).mean()))
            elif isinstance(item, Failure):
                raise SystemExit(f"member {item.index} failed: {item.reason}")
            elif isinstance(item, Notice):
                raise SystemExit(item.message)
        later = [seconds for epoch, seconds in spent.items() if epoch > 1] or list(spent.values())
        return Trained(statistics.median(later), time.perf_counter() - started, tuple(errors))


def stack_against_one_by_one(bench: Bench) -> dict[str, Any]:
    """64 LeNet-5, batch 128: milliseconds per member-epoch as one stack, and one network alone times 64 over it."""
    count = bench.size(64, 3)
    recipe = {"epochs": 5, "batch_size": 128, "lr": 1e-3}
    together, alone = bench.train(count, {"name": "lenet5"}, **recipe), bench.train(1, {"name": "lenet5"}, **recipe)
    return {
        "members": count, "ms_per_member_epoch": 1000 * together.epoch_s / count, "alone_ms": 1000 * alone.epoch_s,
        "ratio": count * alone.epoch_s / together.epoch_s, "mean_test_error": float(np.mean(together.errors)),
    }  # fmt: skip


def stack_sizes(bench: Bench) -> dict[str, Any]:
    """Milliseconds per member-epoch of LeNet-5 by stack size, batch 128."""
    sizes = [1, 2] if bench.dry_run else [1, 8, 16, 32, 64, 128]
    found = {k: bench.train(k, {"name": "lenet5"}, epochs=3, batch_size=128, lr=1e-3).epoch_s * 1000 / k for k in sizes}
    return {f"K={k}": value for k, value in found.items()}


def cuda_graph(bench: Bench) -> dict[str, Any]:
    """LeNet-5, batch 128: how many times as fast an epoch is by a CUDA graph of the step, by stack size; test errors of both."""
    found: dict[str, Any] = {}
    for count in [1, 2] if bench.dry_run else [1, 8, 64]:
        plain, recorded = (
            bench.train(count, {"name": "lenet5"}, graph=graph, epochs=3, batch_size=128, lr=1e-3)
            for graph in (False, True)
        )
        found[f"K={count}"] = plain.epoch_s / recorded.epoch_s
        found[f"K={count} mean test errors"] = [float(np.mean(trained.errors)) for trained in (plain, recorded)]
    return found


def resnet18_bf16(bench: Bench) -> dict[str, Any]:
    """ResNet-18 with the small stem, batch 128, bf16: seconds per member-epoch alone and as a stack of two."""
    model = {"name": "cnn", "widths": (8,)} if bench.dry_run else {"name": "resnet18", "stem": "small"}
    recipe: dict[str, Any] = {"epochs": 3, "batch_size": 128, "lr": 1e-3}
    precision = "float32" if bench.dry_run else "bf16"
    alone, two = (bench.train(k, model, precision, **recipe) for k in (1, 2))
    return {"alone_s": alone.epoch_s, "two_s": two.epoch_s / 2, "test_error": alone.errors[0]}


def hundred_seeds(bench: Bench) -> dict[str, Any]:
    """100 seeds of a LeNet-5 that reaches 99 %: seconds in all, votes on test inside, and the errors' mean and spread."""
    count = bench.size(100, 3)
    trained = bench.train(
        count, {"name": "lenet5"}, epochs=4, batch_size=128, lr=4e-3, schedule={"name": "one_cycle"}
    )  # fmt: skip
    return {
        "members": count, "seconds": trained.total_s, "mean_test_error": float(np.mean(trained.errors)),
        "worst_test_error": max(trained.errors), "best_test_error": min(trained.errors),
    }  # fmt: skip


def at_a_time(bench: Bench) -> dict[str, Any]:
    """16 LeNet-5, batch 128, seconds per epoch: as one stack, and as 16 processes that share the GPU as Ray's fractions do."""
    count, recipe = bench.size(16, 2), {"epochs": 4, "batch_size": 128, "lr": 1e-3}
    stack = bench.train(count, {"name": "lenet5"}, **recipe)
    words = [sys.executable, "-m", "benchmarks.gpu", "--side", json.dumps(recipe)]
    words += ["--dry-run"] if bench.dry_run else []
    sides = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(count)
    ]
    for side in sides:
        if side.stdout is None or side.stdout.readline() != _READY:
            raise SystemExit("a process that was to train one member did not get ready")
    for side in sides:
        assert side.stdin is not None
        side.stdin.write("\n")
        side.stdin.flush()
    slowest = max(float(side.communicate()[0]) for side in sides)
    return {"members": count, "stack_s": stack.epoch_s, "processes_s": slowest, "ratio": slowest / stack.epoch_s}


def one_side(bench: Bench, recipe: dict[str, Any]) -> None:
    """A process with one member: gets ready, waits for a line, trains, and prints its seconds per epoch."""
    bench.train(1, {"name": "lenet5"}, **{**recipe, "epochs": 1})
    print(_READY, end="", flush=True)
    sys.stdin.readline()
    print(bench.train(1, {"name": "lenet5"}, **recipe).epoch_s)


def against_ensemble_pytorch(bench: Bench) -> dict[str, Any]:
    """20 bagged LeNet-5, batch 128, seconds of training per member-epoch: Ensemble-PyTorch over one stack.

    Its members train one after another, so two of them for one epoch tell what each takes; torchvision's MNIST through a
    DataLoader, as its documentation shows.
    """
    if find_spec("torchensemble") is None:
        return {"left_out": "torchensemble is not installed"}
    from torch import nn
    from torch.utils.data import DataLoader, Dataset, TensorDataset
    from torchensemble import BaggingClassifier
    from torchvision.datasets import MNIST
    from torchvision.transforms import Compose, Normalize, ToTensor

    from ensemble.config.models import LeNet5Config
    from ensemble.models import build_model

    channels, height, width = bench.arrays["train_images"].shape[1:]

    class LeNet5(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = build_model(LeNet5Config(name="lenet5"), (channels, height, width), 10)

        def forward(self, x: Any) -> Any:
            return self.network(x)

    train: Dataset[Any]
    if bench.dry_run:
        images = torch.from_numpy(bench.arrays["train_images"]).float() / 255
        train = TensorDataset(images, torch.from_numpy(bench.arrays["train_labels"]))
    else:
        transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])
        train = MNIST(os.environ["ENSEMBLE_DATA"], train=True, transform=transform)
    model = BaggingClassifier(LeNet5, 2, n_jobs=1, cuda=not bench.dry_run)
    model.set_optimizer("Adam", lr=1e-3)
    started = time.perf_counter()
    model.fit(DataLoader(train, batch_size=128, shuffle=True), epochs=1, log_interval=10**9, save_model=False)
    theirs = (time.perf_counter() - started) / 2
    count = bench.size(20, 2)
    ours = bench.train(count, {"name": "lenet5"}, epochs=3, batch_size=128, lr=1e-3).epoch_s / count
    # Ours leaves a tenth of the rows for validation.
    return {"members": count, "ours_s": ours, "theirs_s": theirs, "ratio": 0.9 * theirs / ours}


PARTS: tuple[Callable[[Bench], dict[str, Any]], ...] = (
    stack_against_one_by_one, stack_sizes, cuda_graph, at_a_time, against_ensemble_pytorch, resnet18_bf16, hundred_seeds,
)  # fmt: skip
# Title, where the figure is, and what it should at least or at most be.
GOALS: tuple[tuple[str, str, str, Callable[[float], bool], str], ...] = (
    ("64 LeNet-5, batch 128: one stack, times as fast as one by one", "stack_against_one_by_one", "ratio", lambda v: v >= 12, ">= 12"),
    ("the same stack, ms per member-epoch", "stack_against_one_by_one", "ms_per_member_epoch", lambda v: v <= 15, "<= 15"),
    ("20 LeNet-5: one stack, times as fast as Ensemble-PyTorch", "against_ensemble_pytorch", "ratio", lambda v: v >= 100, ">= 100"),
    ("16 LeNet-5: one stack, times as fast as 16 processes at a time", "at_a_time", "ratio", lambda v: v >= 3, ">= 3"),
    ("ResNet-18, small stem, bf16, seconds per member-epoch", "resnet18_bf16", "alone_s", lambda v: v <= 0.75, "<= 0.75"),
    ("100 LeNet-5 of 99 %, seconds in all", "hundred_seeds", "seconds", lambda v: v <= 4, "<= 4"),
)  # fmt: skip


def table(record: dict[str, Any] | None) -> str:
    """The goals and what was measured, in Markdown; empty cells for what was not."""
    measured = record or {}
    environment = measured.get("environment", {})
    versions = f"python {environment.get('python')}, torch {environment.get('packages', {}).get('torch')}"
    where = f"On one {measured['gpu']}; {versions}." if "gpu" in measured else "Not measured yet: no GPU was at hand."
    lines = ["## One big GPU", "", f"`python -m benchmarks.gpu`. {where}", "", "| what | goal | measured | reached |"]
    lines.append("|---|---:|---:|---|")
    for title, part, key, reached, goal in GOALS:
        value = measured.get(part, {}).get(key) if "gpu" in measured else None
        lines.append(
            f"| {title} | {goal} | "
            + (" | |" if value is None else f"{value:.3g} | {'yes' if reached(value) else 'no'} |")
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """All parts; prints each as it comes and the table, and writes JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--side")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; --dry-run shows on the CPU that everything works")
    bench = Bench(options.dry_run)
    if options.side:
        one_side(bench, json.loads(options.side))
        return
    record: dict[str, Any] = {"environment": describe_environment(), "dry_run": options.dry_run}
    if not options.dry_run:
        record["gpu"] = torch.cuda.get_device_name()
    for part in PARTS:
        record[part.__name__] = part(bench)
        print(f"{' '.join((part.__doc__ or '').split())}\n  {record[part.__name__]}", flush=True)
        if options.out:  # after every part: none is lost
            options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


if __name__ == "__main__":
    main()
