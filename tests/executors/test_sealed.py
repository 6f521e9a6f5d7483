"""Messages between ranks: what a stranger writes into the store is never unpickled."""

from __future__ import annotations

import os
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest

from ensemble.errors import ComputeError
from ensemble.executors.sealed import launch_secret, seal, unseal


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_what_was_sealed_comes_back() -> None:
    assert unseal("round0", seal("round0", {"a": (1, 2)}, b"secret"), b"secret") == {"a": (1, 2)}


def test_a_stranger_s_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    bomb = tmp_path / "ran"
    for message in (
        pickle.dumps(Bomb(bomb)),
        bytes(32) + pickle.dumps(Bomb(bomb)),
        seal("k", Bomb(bomb), b"other"),
        b"",
    ):
        with pytest.raises(ComputeError, match="ENSEMBLE_LAUNCH_SECRET"):
            unseal("k", message, b"secret")
    with pytest.raises(ComputeError):  # signed, but for another place
        unseal("round1", seal("round0", Bomb(bomb), b"secret"), b"secret")
    assert not bomb.exists()


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
    monkeypatch.setenv("ENSEMBLE_LAUNCH_SECRET", "given")
    assert launch_secret() == b"given"
