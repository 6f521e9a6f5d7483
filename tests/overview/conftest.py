"""A small finished run, trained once, and copies of it; and one that goes on in another process."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded
from tests.damage.commands import train_in

CONFIG: dict[str, Any] = {
    "name": "one", "num_members": 4, "seed": 1, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": [8]}, "training": {"epochs": 3, "batch_size": 64, "lr": 0.01},
    "compute": {"executor": "inline", "device": "cpu", "stack_size": 2, "checkpoint_every_s": 0.05},
    "tracking": {"wandb": {"mode": "disabled"}}, "output_dir": "runs",
}  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which runs/one lies, beside one.yaml."""
    return train_in(tmp_path_factory.mktemp("overview"), CONFIG)


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a copy of the run in it."""
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path / "home"


Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def elsewhere(home: Path) -> Iterator[Begin]:
    """Starts `ensemble train one.yaml WORDS...` in a process of its own and waits until its log holds so many epochs of a member."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, *words: str, epochs: int = 2) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ensemble", "train", "one.yaml", f"name={name}", *words, "-q"]
        log = home / "runs" / name / "events.jsonl"
        before = log.read_text().count("EpochFinished") if log.exists() else 0
        process = preloaded.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        until = time.monotonic() + 120
        while not log.exists() or log.read_text().count("EpochFinished") < before + 2 * epochs:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, "no epoch within two minutes"
            time.sleep(0.05)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
