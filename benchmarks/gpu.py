"""What one big GPU does with many small networks: the stack against the same networks one by one, and what follows.

    ENSEMBLE_DATA=FOLDER python -m benchmarks.gpu [--out docs/results/gpu.json] [--dry-run]

In-process, inline, without Ray or wandb, so it runs on a bare machine with torch and this source. Times are of the
training steps alone, per epoch, median over the epochs after the first; votes and files are not inside. --dry-run does
all of it on the CPU with tiny sizes and scikit-learn's digits, to see that it works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
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


PARTS = (stack_against_one_by_one, stack_sizes, cuda_graph, resnet18_bf16, hundred_seeds)


def main() -> None:
    """All parts; prints each as it comes and writes JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; --dry-run shows on the CPU that everything works")
    bench = Bench(options.dry_run)
    record: dict[str, Any] = {"environment": describe_environment(), "dry_run": options.dry_run}
    if not options.dry_run:
        record["gpu"] = torch.cuda.get_device_name()
    for part in PARTS:
        record[part.__name__] = part(bench)
        print(f"{part.__doc__}\n  {record[part.__name__]}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
