"""A server that takes the connection and never answers: a line within half a minute, and an exit that says so."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from ensemble.tracking import wandb_tracker
from ensemble.tracking.trackers.wandb import WandbConfig
from ensemble.tracking.wandb_tracker import replay
from tests.contracts.tracker_contract import a_run


def test_a_stored_run_is_not_sent_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_tracker.FIRST_ANSWER_S < 30
    with socket.create_server(("127.0.0.1", 0)) as silent:
        held: list[socket.socket] = []
        threading.Thread(target=lambda: held.extend(iter(lambda: silent.accept()[0], None)), daemon=True).start()
        monkeypatch.setattr(wandb_tracker, "FIRST_ANSWER_S", 3.0)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("WANDB_API_KEY", "5ec2e7" * 7)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        lines: list[str] = []
        began = time.monotonic()
        config = {"name": "bag", "num_members": 3}
        assert not replay(a_run(), WandbConfig(mode="online"), "bag", config, tmp_path, notify=lines.append)
        assert time.monotonic() - began < 60
        for connection in held:
            connection.close()
    assert len(lines) == 1
    assert lines[0].startswith("W&B: the server cannot be reached")
    assert "send it later with `ensemble wandb" in lines[0]
