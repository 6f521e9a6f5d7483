"""The command that fills the planner's table of graphics cards, as far as a CPU can show that it works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.tune_gpu import store
from ensemble.training.layers import CONVOLUTION_WAYS

ROOT = Path(__file__).resolve().parents[1]


def test_a_dry_run_fills_a_table_beside_what_is_there(tmp_path: Path) -> None:
    table = tmp_path / "cards.json"
    table.write_text(json.dumps({"Some Card": {"memory_gib": 80}}))
    words = ["--dry-run", "--kinds", "lenet,mlp", "--precisions", "float32", "--out", str(table)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tune_gpu", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(table.read_text())
    assert found["Some Card"] == {"memory_gib": 80}
    entry = found["dry run"]
    assert {"memory_gib", "torch", "date"} < set(entry)
    assert set(entry["networks"]) == {"lenet float32", "mlp float32"}
    for network in entry["networks"].values():
        assert set(network["images_per_s"]) == {"1", "2"}
        assert min(network["images_per_s"].values()) > 0
    layers = [case["layer"] for case in entry["convolutions"]]
    assert layers == ["1x28x28 to 6 by 5x5, padding (2, 2)", "6x14x14 to 16 by 5x5"]
    for case in entry["convolutions"]:
        assert {"channels_last", "windows", "rows"} < set(case["ms"]) < set(CONVOLUTION_WAYS)
        assert case["fastest"] == min(case["ms"], key=lambda way: case["ms"][way])


def test_a_new_measurement_takes_the_place_of_an_older_one() -> None:
    entry = {"networks": {}, "convolutions": []}
    case = {"precision": "bf16", "members": 8, "batch_size": 128, "layer": "a", "fastest": "rows", "ms": {"rows": 1.0}}
    for one in (case, {**case, "layer": "b"}, {**case, "fastest": "windows"}):
        store(entry, "convolutions:lenet:bf16", one)
    assert [(one["layer"], one["fastest"]) for one in entry["convolutions"]] == [("b", "rows"), ("a", "windows")]
    for speed in (1.0, 2.0):
        store(
            entry, "network:resnet18:bf16", {"members": 4, "batch_size": 128, "images_per_s": speed, "peak_bytes": 3.0}
        )
    wanted = {"images_per_s": {"4": 2.0}, "peak_bytes": {"4": 3.0}, "batch_size": 128}
    assert entry["networks"] == {"resnet18 small bf16": wanted}
