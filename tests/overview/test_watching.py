"""`ensemble watch`: on a terminal, in a pipe, of runs that go on, have ended, or go away meanwhile."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import fsspec
import pytest

from ensemble.errors import StorageError
from ensemble.events import EpochFinished, MemberFinished, Notice, RunFinished, RunStarted, TaskStarted, to_json
from ensemble.overview.sources import find_source
from ensemble.overview.watching import watch
from ensemble.storage.listed_folder import locked
from tests.damage.commands import call, said


def append(log: Path, *events, moment=None):
    with log.open("ab") as file:
        for event in events:
            file.write(
                json.dumps({"time": time.time() if moment is None else moment, **to_json(event)}).encode() + b"\n"
            )


class Steps:
    """Takes the place of waiting: each wait does the next thing."""

    def __init__(self, *steps):
        self._steps = list(steps)

    def __call__(self, seconds: float) -> None:
        assert seconds > 0
        self._steps.pop(0)()


START = RunStarted("one", "bagging", 4, 0, "inline", 1)
TASK = TaskStarted("t", (0, 1), "mlp", 3, "host", 1, "cpu", 1)


def epoch(member, number):
    return EpochFinished(member, number, 3, 0.5, 0.4, 0.125, 1e-3, 1.0)


def unlisted(run: Path) -> Path:
    """The log of a copy of the run, emptied, as it is before the manifest first lists it."""
    manifest = json.loads((run / "manifest.json").read_text())
    for name in ("events.jsonl", "evaluation.json"):
        del manifest["files"][name]
    del manifest["names_sha256"], manifest["entries_sha256"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "events.jsonl").write_bytes(b"")
    return run / "events.jsonl"


def test_a_run_in_another_process_is_followed_to_its_end(home: Path, elsewhere):
    elsewhere("long", "training.epochs=60", "num_members=2", epochs=2)
    done = subprocess.run(
        [sys.executable, "-m", "ensemble", "watch", "long"], cwd=home, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "long: bagging, 2 members" in done.stdout
    assert "epoch 60/60" in done.stdout
    assert "2 members finished" in done.stdout
    assert "The soft vote of 2 members" in done.stdout, "the short answer"
    assert "\x1b" not in done.stdout, "no control codes in a pipe"


def test_ctrl_c_leaves_the_run_alone(home: Path, elsewhere):
    process = elsewhere("long", "training.epochs=2000", "num_members=2", epochs=2)
    once = call("watch", "long", "--once")
    assert once.exit_code == 0, said(once)
    assert "0 of 2 finished" in once.stdout
    assert re.search(r"0000 +mlp .*\d+/2000", once.stdout)
    watching = subprocess.Popen(
        [sys.executable, "-m", "ensemble", "watch", "long"],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    assert "long: bagging" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=60)
    assert watching.returncode == 0, errors
    assert "goes on" in errors
    assert "Traceback" not in errors
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    after = call("watch", "long")
    assert after.exit_code == 0
    assert "interrupted: stopped with 0 of 2 members finished" in after.stdout


def test_a_finished_run_says_its_end_and_the_short_answer(home: Path):
    for words in (("watch", "one"), ("watch", "runs/one"), ("watch", "one", "--once")):
        result = call(*words)
        assert result.exit_code == 0, said(result)
        assert "one: bagging, 4 members" in result.stdout
        assert "4 members finished" in result.stdout
        assert "The soft vote of 4 members" in result.stdout
        assert "epoch 1/3" not in result.stdout


def test_what_is_no_run_is_named_with_what_may_be_meant(home: Path):
    result = call("watch", "ome")
    assert result.exit_code == 6
    assert "did you mean runs/one?" in result.stderr
    assert call("watch", "memory://nothing/here").exit_code == 6


def test_a_log_that_is_cut_replaced_or_torn_is_followed_on(home: Path):
    log = unlisted(Path("runs/one"))
    append(log, START, TASK, epoch(0, 1))
    other = Path("other.jsonl")
    append(other, START, TASK, epoch(0, 1), epoch(0, 2), Notice("after the copy"))
    torn = json.dumps({"time": 1.0, **to_json(epoch(1, 1))}).encode()
    stream = io.StringIO()
    lock = locked(Path("runs/one/run.lock"))
    row = watch(
        find_source("one"), stream,
        Steps(
            lambda: log.write_bytes(log.read_bytes() + torn[:40]),
            lambda: log.write_bytes(log.read_bytes()[:-40]),
            lambda: other.replace(log),
            lambda: append(log, START, Notice("a later start")),
            lock.close,
        ),
    )  # fmt: skip
    text = stream.getvalue()
    assert row.state == "interrupted"
    assert "note: after the copy" in text
    assert "note: a later start" in text
    assert text.rstrip().endswith("stopped with 0 of 4 members finished")
    assert text.count("one: bagging") == 3, "the first start, the copy's, and a later one"


def test_a_run_that_is_taken_away_ends_the_watching(home: Path):
    log = unlisted(Path("runs/one"))
    append(log, START, TASK)
    lock = locked(Path("runs/one/run.lock"))
    with lock, pytest.raises(StorageError, match="runs/one"):
        watch(find_source("one"), io.StringIO(), Steps(lambda: shutil.move("runs/one", "moved")))


def test_a_start_of_a_finished_run_is_waited_for(home: Path):
    stream, log = io.StringIO(), Path("runs/one/events.jsonl")
    lock = locked(Path("runs/one/run.lock"))
    end = RunFinished(4, 0, 1.0, {})
    row = watch(
        find_source("one"),
        stream,
        Steps(
            lambda: append(log, RunStarted("one", "bagging", 4, 4, "inline", 1)),
            lambda: (append(log, end), lock.close()),
        ),
    )
    assert row.state == "finished"
    assert "a process writes to this finished run" in stream.getvalue()
    assert "4 already finished" in stream.getvalue()


def test_under_an_address_the_log_is_asked_for_again(home: Path, monkeypatch):
    files = fsspec.filesystem("memory")
    log = unlisted(Path("runs/one"))
    append(log, START, TASK, epoch(0, 1))
    files.put("runs/one/", "/watched/runs/one", recursive=True)

    def grow(*events):
        append(log, *events)
        files.pipe_file("/watched/runs/one/events.jsonl", log.read_bytes())

    stream, waits = io.StringIO(), []
    steps = Steps(
        lambda: None,
        lambda: grow(epoch(0, 2), MemberFinished(0, "mlp", 10, 1.0, 2, 0.125)),
        lambda: grow(RunFinished(4, 0, 1.0, {})),
    )
    row = watch(
        find_source("memory://watched/runs/one"), stream, lambda seconds: (waits.append(seconds), steps(seconds))
    )
    assert row.state == "finished"
    assert "member 0000  finished" in stream.getvalue()
    assert waits == [5.0] * 3


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
def test_a_terminal_gets_the_live_table_of_train_and_gets_it_back(home: Path, monkeypatch, columns, rows):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    shown: list[bytes] = []

    def collect() -> None:
        try:
            while chunk := os.read(main, 4096):
                shown.append(chunk)
        except OSError:
            pass

    reader = threading.Thread(target=collect, daemon=True)
    reader.start()
    log = unlisted(Path("runs/one"))
    append(log, START, TASK, epoch(0, 1), epoch(1, 1), Notice("bad \x1b[31m name"))
    lock = locked(Path("runs/one/run.lock"))
    with os.fdopen(follower, "w") as stream:
        row = watch(
            find_source("one"),
            stream,
            Steps(lambda: time.sleep(1.5), lambda: append(log, epoch(0, 2)), lambda: time.sleep(1.5), lock.close),
        )
    reader.join(5)
    os.close(main)
    text = b"".join(shown).decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert row.state == "interrupted"
    assert "0 of 4 finished" in plain
    assert "2/3" in plain
    assert "12.50 %" in plain
    assert ("host cpu" in plain) == (columns >= 100)
    assert "stopped with 0 of 4 members finished" in plain
    assert "\x1b[?25h" in text, "the cursor is back"
    assert "\x1b[31m name" not in text
