"""Runs on object storage: the copy is whole, another machine goes on from it, and two writers are noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ensemble.errors import ConfigError, StorageError
from ensemble.judging import find_run
from ensemble.storage import RunFolder
from ensemble.storage.remote import LEFT, local_root

CONFIG: dict[str, Any] = {"name": "run", "seed": 1}
PLAN = {"stack_sizes": {}}


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


def on_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, be another machine: one with another cache."""
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / name))


def test_the_copy_holds_what_the_manifest_lists_and_is_fetched_elsewhere(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine("one", tmp_path, monkeypatch)
    with RunFolder.open(address, "run", CONFIG, PLAN) as folder:
        folder.write("a.txt", b"first")
        folder.save_checkpoint("t", b"state 1")
        folder.save_checkpoint("t", b"state 2")
        folder.save_checkpoint("t", b"state 3")
    there = tmp_path / "bucket" / "run"
    listed = set(json.loads((there / "manifest.json").read_text())["files"])
    assert {str(p.relative_to(there)) for p in there.rglob("*") if p.is_file()} == listed | {"manifest.json"}
    assert len(listed) == 5  # configuration, plan, a.txt and two generations of the state
    on_machine("two", tmp_path, monkeypatch)
    with RunFolder.open(address, "run", CONFIG, {"stack_sizes": {"other": 1}}) as folder:
        assert folder.plan() == PLAN
        assert folder.load_checkpoint("t") == b"state 3"
        folder.write("b.txt", b"second")
    on_machine("one", tmp_path, monkeypatch)  # has an older state of its own
    assert RunFolder.read(find_run(f"{address}/run", Path("runs"))).read_bytes("b.txt") == b"second"


def test_what_was_written_here_and_not_copied_is_kept(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the local manifest and the copy: the next start here goes on from the local state."""
    on_machine("one", tmp_path, monkeypatch)
    with RunFolder.open(address, "run", CONFIG, PLAN) as folder:
        folder.write("a.txt", b"first")
        mirror, folder._mirror = folder._mirror, None
        folder.write("b.txt", b"not copied")
    assert mirror is not None
    assert not (tmp_path / "bucket" / "run" / "b.txt").exists()
    with RunFolder.open(address, "run", CONFIG, PLAN) as folder:
        assert folder.read_bytes("b.txt") == b"not copied"
        folder.write("c.txt", b"third")
    assert (tmp_path / "bucket" / "run" / "b.txt").read_bytes() == b"not copied"
    assert (local_root(address) / "run" / LEFT).is_file()


def test_a_second_writer_is_noticed(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine("one", tmp_path, monkeypatch)
    with RunFolder.open(address, "run", CONFIG, PLAN) as first:
        first.write("a.txt", b"first")
        on_machine("two", tmp_path, monkeypatch)
        with RunFolder.open(address, "run", CONFIG, PLAN) as second:
            second.write("a.txt", b"second")
        with pytest.raises(StorageError, match=r"bucket/run: another process has written to this run"):
            first.write("c.txt", b"late")


def test_damage_and_unknown_addresses_are_named(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine("one", tmp_path, monkeypatch)
    with RunFolder.open(address, "run", CONFIG, PLAN) as folder:
        folder.write("a.txt", b"first")
    (tmp_path / "bucket" / "run" / "a.txt").write_bytes(b"worst")
    on_machine("two", tmp_path, monkeypatch)
    with pytest.raises(StorageError, match=r"bucket/run/a\.txt: damaged; restore it"):
        RunFolder.open(address, "run", CONFIG, PLAN)
    with pytest.raises(ConfigError, match=r"output_dir: nosuch://bucket: .*expected a path, or an address"):
        RunFolder.open("nosuch://bucket", "run", CONFIG, PLAN)


def test_a_killed_run_is_finished_on_another_machine(tmp_path: Path) -> None:
    """The real command, killed in mid-member; the machine that takes over has only the address."""
    (tmp_path / "c.yaml").write_text(json.dumps({
        "name": "far", "seed": 2, "num_members": 2, "method": {"name": "bagging"}, "data": {"name": "digits"},
        "model": {"name": "mlp", "widths": [64]}, "training": {"epochs": 60},
        "compute": {"executor": "inline", "device": "cpu", "stack_size": 1, "checkpoint_every_s": 0.05},
        "tracking": {"wandb": {"mode": "disabled"}},
    }))  # fmt: skip

    def command(place: str) -> list[str]:
        return [sys.executable, "-m", "ensemble.cli", "train", str(tmp_path / "c.yaml"), f"output_dir={place}", "-q"]

    def machine(name: str) -> dict[str, str]:
        return {**os.environ, "ENSEMBLE_CACHE": str(tmp_path / name), "OMP_NUM_THREADS": "1"}

    bucket = tmp_path / "bucket"
    first = subprocess.Popen(command(f"file://{bucket}"), env=machine("one"), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(bucket.glob("far/checkpoints/*")) and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    done = subprocess.run(
        command(f"file://{bucket}"), env=machine("two"), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    calm = subprocess.run(
        command(str(tmp_path / "calm")), env=machine("three"), capture_output=True, timeout=240, check=False
    )
    assert calm.returncode == 0

    def digests(path: Path) -> dict[str, str]:
        files = json.loads((path / "manifest.json").read_text())["files"]
        return {k: v["sha256"] for k, v in files.items() if k.endswith((".safetensors", "votes.npz"))}

    assert digests(bucket / "far") == digests(tmp_path / "calm" / "far")
    assert len(digests(bucket / "far")) == 4
    shown = subprocess.run(
        [sys.executable, "-m", "ensemble.cli", "evaluate", f"file://{bucket}/far"],
        env=machine("four"), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "soft vote *" in shown.stdout, shown.stderr
