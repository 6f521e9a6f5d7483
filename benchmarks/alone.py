"""A single network in our loop beside a bare loop in PyTorch: networks, batch sizes, threads.

    ENSEMBLE_DATA=FOLDER python -m benchmarks.alone [--networks lenet5,cnn,mlp,resnet18] [--batches 16,64,128,512] [--threads 1,2] [--seconds 4]
        [--out docs/results/alone.md]

Both sides do whole training steps on MNIST (batch from images in memory, forward, loss, backward, Adam), in turn in one process, and the median of
each counts. The bare side is the plainest loop that a person would write: images standardised beforehand as float32, indexed by a permutation. Ours draws
its order, gathers bytes, and keeps losses and misses. A number above 1 says that ours is quicker.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NETWORKS: dict[str, dict[str, Any]] = {
    "lenet5": {"name": "lenet5"},
    "cnn": {"name": "cnn", "widths": (32, 64)},
    "mlp": {"name": "mlp"},
    "resnet18": {"name": "resnet18", "stem": "small", "width": 0.25},
}
FEWEST = 12  # steps of a side


def bare_step(model: dict[str, Any]) -> tuple[Callable[[Any], None], int]:
    """One step of the plainest hand-written loop, of the rows at these positions, and how many rows there are."""
    import torch
    from torch import nn

    from benchmarks.mnist import load_mnist
    from ensemble.config import parse_experiment
    from ensemble.models import build_model

    values = {"name": "b", "num_members": 1, "method": {"name": "deep_ensemble"}, "model": model}
    network = build_model(parse_experiment(values).groups[0].model, (1, 28, 28), 10)
    arrays, rows = load_mnist()
    images = (torch.from_numpy(arrays["train_images"][rows]).float() / 255 - 0.1307) / 0.3081
    labels = torch.from_numpy(arrays["train_labels"][rows])
    optimizer, loss_of = torch.optim.Adam(network.parameters(), lr=1e-3), nn.CrossEntropyLoss()

    def step(batch: Any) -> None:
        optimizer.zero_grad()
        loss_of(network(images[batch]), labels[batch]).backward()
        optimizer.step()

    return step, len(rows)


def bare_stepper(model: dict[str, Any], batch_size: int) -> Callable[[], float]:
    """A function that does one such step and returns its seconds."""
    import torch

    step, rows = bare_step(model)
    batches = itertools.cycle(torch.randperm(rows).split(batch_size)[:-1])

    def timed() -> float:
        started = time.perf_counter()
        step(next(batches))
        return time.perf_counter() - started

    return timed


def cell(name: str, batch_size: int, seconds: float) -> tuple[float, float]:
    """Median seconds of a bare step and of ours, which take turns for so long."""
    from benchmarks.stack_speeds import stepper

    sides = bare_stepper(NETWORKS[name], batch_size), stepper(NETWORKS[name], 1, batch_size, "cpu")
    spent: tuple[list[float], list[float]] = ([], [])
    for side in sides:
        side(), side()
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(spent[0]) < FEWEST:
        for side, those in zip(sides, spent, strict=True):
            those += [side() for _ in range(3)]
    return statistics.median(spent[0]), statistics.median(spent[1])


def table(found: dict[tuple[str, int, int], tuple[float, float]], facts: dict[str, Any]) -> str:
    """The page."""
    threads = sorted({key[2] for key in found})
    lines = [
        "# A single network beside a bare loop", "", *(__doc__ or "").split("\n\n")[2].splitlines(), "",
        f"`python -m benchmarks.alone`: {facts['processor']}, {facts['cores']} cores, Python {facts['python']}, torch {facts['packages']['torch']}; medians.", "",
        "| network | batch | " + " | ".join(f"threads: {count}; bare, ms | ours, ms | bare over ours" for count in threads) + " |",
        "|---|---:|" + "---:|---:|---:|" * len(threads),
    ]  # fmt: skip
    for name, batch_size in dict.fromkeys(key[:2] for key in found):
        cells = []
        for count in threads:
            bare, ours = found[name, batch_size, count]
            cells.append(f"{bare * 1e3:.2f} | {ours * 1e3:.2f} | {bare / ours:.2f}")
        lines.append(f"| {name} | {batch_size} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """All cells, those of one number of threads in a process of their own; prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batches", default="16,64,128,512")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        print(json.dumps(cell(given.cell[0], int(given.cell[1]), given.seconds)))
        return
    from ensemble.run.environment import describe_environment

    found = {}
    for name, batch, threads in itertools.product(
        given.networks.split(","), map(int, given.batches.split(",")), map(int, given.threads.split(","))
    ):
        words = [sys.executable, "-m", "benchmarks.alone", "--seconds", str(given.seconds), "--cell", name, str(batch)]
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
        )
        found[name, batch, threads] = tuple(json.loads(done.stdout.splitlines()[-1]))
        bare, ours = found[name, batch, threads]
        print(f"{name}, batches of {batch}, {threads} threads: {bare / ours:.2f}", flush=True)
    facts: dict[str, Any] = describe_environment()
    text = table(found, facts)
    print(text)
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
