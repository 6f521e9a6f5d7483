"""A small finished run, trained once, and copies of it to damage; commands are called in this process (`commands.py`)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.damage.commands import train_in

CONFIG: dict[str, Any] = {
    "name": "d", "num_members": 2, "seed": 1, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": [8]}, "training": {"epochs": 1, "batch_size": 64, "lr": 0.01},
    "compute": {"executor": "inline", "device": "cpu", "stack_size": 1}, "tracking": {"wandb": {"mode": "disabled"}},
    "output_dir": "runs",
}  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the run lies as runs/d, beside d.yaml."""
    return train_in(tmp_path_factory.mktemp("trained"), CONFIG)


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, in the working directory."""
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return Path("runs/d")


@pytest.fixture
def relist() -> Callable[[Path, str], None]:
    """Enters a changed file into the manifest, as somebody who edits a run by hand would."""

    def enter(folder: Path, name: str) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        content = (folder / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return enter
