"""The GPU benchmark without a GPU: a dry run of every part, and a runner that no part can bring down."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import GOALS, table
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.cases import Cases, read_cases
from benchmarks.gpu.kit import unpack
from benchmarks.gpu.parts import NAMES, select
from benchmarks.gpu.prepare import _pack_images
from benchmarks.gpu.report import markdown, merged

ROOT = Path(__file__).resolve().parents[1]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu", *words]


# By part: a case that it has in a dry run, and a figure in it.
FIGURES = {
    "facts": ("copy", "tb_per_s"),
    "own_tests": ("all", "seconds"),
    "steps": ("K=64 graph", "ms_per_member_epoch"),
    "convolutions": ("small K=3 float32", "tflop_per_s"),
    "vmap": ("vmap eager", "ms_per_member_epoch"),
    "mapped": ("K=2", "ms_per_member_epoch"),
    "resnet18": ("plain eager", "s_per_epoch"),
    "ensemble_pytorch": ("ours K=3", "ms_per_member_epoch"),
    "kernels": ("64 LeNet-5, eager", "device_ms"),
    "augmentation": ("rotation and shift, eager", "ms_per_member_epoch"),
    "memory": ("LeNet-5 K=64", "images"),
    "streamed": ("LeNet-5 K=16, streamed", "ms_per_member_epoch"),
    "record": ("all of it, float32", "hours"),
    "whole_process": ("ours, 10 epochs", "seconds"),
    "many": ("2 processes", "s_per_epoch"),
}


def test_every_part_has_a_dry_run() -> None:
    assert tuple(FIGURES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_part_runs_dry(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in this process, which has imported torch already. MNIST is neither needed nor asked for."""
    monkeypatch.delenv("ENSEMBLE_DATA", raising=False)
    cases = Cases(tmp_path / "cases.jsonl")
    importlib.import_module(f"benchmarks.gpu.{name}").run(Bench("cpu", small=True), cases)
    found = dict(read_cases((tmp_path / "cases.jsonl").read_text()))
    assert cases.failed == 0, found
    case, key = FIGURES[name]
    assert found[case][key] > 0
    if name == "convolutions":  # every variant is the same function
        assert set(found[case]["ms"]) >= {"channels_last", "contiguous"}
        assert max(found[case]["relative_error"].values()) < 1e-5
    if name == "record":
        assert found["short run, one member of each kind"]["members"] == 3


def test_a_dry_run_from_the_command_line(tmp_path: Path) -> None:
    words = command("--dry-run", "--parts", "augmentation,facts", "--out", str(tmp_path / "gpu.json"))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: found["state"] for name, found in record["parts"].items()} == {
        "facts": "passed", "augmentation": "passed",
    }  # fmt: skip
    assert record["parts"]["augmentation"]["cases"]["none, graph"]["ms_per_member_epoch"] > 0
    assert "Not measured yet" in done.stdout  # figures of a dry run never stand in the table
    assert "its figures mean nothing" in (tmp_path / "gpu.md").read_text()
    assert "==== augmentation" in (tmp_path / "gpu.log").read_text()


def test_without_a_gpu_it_says_so_once(tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    words = command("--parts", "facts,steps,many", "--out", str(tmp_path / "gpu.json"))
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {name: found["state"] for name, found in parts.items()} == {
        "facts": "failed", "steps": "not run", "many": "not run",
    }  # fmt: skip
    assert parts["steps"]["reason"] == "torch sees no GPU"
    assert "--dry-run" in parts["facts"]["printed"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--parts", "steps,speed"], "unknown parts: speed; expected some of facts, own_tests"),
        (["--device", "cpu"], "--device=cpu needs --dry-run"),
    ],
)
def test_mistakes_in_the_command(words: list[str], message: str) -> None:
    done = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert message in done.stderr


def record_of(**parts: dict[str, dict[str, float]]) -> dict[str, Any]:
    """A record with these cases, measured on a card."""
    card = {
        "name": "Some GPU",
        "driver": "580.1",
        "python": "3.12.1",
        "torch": "2.11.0",
        "cuda": "13.0",
        "cudnn": 91900,
        "triton": "3.6.0",
    }
    found = {"facts": {"card": card}, **parts}
    return {"dry_run": False, "commit": "abc", "parts": {
        name: {"state": "passed", "about": "this and that", "cases": cases} for name, cases in found.items()
    }}  # fmt: skip


def test_the_table_holds_what_was_measured_and_nothing_else() -> None:
    empty = [line for line in table(None).splitlines() if line.endswith("|  | |")]
    assert len(empty) == len(GOALS)
    record = record_of(
        steps={"K=64 graph": {"ms_per_member_epoch": 12.0}, "K=64 graph rows": {"ms_per_member_epoch": 7.0},
               "K=64 tf32 graph": {"ms_per_member_epoch": 1.0}, "K=1 graph": {"ms_per_member_epoch": 144.0}},
        vmap={"ours": {"ms_per_member_epoch": 10.0}, "vmap eager": {"ms_per_member_epoch": 40.0},
              "vmap graph": {"ms_per_member_epoch": 15.0}},
    )  # fmt: skip
    full = table(record)
    assert "On one Some GPU, driver 580.1, python 3.12.1, torch 2.11.0, cuda 13.0, cudnn 91900, triton 3.6.0." in full
    assert "| <= 15 | 12 | yes |" in full
    assert "| <= 6 | 7 | no |" in full  # in float32 only, by the quickest variant
    assert "| >= 12 | 12 | yes |" in full
    assert "| >= 2 | 1.5 | no |" in full  # over vmap at its quickest
    assert sum(line.endswith("|  | |") for line in full.splitlines()) == len(GOALS) - 4
    assert "- **K=64 graph rows**: ms_per_member_epoch 7" in markdown(record)
    assert table({**record, "dry_run": True}) == table(None)
    record["parts"]["steps"]["cases"]["K=64 graph"]["error"] = "RuntimeError: mean test error 90 %"
    assert "| <= 15 |  | |" in table(record)  # quick and wrong is no figure


def test_results_of_several_calls_make_one_table() -> None:
    first = record_of(steps={"K=64 graph": {"ms_per_member_epoch": 20.0}})
    first["parts"]["many"] = {"state": "failed", "cases": {}}
    second = record_of(many={"100 members": {"seconds": 3.0}})
    second["parts"]["steps"] = {"state": "not run", "cases": {}}
    together = table(merged([first, second]))
    assert "| <= 15 | 20 | no |" in together
    assert "| <= 4 | 3 | yes |" in together
    second["parts"]["facts"]["cases"]["card"]["name"] = "Another GPU"
    with pytest.raises(ValueError, match=r"different machines.*Some GPU.*Another GPU"):
        merged([first, second])


def test_the_parts_in_order_of_value() -> None:
    options = {"device": "cuda", "small": False, "full_peer": False, "full_record": None}
    assert [one.name for one in select(None, options)] == list(NAMES)
    assert [one.name for one in select(["many", "facts"], options)] == ["facts", "many"]
    assert select(None, {**options, "full_record": "runs"})[-1].name == "full_record"


def test_a_kit_is_installed_without_a_network(tmp_path: Path) -> None:
    """Wheels into a folder of their own on the path, images unpacked; nothing is written into the environment."""
    kit = tmp_path / "kit"
    (kit / "wheels").mkdir(parents=True)
    with zipfile.ZipFile(kit / "wheels/carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried/__init__.py", "ANSWER = 42\n")
        wheel.writestr("carried-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
        wheel.writestr("carried-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carried-1.0.dist-info/RECORD", "")
    raw = tmp_path / "raw"
    raw.mkdir()
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    for name in names:
        (raw / name).write_bytes(name.encode())
    _pack_images(raw, kit / "MNIST/raw")
    assert gzip.decompress((kit / f"MNIST/raw/{names[0]}.gz").read_bytes()) == names[0].encode()
    found = unpack(kit, tmp_path / "scratch", "elsewhere")
    assert found["PYTHONPATH"] == os.pathsep.join([str(tmp_path / "scratch/site"), "elsewhere"])
    for name in names:
        assert (Path(found["ENSEMBLE_DATA"]) / "MNIST/raw" / name).read_bytes() == name.encode()
    shown = subprocess.run(
        [sys.executable, "-c", "import carried; print(carried.ANSWER)"],
        env={**os.environ, **found}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert shown.stdout == "42\n"
