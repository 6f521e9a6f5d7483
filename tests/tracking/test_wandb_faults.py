"""Whatever goes wrong with W&B is one line, costs training no time and leaves the event log to be replayed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from ensemble.events import Notice
from ensemble.tracking.event_log import EventLog, read_events
from ensemble.tracking.trackers.wandb import WandbConfig
from ensemble.tracking.wandb_tracker import WandbTracker, replay
from ensemble.tracking.wandb_worker import _why
from tests.contracts.tracker_contract import T0, a_run
from tests.tracking.judgement import keep_judgement
from tests.tracking.test_wandb_offline import CONFIG, OFFLINE, assert_tells
from tests.tracking.wandb_reader import read_folder

pytestmark = pytest.mark.timed

ONLINE = WandbConfig(mode="online")


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    """Online is asked for by the configuration, but there is neither a key nor a server."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


class Driver:
    """Tells a run to W&B and takes the time."""

    def __init__(self, folder: Path, config: WandbConfig, timeout_s: float | None = None):
        self.folder, self.lines, self.slowest = folder / "run", [], 0.0
        self.folder.mkdir()
        self.tracker = WandbTracker(
            config, "bag", CONFIG, self.folder, notify=self.lines.append, close_timeout_s=timeout_s
        )
        self.worker = self.tracker._process.pid

    def tell(self, events):
        for moment, event in events:
            began = time.perf_counter()
            self.tracker.handle(event, moment)
            self.slowest = max(self.slowest, time.perf_counter() - began)

    def close(self, ok=True):
        began = time.perf_counter()
        self.tracker.close(ok)
        assert not Path(f"/proc/{self.worker}").exists()
        return time.perf_counter() - began


def log_of_a_run(path):
    log = EventLog(path)
    for moment, event in a_run():
        log.handle(event, moment)
    log.close(True)
    return path


def children(pid):
    """Processes started by that one, from /proc."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(rest.split()[1]) == pid:
            found[name] = int(stat.parent.name)
    return found


def wait_for(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
    return found


def test_without_a_key_it_logs_offline_and_says_so_once(no_account, tmp_path):
    driver = Driver(tmp_path, ONLINE)
    driver.tell(a_run())
    driver.close()
    assert driver.lines == [
        f"W&B: no API key found; logging offline to {driver.folder}/wandb, send it later with `ensemble wandb {driver.folder}`"
    ]
    assert driver.tracker.complete
    assert_tells(driver.folder, log_of_a_run(tmp_path / "events.jsonl"))


def test_a_key_that_cannot_be_one_is_one_line(no_account, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    driver = Driver(tmp_path, ONLINE)
    driver.tell(a_run())
    driver.close()
    (line,) = driver.lines
    assert "API key" in line
    assert "hunter2" not in line
    assert_tells(driver.folder, log_of_a_run(tmp_path / "events.jsonl"))


def test_a_server_out_of_reach_stalls_nothing(no_account, monkeypatch, tmp_path):
    secret = "c0ffee" * 7
    monkeypatch.setenv("WANDB_API_KEY", secret)
    driver = Driver(tmp_path, ONLINE, timeout_s=10.0)
    driver.tell(a_run())
    assert driver.slowest < 0.1
    assert driver.close() < 10.5
    assert len(driver.lines) == 1, driver.lines
    (line,) = driver.lines
    assert "logging offline" in line
    assert_tells(driver.folder, log_of_a_run(tmp_path / "events.jsonl"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_a_dead_service_is_one_line_and_the_log_can_be_replayed(tmp_path):
    driver = Driver(tmp_path, OFFLINE)
    driver.tell(a_run()[:6])
    service = wait_for(lambda: children(driver.worker).get("wandb-core"))
    wait_for(lambda: len(list(driver.folder.glob("wandb/offline-run-*"))) == 3)
    os.kill(service, signal.SIGKILL)
    driver.tell(a_run()[6:])
    assert driver.close() < 5.0
    assert driver.slowest < 0.1
    (line,) = driver.lines
    assert line.startswith("W&B: its service process is gone")
    assert line.endswith(f"the run itself is unharmed, send it later with `ensemble wandb {driver.folder}`")
    assert not driver.tracker.complete
    log = log_of_a_run(tmp_path / "events.jsonl")
    assert replay(read_events(log), OFFLINE, "bag", CONFIG, driver.folder)
    assert_tells(driver.folder, log)


def test_a_killed_process_is_one_line(tmp_path):
    driver = Driver(tmp_path, OFFLINE)
    os.kill(driver.worker, signal.SIGKILL)
    driver.tell([*a_run()] * 20)
    assert driver.close() < 2.0
    assert len(driver.lines) == 1


def test_a_process_that_hangs_delays_neither_training_nor_the_end(tmp_path):
    driver = Driver(tmp_path, OFFLINE, timeout_s=1.0)
    os.kill(driver.worker, signal.SIGSTOP)
    driver.tell([(T0, Notice("x" * 1000))] * 2000)  # far more than a pipe holds
    assert driver.slowest < 0.5  # one that waited for the pipe would wait for ever
    assert driver.close() < 3.0
    (line,) = driver.lines
    assert line.startswith("W&B: not everything was sent within 1 s")


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("raise ModuleNotFoundError(\"No module named 'wandb'\")", "the wandb package cannot be imported (No module"),
        (
            "class Settings: model_fields = {}\ndef init(**_): raise RuntimeError('broken pipe dream')",
            "RuntimeError: broken",
        ),
        ("import os\nos._exit(11)", "its process"),
    ],
)
def test_a_package_that_is_missing_or_broken_is_one_line(tmp_path, monkeypatch, package, reason):
    (tmp_path / "wandb.py").write_text(package)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    driver = Driver(tmp_path, OFFLINE)
    driver.tell(a_run())
    assert driver.close() < 5.0
    (line,) = driver.lines
    assert line.startswith(f"W&B: {reason}")


def test_a_file_named_wandb_in_the_working_directory_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("raise RuntimeError('imported from the working directory')")
    monkeypatch.chdir(tmp_path)
    driver = Driver(tmp_path, OFFLINE)
    driver.close()
    assert driver.lines == []


def test_a_judgement_that_cannot_be_read_is_one_line_and_the_run_is_told_anyway(tmp_path):
    driver = Driver(tmp_path, OFFLINE)
    keep_judgement(driver.folder, b"{")
    driver.tell(a_run())
    driver.close()
    (line,) = driver.lines
    assert line.startswith("W&B: the judgement is not shown there")
    assert "evaluation.json" in line
    assert driver.tracker.complete
    assert not driver.tracker.told_all


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "wandb").write_text("a file where the folder should be")
    lines = []
    tracker = WandbTracker(OFFLINE, "bag", CONFIG, tmp_path, notify=lines.append)
    for moment, event in a_run():
        tracker.handle(event, moment)
    tracker.close(True)
    assert len(lines) == 1
    assert "cannot be started" in lines[0]
    assert read_folder(tmp_path) == {}


@pytest.mark.parametrize("error", [BrokenPipeError(), MailboxClosedError(), HandleAbandonedError()])
def test_whatever_a_dead_service_raises_is_told_alike(error: Exception) -> None:
    """Which of them comes depends on what was under way when it died."""
    assert _why(error) == f"its service process is gone ({type(error).__name__})"
