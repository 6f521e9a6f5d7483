"""Messages between ranks: any size, few copies, and what a stranger writes into the store is never unpickled."""

from __future__ import annotations

import os
import pickle
import stat
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.errors import ComputeError
from ensemble.executors.packed import pack
from ensemble.executors.sealed import PART_BYTES, launch_secret, seal, unseal
from ensemble.types import Checkpoint, MemberSpec, Task

SECRET = b"secret"


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def opened(key: str, parts: Mapping[int, bytes], secret: bytes = SECRET) -> Any:
    return unseal(key, parts.__getitem__, secret)


def there_and_back(value: Any) -> Any:
    return opened("key", dict(seal("key", value, SECRET)))


def test_what_was_sealed_comes_back() -> None:
    assert there_and_back({"a": (1, 2)}) == {"a": (1, 2)}


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 500, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 5_000_000])
def test_large_messages_come_in_parts_and_the_first_part_last(size: int) -> None:
    array = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    value = {"array": array, "bytes": array.tobytes(), "text": "x" * size}
    sealed = list(seal("key", value, SECRET))
    assert [number for number, _ in sealed] == [*range(1, len(sealed)), 0]
    assert all(len(part) <= PART_BYTES + 1000 for _, part in sealed)
    found = opened("key", dict(sealed))
    np.testing.assert_array_equal(found["array"], array)
    assert (found["bytes"], found["text"]) == (value["bytes"], value["text"])


def test_arrays_come_back_as_they_were() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.integers(0, 256, (500, 1, 28, 28), np.uint8),
        "rows": rng.integers(0, 54_000, 54_000),
        "far": rng.integers(0, 1 << 40, 54_000),
        "negative": rng.integers(-(1 << 31), 1 << 31, 54_000),
        "beyond": np.array([1 << 31] * 54_000),
        "fortran": np.asfortranarray(rng.integers(0, 9, (300, 200))),
        "strided": rng.integers(0, 9, 54_000)[::2],
        "small": np.arange(3),
        "empty": np.empty((0, 10), np.int64),
        "floats": rng.random((200, 10), np.float32),
        "scalar": np.array(7),
        "read-only": rng.integers(0, 9, 54_000),
    }
    arrays["read-only"].flags.writeable = False
    for name, found in there_and_back(arrays).items():
        expected = arrays[name]
        assert (found.dtype, found.shape, found.flags.writeable) == (
            expected.dtype, expected.shape, expected.flags.writeable
        ), name  # fmt: skip
        np.testing.assert_array_equal(found, expected)


def test_rows_are_sent_in_half_the_bytes() -> None:
    members = tuple(MemberSpec(i, "r", np.arange(54_000) + i) for i in range(4))
    sent = sum(len(part) for _, part in seal("task", Task("t", "r", members), SECRET))
    assert sent < 4 * 54_000 * 4 + 2_000
    alike = np.arange(54_000)  # members of a deep ensemble have the same rows: sent once
    sent = sum(
        len(part)
        for _, part in seal("task", Task("t", "r", tuple(MemberSpec(i, "r", alike) for i in range(4))), SECRET)
    )
    assert sent < 54_000 * 4 + 2_000


def test_neither_arrays_nor_checkpoints_are_copied_whole_to_be_sent() -> None:
    value = [np.zeros(30_000_000, np.uint8), Checkpoint("t", 0, 0, bytes(30_000_000))]
    tracemalloc.start()
    try:
        sent = sum(len(part) for _, part in seal("key", value, SECRET))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent > 60_000_000
    assert peak < 10 * PART_BYTES


def test_a_stranger_s_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    bomb = tmp_path / "ran"
    for message in (
        pickle.dumps(Bomb(bomb)),
        bytes(32) + pickle.dumps(Bomb(bomb)),
        dict(seal("k", Bomb(bomb), b"other"))[0],
        bytes(32) + b"\xff" * 100,
        b"",
    ):
        with pytest.raises(ComputeError, match="ENSEMBLE_LAUNCH_SECRET"):
            opened("k", {0: message})
    with pytest.raises(ComputeError):  # signed, but for another place
        opened("round1", dict(seal("round0", Bomb(bomb), SECRET)))
    assert not bomb.exists()


def test_parts_that_a_stranger_changed_are_refused_and_never_run(tmp_path: Path) -> None:
    bomb = tmp_path / "ran"
    parts = dict(seal("k", [bytes(2 * PART_BYTES), bytes(2 * PART_BYTES)], SECRET))
    assert len(parts) > 4
    changed = {
        "another pickle": {**parts, 0: parts[0][:-PART_BYTES] + pickle.dumps(Bomb(bomb)).ljust(PART_BYTES, b"\0")},
        "one bit": {**parts, 2: parts[2][:-1] + b"\1"},
        "longer": {**parts, 2: parts[2] + b"\0"},
        "shorter": {**parts, 2: parts[2][:-1]},
        "swapped": {**parts, 1: parts[0][-PART_BYTES:], 2: parts[1]},
    }
    for name, found in changed.items():
        with pytest.raises(ComputeError, match="not what its sender signed"):
            pytest.fail(f"{name}: {opened('k', found)}")
    assert not bomb.exists()


def test_small_arrays_are_part_of_the_pickle() -> None:
    """Or a message with thousands of them would have a header of many sizes."""
    _, arrays = pack([np.zeros(100, np.float32) for _ in range(1000)])
    assert arrays == []


def test_the_secret_is_made_once_and_only_its_owner_can_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ENSEMBLE_LAUNCH_SECRET", raising=False)
    secret = launch_secret()
    assert len(secret) == 32
    assert launch_secret() == secret
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["launch.key"]
    assert stat.S_IMODE((tmp_path / "cache" / "launch.key").stat().st_mode) == 0o600
    monkeypatch.setenv("ENSEMBLE_LAUNCH_SECRET", "given by somebody")
    assert launch_secret() == b"given by somebody"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b""), "has 0 bytes; expected 32"),
        (lambda path: path.write_bytes(bytes(31)), "has 31 bytes"),
        (lambda path: path.write_bytes(bytes(33)), "has 33 bytes"),
        (lambda path: path.chmod(0o644), "has mode 0644"),
        (lambda path: path.chmod(0o666), "has mode 0666"),
        (lambda path: path.chmod(0o620), "has mode 0620"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is no regular file"),
        (lambda path: (path.rename(path.with_suffix(".x")), path.symlink_to(path.with_suffix(".x"))), "symbolic links"),
    ],
)
def test_a_secret_that_others_may_know_is_refused(
    spoil: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path))
    monkeypatch.delenv("ENSEMBLE_LAUNCH_SECRET", raising=False)
    launch_secret()
    spoil(tmp_path / "launch.key")
    with pytest.raises(ComputeError, match=f"launch.key.*{reason}.*ENSEMBLE_LAUNCH_SECRET"):
        launch_secret()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user needs root")
def test_the_secret_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path))
    monkeypatch.delenv("ENSEMBLE_LAUNCH_SECRET", raising=False)
    launch_secret()
    os.chown(tmp_path / "launch.key", 12345, -1)
    with pytest.raises(ComputeError, match=r"launch.key: belongs to user 12345"):
        launch_secret()


def test_a_short_secret_is_refused_and_an_empty_one_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path))
    monkeypatch.setenv("ENSEMBLE_LAUNCH_SECRET", "secret")
    with pytest.raises(ComputeError, match="has 6 letters"):
        launch_secret()
    monkeypatch.setenv("ENSEMBLE_LAUNCH_SECRET", "")
    assert launch_secret() == (tmp_path / "launch.key").read_bytes()
