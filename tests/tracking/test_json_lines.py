"""ENSEMBLE_LOG_FORMAT=json: every line on stderr is one object, whoever prints it, at every door that trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ensemble.errors import ConfigError
from ensemble.events import EVENTS, EpochFinished, Notice
from ensemble.outside import json_lines
from ensemble.tracking.build import build_trackers
from ensemble.tracking.json_console import JsonConsole
from ensemble.tracking.ray_metrics import RayMetrics
from tests.contracts.tracker_contract import T0, TrackerContract, a_run
from tests.tracking.test_metrics import CONFIG, experiment

ROOT = Path(__file__).parents[2]
JSON = {**os.environ, json_lines.VARIABLE: "json"}
LEVELS = {"debug", "info", "warning", "error", "critical"}


def records(stderr: str) -> list[dict[str, Any]]:
    """Every line, parsed; each has what all have."""
    found = [json.loads(line) for line in stderr.splitlines()]
    for record in found:
        moment = datetime.fromisoformat(record["time"])
        assert moment.utcoffset() is not None
        assert moment.utcoffset().total_seconds() == 0
        assert record["time"].endswith("Z")
        assert record["level"] in LEVELS
        assert "run" in record
        assert "message" in record
    return found


def written(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "seen.yaml"
    path.write_text(json.dumps({**CONFIG, "output_dir": str(tmp_path / "runs"), **changes}))
    return str(path)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=280, cwd=ROOT, env={**JSON, **environment}
    )


def check_training(stderr: str, executor: str) -> None:
    found = records(stderr)
    events = [record for record in found if "event" in record]
    kinds = [record["event"] for record in events]
    assert [kinds[0], kinds[-1]] == ["RunStarted", "RunFinished"]
    assert kinds.count("EpochFinished") == 4 * 3
    assert kinds.count("MemberFinished") == 4
    assert set(kinds) <= set(EVENTS)
    assert events[0]["executor"] == executor
    assert {record["run"] for record in events} == {"seen"}
    epoch = next(record for record in events if record["event"] == "EpochFinished")
    assert isinstance(epoch["validation_error"], float)
    assert epoch["message"].startswith("member 000")


@pytest.mark.timeout(300)
def test_a_whole_training_inline(tmp_path: Path) -> None:
    ended = run("-m", "ensemble", "train", written(tmp_path), "--json")
    assert ended.returncode == 0, ended.stderr
    check_training(ended.stderr, "inline")
    assert json.loads(ended.stdout), "stdout is the result alone, as ever"
    again = run("-m", "ensemble", "train", written(tmp_path), "-q")
    assert again.returncode == 0
    assert again.stderr == "", "nothing but warnings, of which there is none"


@pytest.mark.timeout(300)
def test_a_whole_training_on_ray_by_its_door(tmp_path: Path) -> None:
    config = written(tmp_path, compute={"executor": "ray", "device": "cpu"})
    ended = run("-m", "ensemble.launch.ray_job", config, RAY_AUTH_MODE="disabled")
    assert ended.returncode == 0, ended.stderr
    check_training(ended.stderr, "ray")


@pytest.mark.timeout(300)
def test_a_whole_training_by_launched_processes(tmp_path: Path) -> None:
    """What torchrun itself prints is text; our processes' lines are objects."""
    config = written(tmp_path, compute={"executor": "accelerate", "device": "cpu"})
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29731")
    ended = run(*launcher, "-m", "ensemble.launch.accelerate_run", config, ACCELERATE_USE_CPU="true")
    assert ended.returncode == 0, ended.stderr
    check_training("\n".join(line for line in ended.stderr.splitlines() if line.startswith("{")), "accelerate")


@pytest.mark.timeout(200)
def test_errors_of_every_kind_are_objects(tmp_path: Path) -> None:
    missing = run("-m", "ensemble", "train", str(tmp_path / "none.yaml"))
    assert missing.returncode == ConfigError.exit_code
    (record,) = records(missing.stderr)
    assert record["level"] == "error"
    assert "no such configuration file" in record["message"]
    usage = run("-m", "ensemble", "trainn")
    assert [record["level"] for record in records(usage.stderr)][-1] == "error"
    door = run("-m", "ensemble.launch.ray_job", "num_members=2")
    (record,) = records(door.stderr)
    assert record["level"] == "error"
    assert record["message"].startswith("usage: ray job submit")
    for words in (("-m", "ensemble", "datasets"), ("-m", "ensemble.launch.ray_job", "c.yaml")):
        other = run(*words, **{json_lines.VARIABLE: "yaml"})
        assert other.returncode == ConfigError.exit_code
        assert other.stderr == "error: ENSEMBLE_LOG_FORMAT is 'yaml'; expected text or json\n"


OTHERS = """
import ctypes, logging, os, subprocess, sys, warnings
from ensemble.outside import json_capture, json_lines
json_capture.begin()
print("by print", file=sys.stderr)
os.write(2, b"by a library in C \\xff\\n")
subprocess.run(["sh", "-c", "echo by a program >&2"])
sys.stderr.write("10%\\r50%\\r100%\\n\\n")
sys.stderr.flush()
logging.getLogger("ensemble.somewhere").warning("by %s", "our logger")
logging.getLogger("library").info("too quiet")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("library").exception("by theirs")
warnings.warn("by Python", UserWarning)
json_lines.tell("error: two\\nlines")
json_lines.of_run("mine")
json_lines.write("info", 0.0, value=float("nan"), text="half \\udcff", inner={"list": (1, float("inf"))})
for _ in range(200):
    json_lines.tell("x" * 3000)
os.write(2, b"last words")
os.abort()
"""


def test_what_others_print_is_an_object_too_until_the_process_crashes() -> None:
    ended = run("-c", OTHERS)
    assert ended.returncode < 0
    found = records(ended.stderr)
    foreign = {record["message"]: record["level"] for record in found if record.get("source") == "stderr"}
    assert set(foreign) == {"by print", "by a library in C \ufffd", "by a program", "100%", "last words"}
    named = {record["logger"]: record for record in found if "logger" in record}
    assert named["ensemble.somewhere"]["message"] == "by our logger"
    assert named["ensemble.somewhere"]["level"] == "warning"
    assert named["library"]["level"] == "error"
    assert named["library"]["message"].startswith("by theirs\nTraceback")
    assert named["library"]["message"].endswith("ZeroDivisionError: division by zero")
    assert "UserWarning: by Python" in named["py.warnings"]["message"]
    ours = [record for record in found if "source" not in record and "logger" not in record]
    assert (ours[0]["level"], ours[0]["message"]) == ("error", "two\nlines")
    assert sum(record["message"] == "x" * 3000 for record in ours[2:]) == 200


OTHERS = OTHERS.replace('json_lines.write("info", 0.0,', 'json_lines.write("info", 0.0, message="odd",')


def test_odd_values_are_plain_json() -> None:
    (record,) = (one for one in records(run("-c", OTHERS).stderr) if one["message"] == "odd")
    assert record["value"] is None
    assert record["text"] == "half ?"
    assert record["inner"] == {"list": [1, None]}
    assert record["time"] == "1970-01-01T00:00:00.000Z"
    assert record["run"] == "mine"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lines are JSON, and go into a pipe; gives what reads those that are there."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    monkeypatch.setattr(json_lines._State, "stderr", writing)
    monkeypatch.setattr(json_lines._State, "run", None)

    def read() -> list[dict[str, Any]]:
        try:
            return records(os.read(reading, 1 << 20).decode())
        except BlockingIOError:
            return []

    yield read
    os.close(reading)
    os.close(writing)


@pytest.mark.usefixtures("lines")
class TestConsole(TrackerContract):
    @pytest.fixture
    def tracker(self) -> Any:
        return JsonConsole("bag")


def test_events_with_their_fields_and_levels(lines: Any) -> None:
    console = JsonConsole("bag")
    for moment, event in a_run():
        console.handle(event, moment)
    console.handle(Notice("data: left out 3 files", warning=True), T0)
    console.close(False)
    found = lines()
    assert [record["event"] for record in found[:-1]] == [type(event).__name__ for _, event in a_run()] + ["Notice"]
    by_level = {level: [r["message"] for r in found if r["level"] == level] for level in ("warning", "error")}
    assert by_level["error"] == ["member 0002  FAILED (diverged, try 2): the loss became nan; left out"]
    assert [line.split(";")[-1].strip() for line in by_level["warning"]] == [
        "will be tried again", "data: left out 3 files", "stopped with 2 of 3 members finished, 1 failed",
    ]  # fmt: skip
    assert found[2]["epoch"] == 1
    assert set(found[2]) > {"train_loss", "validation_loss", "validation_error", "seconds", "lr"}
    nan = float("nan")
    other = JsonConsole("bag")
    other.handle(EpochFinished(0, 1, 2, nan, nan, 0.9, 1e-3, 0.0), T0)
    assert lines()[0]["train_loss"] is None


def test_which_console_there_is(lines: Any, tmp_path: Path) -> None:
    kinds = [
        [type(tracker) for tracker in build_trackers(experiment(None, tmp_path), tmp_path, console)]
        for console in ("progress", "warnings", "silent")
    ]
    assert kinds == [[RayMetrics, JsonConsole], [RayMetrics, JsonConsole], [RayMetrics]]
    quiet = build_trackers(experiment(None, tmp_path), tmp_path, "warnings")[-1]
    quiet.handle(Notice("calm"), T0)
    quiet.handle(Notice("loud", warning=True), T0)
    quiet.close(False)
    assert [record["message"] for record in lines()] == ["loud"]
