"""Every call that a small run makes to its disk fails or is the last before a kill: the same command then ends with the same bits.

The suite takes a sample of calls for each kind of fault; `make test-all` takes every call.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from ensemble.config import parse_experiment
from ensemble.errors import StorageError
from ensemble.executors import InlineExecutor
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.storage import manifest_log
from tests.damage.disk import ERRORS, Disk, Killed, attach

CONFIG: dict[str, Any] = {
    "name": "run", "seed": 3, "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "model": {"name": "mlp", "widths": (4,)},
    "data": {"name": "digits"}, "training": {"epochs": 1, "lr": 3e-3, "batch_size": 256},
    "compute": {"stack_size": 1, "executor": "inline", "device": "cpu", "checkpoint_every_s": 0.01},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
FAULTS = {
    "killed": (None, True), "full": (errno.ENOSPC, False), "full once": (errno.ENOSPC, True),
    "broken": (errno.EIO, False), "broken once": (errno.EIO, True), "read-only": (errno.EROFS, False),
    "over quota": (errno.EDQUOT, False), "over quota once": (errno.EDQUOT, True), "read-only once": (errno.EROFS, True),
}  # fmt: skip
SAMPLED = 5  # calls per kind of fault


def run(root: Path) -> RunOutcome:
    return run_ensemble(
        parse_experiment({**CONFIG, "output_dir": str(root)}), lambda *_: InlineExecutor(), lambda _: []
    )


def result(root: Path) -> dict[str, Any]:
    """What must not depend on what happened on the way: bits of members, votes and images, and the judgement's errors."""
    folder = root / "run"
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    judgement = json.loads((folder / "evaluation.json").read_text())
    bits = {name: facts["sha256"] for name, facts in listed.items() if name.endswith((".safetensors", ".npz"))}
    return {**bits, "errors": [row["test_error"] for row in judgement["leaderboard"]]}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What an undisturbed run leaves, and how many calls it makes."""
    root = tmp_path_factory.mktemp("calm")
    disk = Disk(root)
    with pytest.MonkeyPatch.context() as patch:
        attach(disk, patch)
        run(root)
    assert len(disk.calls) > 150, "the calls are not counted"
    return result(root), len(disk.calls)


def disturb(root: Path, at: int, error: int | None, once: bool) -> str:
    """A run with a fault at one call. Whatever ends it is an error of storage that names a file, or the kill."""
    disk = Disk(root, at, error, once)
    with pytest.MonkeyPatch.context() as patch:
        attach(disk, patch)
        try:
            run(root)
        except StorageError as error_of_storage:
            stopped = str(error_of_storage)
        except Killed:
            stopped = str(root) if error is None else "killed by an error"
        else:
            stopped = str(root)
    assert str(root) in stopped, f"no path in: {stopped}"
    return disk.calls[at] if at < len(disk.calls) else ""


def check_one(root: Path, calm: dict[str, Any], at: int, fault: str) -> None:
    call = disturb(root, at, *FAULTS[fault])
    run(root)
    assert result(root) == calm, f"{fault} at call {at}: {call}"


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_the_same_command_ends_with_the_same_bits(
    calm: tuple[dict[str, Any], int], tmp_path: Path, fault: str
) -> None:
    expected, calls = calm
    shift = list(FAULTS).index(fault) * 7
    for number in range(SAMPLED):
        at = (number * calls // SAMPLED + shift) % calls
        check_one(tmp_path / str(at), expected, at, fault)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_where_the_list_of_files_is_long(
    calm: tuple[dict[str, Any], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """As for thousands of members: changes of the list are lines beside the manifest."""
    monkeypatch.setattr(manifest_log, "LONG_BYTES", -1)
    monkeypatch.setattr(manifest_log, "LOG_SHARE", 1e9)
    expected, _ = calm
    disk = Disk(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        attach(disk, patch)
        run(tmp_path / "undisturbed")
    assert result(tmp_path / "undisturbed") == expected
    appended = [at for at, call in enumerate(disk.calls) if ".log" in call]
    assert len(appended) > 30
    for at in appended[list(FAULTS).index(fault) % 7 :: len(appended) // SAMPLED]:
        check_one(tmp_path / str(at), expected, at, fault)
        assert not list((tmp_path / str(at)).rglob("manifest.*.log"))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_at_any_call(calm: tuple[dict[str, Any], int], tmp_path: Path, fault: str) -> None:
    expected, calls = calm
    for at in range(calls):
        check_one(tmp_path / str(at), expected, at, fault)


def test_every_error_of_a_disk_is_tried() -> None:
    assert set(ERRORS) == {error for error, _ in FAULTS.values()} - {None}
