"""What the driver costs at 100 to 10,000 members: everything of a run but the training itself.

    python -m benchmarks.driver_size [--members 100,1000,10000] [--stack 8] [--out driver_size.json]

An executor of this file answers every task at once with drawn votes and a small set of weights, so what is left is the
program's own work: planning, handing out tasks, storing members, the event log, judging; then a start of the finished
run, `ensemble evaluate` and `ensemble report`. On scikit-learn's digits, whose votes are small (some 20 kB a member).
CPU seconds, bytes and memory are exact; wall times depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.config import Experiment, parse_experiment
from ensemble.events import EpochFinished, TaskStarted
from ensemble.executors.base import Arrays, Collector, Emit, Outcome, Train, Wanted, always
from ensemble.run.run import judge_again, run_ensemble
from ensemble.types import EpochRecord, FloatArray, MemberResult, MemberSpec, Task, Votes

EPOCHS = 2
CLASSES = 10
SHARE_RIGHT = 0.9  # of a member's votes


class DrawnVotes:
    """An executor that trains nothing: each member votes at random, right nine times out of ten."""

    name, slots = "drawn", 2

    def __init__(self, test_labels_N: Any) -> None:
        self._test_labels_N = test_labels_N

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        """One outcome for each task, at once."""
        del train
        labels_N = np.asarray(arrays["train_labels"])
        for task in filter(wanted, tasks):
            collector = Collector(task, emit)
            indices = tuple(member.index for member in task.members)
            collector.take(TaskStarted(task.id, indices, task.recipe, EPOCHS, "here", os.getpid(), "cpu", 1))
            for epoch in range(1, EPOCHS + 1):
                for index in indices:
                    collector.take(EpochFinished(index, epoch, EPOCHS, 0.4, 0.4, 1 - SHARE_RIGHT, 0.001, 0.1))
            for member in task.members:
                collector.take(self._result(member, labels_N, np.asarray(arrays["validation_rows"]), len(indices)))
            yield collector.outcome()

    def close(self) -> None:
        """Nothing is held."""

    def _result(self, member: MemberSpec, labels_N: Any, validation_rows: Any, together: int) -> MemberResult:
        rng = np.random.default_rng(member.index)
        votes = Votes(
            _drawn(rng, labels_N[validation_rows]),
            _drawn(rng, self._test_labels_N),
            member.vote_rows,
            _drawn(rng, labels_N[member.vote_rows]),
        )
        history = tuple(EpochRecord(epoch, 0.4, 0.4, 1 - SHARE_RIGHT, 0.001, 0.1) for epoch in range(1, EPOCHS + 1))
        weights = {"layer.weight": rng.normal(size=(CLASSES, 64)).astype(np.float32)}
        return MemberResult(member.index, member.recipe, votes, weights, history, 640, 0.2, EPOCHS, together)


def _drawn(rng: np.random.Generator, labels_N: Any) -> FloatArray:
    """Probabilities [N, K]: most of it on the label, or on another class where the member is wrong."""
    right_N = rng.random(len(labels_N)) < SHARE_RIGHT
    chosen_N = np.where(right_N, labels_N, rng.integers(0, CLASSES, len(labels_N)))
    probs_NK = rng.dirichlet(np.ones(CLASSES), len(labels_N)) * 0.5
    probs_NK[np.arange(len(labels_N)), chosen_N] += 0.5
    return (probs_NK / probs_NK.sum(axis=1, keepdims=True)).astype(np.float32)


def _experiment(root: Path, members: int, stack: int) -> Experiment:
    return parse_experiment({
        "name": "run", "output_dir": str(root), "num_members": members, "method": {"name": "bagging"},
        "baseline": False,
        "model": {"name": "mlp"}, "data": {"name": "digits"}, "training": {"epochs": EPOCHS},
        "compute": {"stack_size": stack, "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
    })  # fmt: skip


def _cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _written() -> int:
    """Bytes this process has handed to write() so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["wchar"])


def measured(act: Callable[[], object]) -> dict[str, float]:
    """CPU and wall seconds and written bytes of a call."""
    cpu, wall, written = _cpu_s(), time.monotonic(), _written()
    act()
    return {"cpu_s": _cpu_s() - cpu, "s": time.monotonic() - wall, "bytes_written": _written() - written}


def part(name: str, root: Path, members: int, stack: int) -> dict[str, Any]:
    """One part, in a process of its own."""
    from ensemble.data import load_dataset

    experiment = _experiment(root, members, stack)
    dataset = load_dataset(experiment.data)

    def train() -> None:
        run_ensemble(experiment, lambda *_: DrawnVotes(dataset.test_labels_N), lambda _: [])

    def report() -> None:
        from click.testing import CliRunner

        from ensemble.commands.main import main as cli

        done = CliRunner().invoke(cli, ["report", str(root / "run")])
        if done.exit_code:
            raise RuntimeError(f"ensemble report: {done.output}")

    acts: dict[str, Callable[[], object]] = {
        "run": train, "started again": train, "evaluate": lambda: judge_again(root / "run"), "report": report,
    }  # fmt: skip
    figures: dict[str, Any] = measured(acts[name])
    return {**figures, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def all_parts(members: int, stack: int) -> dict[str, Any]:
    """Every part, and what lies in the folder afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        parts: dict[str, Any] = {}
        for name in ("run", "started again", "evaluate", "report"):
            words = [sys.executable, "-m", "benchmarks.driver_size", "--part", name, "--root", folder]
            words += ["--members", str(members), "--stack", str(stack)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                parts[name] = {"failed": done.stderr[-2000:]}
                continue
            parts[name] = json.loads(done.stdout.splitlines()[-1])
        run = Path(folder) / "run"
        sizes = {
            name: (run / name).stat().st_size
            for name in ("manifest.json", "events.jsonl", "evaluation.json", "report.html")
            if (run / name).exists()
        }
    return {"members": members, "stack": stack, "parts": parts, "bytes": sizes}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", default="100,1000,10000")
    parser.add_argument("--stack", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(part(options.part, options.root, int(options.members), options.stack)))
        return
    found = []
    print("| members | part | CPU s | ms per member | s | written MB | peak MB |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for members in map(int, options.members.split(",")):
        found.append(all_parts(members, options.stack))
        for name, figures in found[-1]["parts"].items():
            if "failed" in figures:
                print(f"| {members:,} | {name} | failed: {figures['failed'][-300:]} |")
                continue
            each, written = 1000 * figures["cpu_s"] / members, figures["bytes_written"] / 1e6
            print(
                f"| {members:,} | {name} | {figures['cpu_s']:.1f} | {each:.1f} | {figures['s']:.1f} | {written:.1f} | {figures['peak_mb']:.0f} |",
                flush=True,
            )
        print(f"| {members:,} | bytes | {found[-1]['bytes']} |")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
