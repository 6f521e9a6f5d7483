"""The log keeps what it was told through kills, torn writes and several drivers."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading

import pytest

from ensemble.errors import StorageError
from ensemble.events import MemberFailed, MemberFinished, Notice, RunFinished, RunStarted, TaskStarted
from ensemble.tracking.event_log import EventLog, latest_attempts, latest_histories, read_events
from tests.contracts.tracker_contract import T0, TrackerContract, a_run, epoch


class TestContract(TrackerContract):
    @pytest.fixture
    def tracker(self, tmp_path):
        return EventLog(tmp_path / "events.jsonl")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def write(path, events):
    log = EventLog(path)
    for number, event in enumerate(events):
        log.handle(event, T0 + number)
    log.close(True)


def test_what_is_written_is_read(path):
    log = EventLog(path)
    for time, event in a_run():
        log.handle(event, time)
    log.close(True)
    assert list(read_events(path)) == a_run()
    first = json.loads(path.read_text().splitlines()[0])
    assert first == {
        "time": T0, "event": "RunStarted", "name": "bag", "method": "bagging", "members": 3, "finished": 0,
        "executor": "inline", "slots": 1,
    }  # fmt: skip


def test_numbers_survive_to_the_last_bit(path):
    value = 0.1 + 0.2
    write(path, [RunFinished(1, 0, math.pi, {"error": value, "p": 5e-324, "undefined": float("nan")})])
    ((_, event),) = read_events(path)
    assert event.seconds == math.pi
    assert event.headline["error"] == value
    assert event.headline["p"] == 5e-324
    assert math.isnan(event.headline["undefined"])


def test_a_second_session_appends(path):
    write(path, [RunStarted("bag", "bagging", 1, 0, "inline", 1), epoch(0, 1)])
    write(path, [RunStarted("bag", "bagging", 1, 0, "ray", 2)])
    assert [type(event).__name__ for _, event in read_events(path)] == ["RunStarted", "EpochFinished", "RunStarted"]


@pytest.mark.parametrize("torn", ['{"time": 1.0, "event": "Not', "x" * 70_000, '{"half": "of a é'.encode()[:-1]])
def test_a_torn_last_line_is_passed_over_and_then_cut_off(path, torn, caplog):
    write(path, [Notice("whole")])
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(torn.encode() if isinstance(torn, str) else torn)
    assert [event for _, event in read_events(path)] == [Notice("whole")]
    with caplog.at_level(logging.WARNING):
        EventLog(path).close(True)
    assert path.read_bytes() == whole
    assert f"{path}: cut off a last line of {len(torn)} bytes" in caplog.text


def test_a_log_that_is_one_torn_line_becomes_empty(path):
    path.write_text('{"time": 1')
    EventLog(path).close(True)
    assert path.read_bytes() == b""


def test_a_whole_log_is_opened_without_a_word(path, caplog):
    write(path, [Notice("whole")])
    EventLog(path).close(True)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{not json}", "no JSON"),
        ("[1, 2]", "no event with a time"),
        ('{"event": "Notice", "message": "no time"}', "no event with a time"),
        ('{"time": true, "event": "Notice", "message": "x"}', "no event with a time"),
        ('{"time": 1.0, "event": "Party"}', "unknown event 'Party'"),
        ('{"time": 1.0, "event": "Notice", "text": "x"}', "Notice does not fit"),
    ],
)
def test_a_damaged_line_is_named(path, line, found):
    write(path, [Notice("one")])
    with path.open("a") as file:
        file.write(line + "\n")
    events = read_events(path)
    assert next(events)[1] == Notice("one")
    with pytest.raises(
        StorageError, match=rf"events\.jsonl:2: .*{found}.*; if a newer version wrote it.*remove it and start"
    ):
        next(events)


def test_a_log_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"missing\.jsonl"):
        list(read_events(tmp_path / "missing.jsonl"))
    with pytest.raises(StorageError, match="cannot be opened"):
        EventLog(tmp_path)


def test_a_killed_writer_loses_nothing_it_was_told(path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from ensemble.events import Notice\n"
        "from ensemble.tracking.event_log import EventLog\n"
        "log = EventLog(Path(sys.argv[1]))\n"
        "for number in range(50):\n"
        "    log.handle(Notice(str(number)), float(number))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [event.message for _, event in read_events(path)] == [str(number) for number in range(50)]


def test_threads_do_not_mix_their_lines(path):
    log = EventLog(path)
    threads = [
        threading.Thread(target=lambda n=n: [log.handle(Notice(f"{n}" * 500), float(n)) for _ in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close(True)
    assert sorted(time for time, _ in read_events(path)) == sorted([0.0, 1.0, 2.0, 3.0] * 50)


def test_a_member_trained_again_keeps_only_its_last_attempt(path):
    task = TaskStarted("t", (0, 1), "lenet5", 3, "h", 1, "cpu", 1)
    killed = [task, epoch(0, 1, error=0.5), epoch(1, 1, error=0.5), epoch(0, 2, error=0.5), epoch(0, 3, error=0.5)]
    again = [task, epoch(0, 1, error=0.1), epoch(1, 1, error=0.1), epoch(0, 2, error=0.1)]
    write(path, killed)
    write(path, again)
    assert latest_histories(path) == {
        0: (epoch(0, 1, error=0.1), epoch(0, 2, error=0.1)),
        1: (epoch(1, 1, error=0.1),),
    }


def test_a_member_continued_from_a_checkpoint_keeps_its_first_epochs(path):
    write(path, [epoch(0, 1), epoch(0, 2), epoch(0, 3, error=0.9)])
    write(path, [epoch(0, 3, error=0.2)])
    assert latest_histories(path) == {0: (epoch(0, 1), epoch(0, 2), epoch(0, 3, error=0.2))}


def test_of_several_ends_the_last_counts():
    failed = MemberFailed(0, "crash", "gone", 1, 1.0, "drop")
    finished = MemberFinished(0, "lenet5", 10, 1.0, 2, 0.05)
    other = MemberFailed(1, "crash", "gone", 1, 1.0, "drop")
    events = [epoch(0, 1), epoch(0, 2), failed, other, epoch(0, 1), epoch(0, 2), finished]
    timed = [(float(number), event) for number, event in enumerate(events)]
    assert latest_attempts(timed) == [timed[3], timed[4], timed[5], timed[6]]


def test_everything_said_is_on_the_disk_when_closed(path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(path.stat().st_size), real(fd)))
    log = EventLog(path)
    for number in range(200):
        log.handle(Notice(str(number)), float(number))
    assert len(synced) <= 2  # at most once a second
    log.close(True)
    assert synced[-1] == path.stat().st_size
