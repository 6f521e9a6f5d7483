"""The GPU benchmark and the record's configuration, as far as a CPU can show that they work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import GOALS, table
from ensemble.config import load_config
from ensemble.models import build_model, num_parameters

ROOT = Path(__file__).resolve().parents[1]


def test_the_gpu_benchmark_runs_dry(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--out", str(tmp_path / "gpu.json")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["dry_run"] is True
    assert record["stack_against_one_by_one"]["ratio"] > 0
    assert record["hundred_seeds"]["members"] == 3
    assert record["at_a_time"]["ratio"] > 0
    assert set(record["cuda_graph"]) == {"K=1", "K=2", "K=1 mean test errors", "K=2 mean test errors"}
    assert {"ratio", "left_out"} & set(record["against_ensemble_pytorch"])
    assert "Not measured yet" in done.stdout  # figures of a dry run never stand in the table


def test_the_gpu_table_holds_what_was_measured_and_nothing_else() -> None:
    empty = [line for line in table(None).splitlines() if line.endswith("|  | |")]
    assert len(empty) == len(GOALS)
    record = {"gpu": "Some GPU", "environment": {"python": "3.12.1", "packages": {"torch": "2.11.0"}}}
    full = table({**record, "at_a_time": {"ratio": 3.5}, "hundred_seeds": {"seconds": 4.5}})
    assert "On one Some GPU; python 3.12.1, torch 2.11.0." in full
    assert "| >= 3 | 3.5 | yes |" in full
    assert "| <= 4 | 4.5 | no |" in full


def by_hand(kernel: int, channels: list[int], side: int) -> int:
    """Convolutions without bias, two numbers of batch norm per channel, and the last full connection."""
    convolutions = sum(kernel**2 * a * b for a, b in zip([1, *channels], channels, strict=False))
    return convolutions + 2 * sum(channels) + 10 * (side**2 * channels[-1] + 1)


def test_the_record_s_networks_have_the_size_computed_by_hand() -> None:
    groups = load_config(ROOT / "configs/record_mnist.yaml").experiment.groups
    sizes = {group.name: num_parameters(build_model(group.model, (1, 28, 28), 10)) for group in groups}
    assert sizes == {
        "m3": by_hand(3, list(range(32, 177, 16)), 8),
        "m5": by_hand(5, [32, 64, 96, 128, 160], 8),
        "m7": by_hand(7, [48, 96, 144, 192], 4),
    }


def test_a_few_steps_of_the_record(tmp_path: Path) -> None:
    """The whole way with one network of each kind, on a few images."""
    if "ENSEMBLE_DATA" not in os.environ:
        pytest.skip("ENSEMBLE_DATA names no folder with MNIST")
    words = ["data.max_train_rows=240", "training.epochs=1", "tracking.wandb.mode=disabled", f"output_dir={tmp_path}"]
    experiment = load_config(ROOT / "configs/record_mnist.yaml", words).experiment
    few = experiment.model_copy(
        update={"members": tuple(g.model_copy(update={"count": 1}) for g in experiment.members)}
    )
    from ensemble.executors.inline import InlineExecutor
    from ensemble.run import run_ensemble

    outcome = run_ensemble(few, lambda *_: InlineExecutor(), lambda _: [])
    assert [member.recipe for member in outcome.evaluation.members] == ["m3", "m5", "m7"]
