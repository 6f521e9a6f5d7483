"""The real client against a small server: what arrives online, twice, and when the server goes away."""

from __future__ import annotations

import time

import pytest

from ensemble.events import EpochFinished
from ensemble.tracking.event_log import latest_attempts
from ensemble.tracking.trackers.wandb import WandbConfig
from ensemble.tracking.wandb_tracker import WandbTracker, replay
from tests.contracts.tracker_contract import a_run
from tests.tracking.small_server import SmallServer
from tests.tracking.test_wandb_offline import CONFIG, rows_of
from tests.tracking.wandb_reader import plain

ONLINE = WandbConfig(mode="online")


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = SmallServer()
    (tmp_path / "home").mkdir()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_API_KEY", "5ec2e7" * 7)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    yield server
    server.close()


def expected():
    rows: dict[str, list[dict]] = {}
    for _, event in latest_attempts(a_run()):
        if isinstance(event, EpochFinished):
            rows.setdefault(f"m{event.member:04d}", []).append(rows_of(event))
    return rows


def assert_arrived(server):
    arrived = {id.rsplit("-", 1)[1]: [plain(row) for _, row in sorted(h.items())] for id, h in server.history.items()}
    assert {id: rows for id, rows in arrived.items() if id != "ensemble"} == expected()
    assert {id.rsplit("-", 1)[1]: code for id, code in server.complete.items()} == {
        "ensemble": 0, "m0000": 0, "m0001": 0, "m0002": 1,
    }  # fmt: skip


def test_what_is_told_online_arrives_and_a_replay_does_not_double_it(server, tmp_path):
    lines = []
    tracker = WandbTracker(ONLINE, "bag", CONFIG, tmp_path, notify=lines.append)
    for moment, event in a_run():
        tracker.handle(event, moment)
    tracker.close(True)
    assert lines == [f"W&B: {server.url}/me/ensemble/runs/{tracker_id(server)}"]
    assert tracker.complete
    assert_arrived(server)
    ids = {given["name"] for given in server.opened}
    assert replay(a_run(), ONLINE, "bag", CONFIG, tmp_path, notify=lines.append)
    assert_arrived(server)
    assert {given["name"] for given in server.opened} == ids


def tracker_id(server):
    return next(given["name"] for given in server.opened if given["jobType"] == "ensemble")


@pytest.mark.timed
def test_a_server_that_goes_away_costs_only_the_bounded_end(server, tmp_path):
    lines = []
    tracker = WandbTracker(ONLINE, "bag", CONFIG, tmp_path, notify=lines.append, close_timeout_s=3.0)
    events = a_run()
    for moment, event in events[:5]:
        tracker.handle(event, moment)
    deadline = time.monotonic() + 15
    while len(server.opened) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    server.dark.set()
    slowest = 0.0
    for moment, event in events[5:]:
        began = time.perf_counter()
        tracker.handle(event, moment)
        slowest = max(slowest, time.perf_counter() - began)
    began = time.perf_counter()
    tracker.close(True)
    assert time.perf_counter() - began < 4.0
    assert slowest < 0.1
    assert not tracker.complete
    assert len(lines) == 2
    assert lines[1].endswith(f"the run itself is unharmed, send it later with `ensemble wandb {tmp_path}`")

    server.dark.clear()
    assert replay(a_run(), ONLINE, "bag", CONFIG, tmp_path)
    assert_arrived(server)
