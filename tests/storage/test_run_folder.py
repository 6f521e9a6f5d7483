"""The run folder: whole or not there, checked by digest, one writer, one configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.errors import ConfigError, StorageError
from ensemble.storage import Labels, RunFolder
from ensemble.storage.atomic import npz_bytes, write_bytes
from ensemble.storage.member_files import parse_weights
from ensemble.types import EpochRecord, MemberResult, Votes

CONFIG: dict[str, Any] = {
    "name": "run", "seed": 1, "output_dir": "runs", "num_members": 2, "training": {"lr": 0.1, "betas": None},
    "compute": {"executor": "ray", "threads_per_task": 1}, "members": [],
}  # fmt: skip
PLAN = {"stack_sizes": {"lenet5": 2}, "device": "cpu", "threads_per_task": 1}


def member(index: int) -> MemberResult:
    rng = np.random.default_rng(index)
    probs = rng.random((5, 3), dtype=np.float32)
    probs /= probs.sum(axis=1, keepdims=True)
    return MemberResult(
        index, "lenet5", Votes(probs, probs[:4], np.array([7, 9]), probs[:2]),
        {"0.weight": rng.random((2, 3), dtype=np.float32), "steps": np.array(3)},
        (EpochRecord(1, 0.1, 0.30000000000000004, 0.25, 1e-3, 2.0), EpochRecord(2, 0.05, 0.2, 0.2, 1e-4, 2.0)),
        6, 4.0, 2, 2,
    )  # fmt: skip


def opened(root: Path, **changes: Any) -> RunFolder:
    return RunFolder.open(root, "run", {**CONFIG, **changes}, PLAN)


def test_members_come_back_to_the_bit(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.save_members([member(0), member(1)])
    stored = RunFolder.read(tmp_path / "run")
    assert stored.finished() == {0, 1}
    back, original = stored.load_member(1, weights=True), member(1)
    assert back.history == original.history
    assert (back.recipe, back.num_parameters, back.kept_epoch, back.stack_size) == ("lenet5", 6, 2, 2)
    for name in Votes.__slots__:
        np.testing.assert_array_equal(getattr(back.votes, name), getattr(original.votes, name))
    for name, tensor in original.weights.items():
        np.testing.assert_array_equal(back.weights[name], tensor)
    assert stored.config() == CONFIG
    assert stored.plan() == PLAN


def test_the_folder_can_be_moved(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.save_members([member(0)])
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert RunFolder.read(moved).load_member(0).num_parameters == 6


def test_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    for root in ("a", "b"):
        with opened(tmp_path / root) as folder:
            folder.save_members([member(0)])
    first, second = (RunFolder.read(tmp_path / root / "run") for root in ("a", "b"))
    assert all(first.read_bytes(name) == second.read_bytes(name) for name in first.files())


def test_same_run_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.save_members([member(0)])
    with opened(tmp_path, compute={"executor": "inline", "threads_per_task": 1}, output_dir="x") as folder:
        assert folder.finished() == {0}
    with pytest.raises(ConfigError, match=r"training\.lr: 0\.1 in the folder, 0\.2 now"):
        opened(tmp_path, training={"lr": 0.2, "betas": None})
    with pytest.raises(ConfigError, match="threads_per_task"):
        opened(tmp_path, compute={"executor": "ray", "threads_per_task": 2})


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
        opened(tmp_path)
    opened(tmp_path).close()


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from ensemble.storage import RunFolder\n"
        f"RunFolder.open(Path({str(tmp_path)!r}), 'run', {CONFIG!r}, {PLAN!r})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    opened(tmp_path).close()


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/abs"])
def test_names_cannot_leave_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="outside"):
        RunFolder.open(tmp_path / "root", name, CONFIG, PLAN)
    assert not (tmp_path / "out").exists()


def test_symbolic_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "root" / "run").symlink_to(tmp_path / "out")
    with pytest.raises(ConfigError, match="outside"):
        RunFolder.open(tmp_path / "root", "run", CONFIG, PLAN)


def damage(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 0x10
    path.write_bytes(bytes(content))


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.save_members([member(0)])
        files = folder.files()
    rng = np.random.default_rng(0)
    for name in files * 8:
        path = tmp_path / "run" / name
        original = path.read_bytes()
        damage(path, int(rng.integers(len(original))))
        with pytest.raises(StorageError, match="damaged"):
            RunFolder.read(tmp_path / "run").read_bytes(name)
        path.write_bytes(original[: len(original) // 2])
        with pytest.raises(StorageError, match="damaged"):
            RunFolder.read(tmp_path / "run").read_bytes(name)
        path.write_bytes(original)


def test_missing_file_and_missing_run(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.save_members([member(0)])
    (tmp_path / "run/members/0000/votes.npz").unlink()
    with pytest.raises(StorageError, match=r"votes\.npz: listed in manifest\.json but not readable"):
        RunFolder.read(tmp_path / "run").load_member(0)
    with pytest.raises(StorageError, match="no run here"):
        RunFolder.read(tmp_path / "nothing")


def test_what_the_manifest_does_not_list_does_not_count(tmp_path: Path) -> None:
    """A member whose files reached the disk before its manifest did is trained again, not trusted."""
    with opened(tmp_path) as folder:
        folder.save_members([member(0)])
        manifest = tmp_path / "run/manifest.json"
        before = manifest.read_bytes()
        folder.save_members([member(1)])
    manifest.write_bytes(before)
    assert RunFolder.read(tmp_path / "run").finished() == {0}


def test_leftovers_are_swept_and_failed_writes_keep_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with opened(tmp_path):
        pass
    leftover = tmp_path / "run/members/x.123.writing"
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"half")
    with opened(tmp_path):
        assert not leftover.exists()


def test_pickles_are_never_read(tmp_path: Path) -> None:
    evil = npz_bytes({"a": np.arange(3)}).replace(b"<i8", b"|O ")
    with opened(tmp_path) as folder:
        folder.write("labels.npz", evil)
        with pytest.raises(StorageError, match="plain arrays"):
            folder.load_labels()
        folder.save_members([member(0)])
        with pytest.raises(StorageError, match="not a safetensors file"):
            parse_weights(b"\x80\x04pickle", tmp_path)


def test_labels_may_not_change_under_a_run(tmp_path: Path) -> None:
    labels = Labels(np.arange(3), np.arange(3, 5), np.arange(5), np.arange(2))
    with opened(tmp_path) as folder:
        folder.save_labels(labels)
        folder.save_labels(labels)
        np.testing.assert_array_equal(folder.load_labels().train_labels_N, np.arange(5))
        with pytest.raises(StorageError, match="not those this run began with"):
            folder.save_labels(Labels(np.arange(3), np.arange(3, 5), np.zeros(5, np.int64), np.arange(2)))
