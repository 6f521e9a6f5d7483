"""A deep ensemble on MNIST, whole processes: ours beside two libraries, torch.func and a loop by hand, in turn.

    ENSEMBLE_DATA=FOLDER python -m benchmarks.peers [--network lenet5] [--members 8] [--epochs 2] [--repeats 3]

Everybody trains the same network on the same rows (our validation rows are left out everywhere), batch 64, Adam at 1e-3, float32 on the CPU,
with its own defaults for threads. Timed is the whole process, from the start of Python to the last figure: imports, reading data, the start of other processes, voting, and
of ours all statistics and files too. Before, each has run once on 640 rows, so that nothing is compiled within the timing. Memory is the
largest sum over a side's processes of what each holds for itself and its share of what several hold (PSS), looked at twice a second.

The other sides run in an environment of their own, build/peers, which is made at the first start. Writes docs/results/peers.json and peers.md:
one entry per (network, members, epochs), others are kept.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_programs import PROGRAMS

OURS = "this project"
ENVIRONMENT = Path("build/peers")
# torch-uncertainty imports more than it declares.
PACKAGES = (
    "torch-uncertainty==0.13.0", "torchensemble==0.2.0", "lightning==2.6.6", "rich", "matplotlib", "jsonargparse", "timm", "scipy", "seaborn",
    "einops", "h5py", "opencv-python-headless", "scikit-learn", "wand",
)  # fmt: skip
LIBRARIES = (
    "torch-uncertainty",
    "Ensemble-PyTorch",
)  # what README compares with; the others are no programs that one installs
WARM_ROWS = 640
EVERY_S = 0.5


def environment() -> Path:
    """The interpreter of the other sides, with our versions of torch and torchvision."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / ".installed").is_file():
        same = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in ("torch", "torchvision")]
        subprocess.run(
            [sys.executable, "-m", "uv", "venv", "--quiet", "--clear", "--python", sys.executable, ENVIRONMENT],
            check=True,
        )
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, *same, *PACKAGES], check=True
        )
        (ENVIRONMENT / ".installed").touch()
    return python


def ours(given: argparse.Namespace, seed: int, folder: str, rows: int | None) -> list[str]:
    """Our command."""
    words = [
        f"num_members={given.members}", f"training.epochs={given.epochs}", f"seed={seed}", f"output_dir={folder}",
        f"model={given.network}", "tracking.wandb.mode=disabled",
    ]  # fmt: skip
    words += ["method=deep_ensemble", "baseline=false"]
    words += [f"data.max_train_rows={rows}"] if rows else []
    return [
        sys.executable,
        "-m",
        "ensemble",
        "train",
        "configs/bagging_lenet5_mnist.yaml",
        "--json",
        "--quiet",
        *words,
    ]


def theirs(given: argparse.Namespace, name: str, seed: int, rows: Path, epochs: int) -> list[str]:
    """Another side's command."""
    return [
        str(environment()), "benchmarks/peer_programs.py", name, "--network", given.network, "--members", str(given.members),
        "--epochs", str(epochs), "--seed", str(seed), "--root", os.environ["ENSEMBLE_DATA"], "--rows", str(rows),
    ]  # fmt: skip


def error_of(name: str, output: str) -> float:
    """The test error that a side printed, a fraction."""
    if name != OURS:
        return float(output.strip().splitlines()[-1])
    return float(next(row["test_error"] for row in json.loads(output)["leaderboard"] if row["headline"]))


def measured(command: Sequence[str]) -> tuple[str, float, float]:
    """What a command prints, its seconds, and the most memory of it and its children at a time, in MiB."""
    started, most = time.perf_counter(), [0.0]
    # With its own defaults for threads, as a person starts it.
    variables = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)

    def look() -> None:
        while process.poll() is None:
            most[0] = max(most[0], sum(_proportional_mib(number) for number in _family(process.pid)))
            time.sleep(EVERY_S)

    looking = threading.Thread(target=look)
    looking.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - started
    looking.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{errors[-3000:]}")
    return output, seconds, most[0]


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    found = [pid]
    for number in found:
        found += parents.get(number, [])
    return found


def _proportional_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> None:
    """All sides in turn; prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=["lenet5", "cnn"], default="lenet5")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[OURS, *PROGRAMS], default=[OURS, *PROGRAMS])
    parser.add_argument("--out", type=Path, default=Path("docs/results/peers.json"))
    given = parser.parse_args()
    if "ENSEMBLE_DATA" not in os.environ:
        sys.exit("set ENSEMBLE_DATA to a folder with MNIST/raw")
    from ensemble.config.schema import DataConfig
    from ensemble.data import load_dataset, split_rows
    from ensemble.run.environment import describe_environment

    facts = describe_environment()
    section = DataConfig(name="mnist", root=os.environ["ENSEMBLE_DATA"], download=False)
    found: dict[str, dict[str, list[float]]] = {
        name: {"seconds": [], "error": [], "memory_mib": []} for name in given.only
    }
    with tempfile.TemporaryDirectory() as scratch:
        rows = split_rows(load_dataset(section).train_labels_N, 10, section, 0).train_rows
        np.save(whole := Path(scratch) / "rows.npy", rows)
        np.save(few := Path(scratch) / "few.npy", rows[:WARM_ROWS])
        for name in given.only:
            warm = ours(given, 0, f"{scratch}/warm", WARM_ROWS) if name == OURS else theirs(given, name, 0, few, 1)
            error_of(name, measured(warm)[0])
        for repeat in range(given.repeats):
            for name in given.only:
                command = (
                    ours(given, repeat, f"{scratch}/{repeat}", None)
                    if name == OURS
                    else theirs(given, name, repeat, whole, given.epochs)
                )
                output, seconds, memory = measured(command)
                for key, value in (("seconds", seconds), ("error", error_of(name, output)), ("memory_mib", memory)):
                    found[name][key].append(value)
                print(
                    f"repeat {repeat + 1}: {name}: {seconds:.1f} s, test error {found[name]['error'][-1]:.2%}, {memory:,.0f} MiB",
                    flush=True,
                )
    packages = facts["packages"]
    record = {
        "network": given.network, "members": given.members, "epochs": given.epochs, "sides": found,
        "environment": f"{facts['processor']}, {facts['cores']} cores, Python {facts['python']}, torch {packages['torch']}, Ray {packages['ray']}",
    }  # fmt: skip
    key = f"{given.members} {given.network}, {given.epochs} epochs"
    records = {**(json.loads(given.out.read_text()) if given.out.is_file() else {}), key: record}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(records, indent=1) + "\n")
    text = markdown(records)
    given.out.with_suffix(".md").write_text(text)
    print(text)


def ratios(record: dict[str, Any], name: str) -> list[float]:
    """A side's seconds over ours, run by run in the turns in which they were measured."""
    sides = record["sides"]
    return [there / here for there, here in zip(sides[name]["seconds"], sides[OURS]["seconds"], strict=True)]


def markdown(records: dict[str, Any]) -> str:
    """A table for each job."""
    lines = ["# Beside other ways to train the same ensemble", "", " ".join((__doc__ or "").split("\n\n")[2].split())]
    for key, record in records.items():
        repeats = len(record["sides"][OURS]["seconds"])
        lines += [
            "", f"## {key}", "", f"{record['environment']}; medians of {repeats}, in turn.", "",
            "| | seconds | over ours | range | test error % | memory, MiB |", "|---|---:|---:|---:|---:|---:|",
        ]  # fmt: skip
        for name, side in record["sides"].items():
            over = ratios(record, name)
            lines.append(
                f"| {name} | {statistics.median(side['seconds']):.1f} | {statistics.median(over):.2f} | {min(over):.2f}-{max(over):.2f} "
                f"| {100 * statistics.mean(side['error']):.2f} | {statistics.median(side['memory_mib']):,.0f} |"
            )
        best = min(
            (name for name in LIBRARIES if name in record["sides"]),
            key=lambda name: statistics.median(ratios(record, name)),
            default=None,
        )
        if best is not None:
            lines += [
                "",
                f"The quickest library is {best}: {statistics.median(ratios(record, best)):.2f} times our time.",
            ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
