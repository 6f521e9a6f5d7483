"""Whether this checkout trains and judges to the last bit as another commit does, on this machine.

    python -m benchmarks.same_results COMMIT [--only NAME]...

Bits differ between processors and versions of torch, so stored digests would only hold where they were made: both commits
train here, one small run of every method and executor each, and the run folders are compared file by file. What differs from
run to run by its nature (times, paths, the program's version) is left out. Ends with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MLP: dict[str, Any] = {"name": "mlp", "widths": [16]}
CNN: dict[str, Any] = {"name": "cnn", "widths": [4], "fully_connected": [8], "batch_norm": True, "dropout": 0.2}
SMALL: dict[str, Any] = {
    "seed": 5, "num_members": 3, "data": {"name": "digits", "max_train_rows": 300}, "model": MLP,
    "training": {"epochs": 2, "batch_size": 32, "lr": 0.01},
    "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
MOVES = {"rotation_degrees": 10.0, "shift": 0.1}
RUNS: dict[str, dict[str, Any]] = {
    "deep_ensemble": {"model": {"name": "lenet5"}, "training": {"epochs": 2, "augmentation": MOVES}},
    "bagging": {"method": {"name": "bagging"}, "model": CNN},
    "bagging_groups": {
        "method": {"name": "bagging"}, "model": None, "num_members": None,
        "members": [{"count": 2, "model": MLP}, {"count": 1, "model": CNN, "training": {"epochs": 1, "optimizer": "sgd"}}],
    },
    "adaboost": {"method": {"name": "adaboost"}, "num_members": 8},
    "filter_boosting": {
        "method": {"name": "filter_boosting"}, "training": {"epochs": 1, "augmentation": MOVES},
        "data": {"name": "digits"},
    },
    "gradient_boosting": {"method": {"name": "gradient_boosting"}, "data": {"name": "digits"}, "training": {"epochs": 8}},
    "snapshot": {"method": {"name": "snapshot"}, "training": {"epochs": 1, "schedule": "cosine"}},
    "fast_geometric": {"method": {"name": "fast_geometric"}},
    "weights_kept": {
        "training": {"ema_decay": 0.9, "keep": "best_validation", "schedule": "one_cycle", "gradient_clip_norm": 1.0},
    },
    "layers": {"model": {"name": "layers", "layers": [
        {"kind": "conv", "channels": 6, "activation": "relu"}, {"kind": "max_pool"}, {"kind": "linear", "width": "classes"},
    ]}},
    "resnet": {"model": {"name": "resnet18", "stem": "small"}, "num_members": 1, "data": {"name": "digits", "max_train_rows": 60}},
    "ray": {"method": {"name": "bagging"}, "compute": {"executor": "ray", "device": "cpu", "slots": 2, "stack_size": 1}},
    "processes": {"method": {"name": "bagging"}, "compute": {"executor": "processes", "device": "cpu", "slots": 2, "stack_size": 1}},
    "launched": {"method": {"name": "bagging"}, "compute": {"executor": "accelerate", "device": "cpu", "stack_size": 1}},
    "launched_data": {"compute": {"executor": "accelerate", "device": "cpu", "parallel": "data"}},
}  # fmt: skip
LEFT_OUT = ("events.jsonl", "environment.json", "manifest.json", "report.html", "README.md", "launch.key")
TIMES = ("seconds", "_s", "wall", "time", "files_sha256", "throughput", "per_second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--only", action="append", choices=RUNS, default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(home / "there"), options.commit], check=True)
        try:
            differ = [run for run in options.only or RUNS if not compare(run, home)]
        finally:
            subprocess.run([*git, "remove", "--force", str(home / "there")], check=True)
    print(f"{len(differ)} of {len(options.only or RUNS)} runs differ")
    sys.exit(1 if differ else 0)


def compare(name: str, home: Path) -> bool:
    """Train it by both; prints a line, the files that differ, and the first values that do in those of JSON."""
    here, there = (train(name, tree, home) for tree in (ROOT, home / "there"))
    ours, theirs = digests(here), digests(there)
    differ = sorted(file for file in ours | theirs if ours.get(file) != theirs.get(file))
    words = [" ".join([file, *values_that_differ(here / file, there / file)]) for file in differ]
    print(f"{name:<18} {len(ours):>3} files  {'differ: ' + ', '.join(words) if differ else 'equal'}", flush=True)
    return not differ


def values_that_differ(here: Path, there: Path) -> list[str]:
    """The first three keys under which two JSON files differ, in parentheses; nothing of other files."""
    if here.suffix != ".json" or not (here.exists() and there.exists()):
        return []
    ours, theirs = (dict(leaves(without_times(json.loads(path.read_text())))) for path in (here, there))
    keys = sorted(key for key in ours | theirs if key not in ours or key not in theirs or ours[key] != theirs[key])
    return [f"({' '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"]


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a JSON document that holds no other, with its key in dots."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield key, value
    else:
        for name, part in inner:
            yield from leaves(part, f"{key}.{name}" if key else str(name))


def train(name: str, tree: Path, home: Path) -> Path:
    """The run folder, made by the code of that tree."""
    place = home / f"{name}-{'here' if tree == ROOT else 'there'}"
    place.mkdir()
    values = {"name": "small", "method": {"name": "deep_ensemble"}, **SMALL}
    if "baseline" in (tree / "ensemble/config/schema.py").read_text():  # earlier trees do not know the key
        values["baseline"] = False
    for key, value in RUNS[name].items():
        values[key] = {**values[key], **value} if key in ("training", "compute") else value
    values = {key: value for key, value in values.items() if value is not None}
    (place / "small.yaml").write_text(json.dumps(values))
    words = ["-m", "ensemble", "train", "small.yaml", "-q"]
    if values["compute"]["executor"] == "accelerate":
        # By the name that earlier trees have too.
        words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "launch.accelerate_run", "small.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} in {tree} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return place / "runs" / "small"


def digests(run: Path) -> dict[str, str]:
    """Of every file of a run folder whose content is the run's own."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in LEFT_OUT)
    found = {str(path.relative_to(run)): content(path) for path in files}
    return {name: hashlib.sha256(text).hexdigest() for name, text in found.items() if text is not None}


def content(path: Path) -> bytes | None:
    """What is compared of a file; None for pictures, which hold no result that is not elsewhere."""
    if path.suffix in (".png", ".svg", ".lock"):
        return None
    if path.suffix == ".json":
        return json.dumps(without_times(json.loads(path.read_text())), sort_keys=True).encode()
    if path.suffix == ".csv":
        return repr(list(timeless_columns(path.read_text().splitlines()))).encode()
    return path.read_bytes()


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if not is_time(key)}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def is_time(key: str) -> bool:
    return any(key.endswith(word) or (word != "_s" and word in key) for word in TIMES)


def timeless_columns(lines: list[str]) -> Iterator[list[str]]:
    kept = [i for i, title in enumerate(lines[0].split(",")) if not is_time(title)]
    for line in lines:
        cells = line.split(",")
        yield [cells[i] for i in kept if i < len(cells)]


if __name__ == "__main__":
    main()
