"""What an offline W&B run really holds, read from its files and compared with the event log number by number."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.events import EpochFinished, MemberFinished, RunFinished, RunStarted, TaskStarted
from ensemble.tracking.event_log import EventLog, latest_histories, read_events
from ensemble.tracking.figures import MEMBER
from ensemble.tracking.trackers.wandb import WandbConfig
from ensemble.tracking.wandb_tracker import WandbTracker, effective_mode, replay
from tests.contracts.tracker_contract import T0, TrackerContract, a_run, epoch
from tests.tracking.judgement import judgement, keep_judgement
from tests.tracking.wandb_reader import plain, read_folder

OFFLINE = WandbConfig(mode="offline", tags=("night",))
CONFIG = {
    "name": "bag",
    "seed": 3,
    "method": {"name": "bagging"},
    "baseline": False,
    "data": {"name": "digits"},
    "model": {"name": "lenet5"},
    "training": {"lr": 1e-3, "betas": [0.9, 0.999]},
}
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 1, 28, 28), dtype=np.uint8)  # NCHW


class TestContract(TrackerContract):
    """The tracker's own side; what its process does with odd events is checked when it is closed."""

    @pytest.fixture
    def tracker(self, tmp_path):
        lines = []
        tracker = WandbTracker(OFFLINE, "bag", CONFIG, tmp_path, notify=lines.append)
        yield tracker
        tracker.close(False)
        assert lines == []
        assert tracker.complete


class TestDisabledContract(TrackerContract):
    @pytest.fixture
    def tracker(self, tmp_path):
        return WandbTracker(WandbConfig(mode="disabled"), "bag", CONFIG, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run told to its event log and to W&B at once, with its judgement; (folder, images)."""
    folder = tmp_path_factory.mktemp("runs") / "bag"
    folder.mkdir()
    keep_judgement(folder)
    log = EventLog(folder / "events.jsonl")
    tracker = WandbTracker(OFFLINE, "bag", CONFIG, folder, test_images=lambda rows: IMAGES[rows])
    for moment, event in a_run():
        log.handle(event, moment)
        tracker.handle(event, moment)
    log.close(True)
    tracker.close(True)
    assert tracker.complete
    return folder


def rows_of(event: EpochFinished) -> dict[str, float]:
    return {
        "epoch": event.epoch, "train/loss": event.train_loss, "validation/loss": event.validation_loss,
        "validation/error": event.validation_error, "train/lr": event.lr, "train/epoch_seconds": event.seconds,
    }  # fmt: skip


def assert_tells(folder: Path, log: Path) -> None:
    """The offline runs in the folder hold the log's epochs, ends and headline, to the last bit."""
    runs = {id.rsplit("-", 1)[1]: found for id, found in read_folder(folder).items()}
    histories = latest_histories(log)
    events = [event for _, event in read_events(log)]
    assert set(runs) == {"ensemble", *(f"m{member:04d}" for member in histories)}
    for member, history in histories.items():
        found = runs[f"m{member:04d}"]
        assert [plain(row) for row in found.history] == [rows_of(event) for event in history]
        assert [row["_step"] for row in found.history] == [event.epoch for event in history]
    for event in events:
        if isinstance(event, MemberFinished):
            found = runs[f"m{event.member:04d}"]
            assert found.summary["kept/validation_error"] == event.validation_error
            assert found.summary["train_seconds"] == event.train_seconds
            assert found.summary["num_parameters"] == event.num_parameters
            assert found.summary["kept/epoch"] == event.kept_epoch
            assert found.exit_code == 0
        if isinstance(event, RunFinished):
            ensemble = runs["ensemble"]
            assert {name: ensemble.summary[name] for name in event.headline} == event.headline
            assert ensemble.summary["run_seconds"] == event.seconds
            counts = (ensemble.summary["members/finished"], ensemble.summary["members/failed"])
            assert counts == (event.members, event.failed)
            assert ensemble.exit_code == 0


def test_every_number_equals_the_event_log(run):
    assert_tells(run, run / "events.jsonl")


def test_times_are_those_of_the_events(run):
    runs = read_folder(run)
    times = {event.epoch: moment for moment, event in a_run() if isinstance(event, EpochFinished) and event.member == 1}
    (member,) = [found for id, found in runs.items() if id.endswith("m0001")]
    assert [row["_timestamp"] for row in member.history] == list(times.values())


def test_runs_are_named_grouped_tagged_and_configured(run):
    for id, found in read_folder(run).items():
        kind = "ensemble" if id.endswith("ensemble") else "member"
        assert found.run.job_type == kind
        assert found.run.run_id == id
        assert id == f"{found.run.run_group}-{id.rsplit('-', 1)[1]}"
        assert found.run.display_name == f"bag {id.rsplit('-', 1)[1]}"
        assert list(found.run.tags) == ["bagging", "digits", "lenet5", "night"]
        assert found.config["training"] == {"lr": 1e-3, "betas": [0.9, 0.999]}
        assert found.config["seed"] == 3
        if kind == "member":
            assert found.config["member"] == int(id[-4:])
            assert found.axes == {figure.name: figure.axis for figure in MEMBER if figure.axis}
            assert found.summaries == {figure.name: figure.summary for figure in MEMBER if figure.summary != "last"}
    assert len({found.run.run_group for found in read_folder(run).values()}) == 1


def test_a_failed_member_says_why(run):
    (found,) = [found for id, found in read_folder(run).items() if id.endswith("m0002")]
    assert found.summary["failure/kind"] == "diverged"
    assert found.summary["failure/reason"] == "the loss became nan"
    assert found.summary["failure/tries"] == 2
    assert found.exit_code == 1


def test_the_ensemble_shows_the_judgement(run):
    (path,) = (run / "wandb").glob("offline-run-*-ensemble")
    (ensemble,) = [found for id, found in read_folder(run).items() if id.endswith("ensemble")]
    expected = judgement()
    assert ensemble.summary["error/test"] == 0.1
    assert ensemble.summary["verdict/sentence"] == "It is not better."
    sizes = [plain(row) for row in ensemble.history if "size/members" in row]
    assert [(row["size/members"], row["size/error"]) for row in sizes] == [(1, 0.15), (2, 0.1)]
    tables = {}
    for table in path.glob("files/media/table/**/*.table.json"):
        tables[table.name.split("_")[0]] = json.loads(table.read_text())
    assert {"leaderboard", "classes", "contributions", "calibration", "disputed", "confusion"} <= set(tables)
    board = tables["leaderboard"]
    assert [dict(zip(board["columns"], row, strict=True)) for row in board["data"]] == expected["leaderboard"]
    assert {(a, p): n for a, p, n in tables["confusion"]["data"]} == {
        (str(a), str(p)): expected["confusion"][a][p] for a in range(3) for p in range(3)
    }


def test_the_disputed_images_wait_in_the_run_folder(run):
    staged = [path for path in (run / "wandb" / "staging").rglob("*") if path.is_file()]
    pictures = [np.asarray(Image.open(path)) for path in staged if path.read_bytes()[:4] == b"\x89PNG"]
    for row in (4, 9):
        assert any(np.array_equal(picture, IMAGES[row, 0]) for picture in pictures)


def test_the_vendors_own_reader_sees_the_same(run):
    for path in [*(run / "wandb").glob("offline-run-*-m0002"), *(run / "wandb").glob("offline-run-*-ensemble")]:
        id = path.name.split("-", 3)[3]
        shown = subprocess.run(
            [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        lines = [json.loads(line) for line in shown.stdout.splitlines()]
        theirs = [plain(line["history"]["item"]) for line in lines if line["type"] == "history"]
        ours = [plain(row) for row in read_folder(run)[id].history]
        flat = [{name: value for name, value in row.items() if isinstance(value, int | float)} for row in ours]
        assert [{name: row[name] for name in keep} for row, keep in zip(theirs, flat, strict=True)] == flat


def test_a_replay_is_quiet_holds_the_same_as_the_live_run_and_replaces_it(run, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    copy = tmp_path / "bag"
    shutil.copytree(run, copy, symlinks=True)
    before = read_folder(copy)
    assert replay(read_events(copy / "events.jsonl"), OFFLINE, "bag", CONFIG, copy)
    after = read_folder(copy)  # raises when one id lies there twice
    assert set(after) == set(before)
    assert_tells(copy, copy / "events.jsonl")
    for id, found in after.items():
        numbers = [row for row in found.history if "leaderboard._type" not in row]
        assert [plain(row) for row in numbers] == [plain(r) for r in before[id].history if "leaderboard._type" not in r]
        assert found.exit_code == before[id].exit_code
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


DRIVER = """
import os, signal, sys, time
from pathlib import Path
from tests.contracts.tracker_contract import a_run
from tests.tracking.test_wandb_offline import CONFIG, OFFLINE
from ensemble.tracking.event_log import EventLog
from ensemble.tracking.wandb_tracker import WandbTracker
folder = Path(sys.argv[1])
log, tracker = EventLog(folder / "events.jsonl"), WandbTracker(OFFLINE, "bag", CONFIG, folder)
for moment, event in a_run()[:7]:  # all three epochs of no member are complete
    log.handle(event, moment)
    tracker.handle(event, moment)
time.sleep(0.2)  # the pipe is written by a thread
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_loses_nothing_and_its_second_session_equals_an_undisturbed_run(run, tmp_path):
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", DRIVER, str(tmp_path), str(root)], check=False)
    assert ended.returncode == -signal.SIGKILL
    cut_off = wait_for_ends(tmp_path, runs=3)
    assert {found.exit_code for found in cut_off.values()} == {1}
    log_path = tmp_path / "events.jsonl"
    assert_tells(tmp_path, log_path)

    earlier = list(read_events(log_path))
    log, tracker = EventLog(log_path), WandbTracker(OFFLINE, "bag", CONFIG, tmp_path, earlier=earlier)
    for moment, event in a_run():
        log.handle(event, moment + 1000)
        tracker.handle(event, moment + 1000)
    log.close(True)
    tracker.close(True)
    assert tracker.complete
    assert_tells(tmp_path, log_path)

    again, undisturbed = read_folder(tmp_path), read_folder(run)
    for id, found in undisturbed.items():
        numbers = [plain(row) for row in found.history if "leaderboard._type" not in row and "size/members" not in row]
        assert [plain(row) for row in again[id].history] == numbers


def wait_for_ends(folder, runs):
    """The offline runs of a killed driver, once its orphaned process has ended them."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        found = read_folder(folder)
        if len(found) == runs and all(run.exit_code is not None for run in found.values()):
            return found
        time.sleep(0.1)
    raise AssertionError(f"not all runs ended: {found}")


def test_many_members_run_side_by_side(tmp_path):
    members = 60
    tracker = WandbTracker(OFFLINE, "wide", CONFIG, tmp_path)
    tracker.handle(RunStarted("wide", "bagging", members, 0, "ray", members), T0)
    tracker.handle(TaskStarted("t", tuple(range(members)), "lenet5", 2, "h", 1, "cpu", 1), T0)
    for number in (1, 2):
        for member in range(members):
            tracker.handle(epoch(member, number, 2, error=(member + 1) / 100), T0 + number)
    tracker.close(True)
    assert tracker.complete
    found = read_folder(tmp_path)
    assert len(found) == members + 1
    for id, run in found.items():
        if not id.endswith("ensemble"):
            assert [row["validation/error"] for row in run.history] == [(int(id[-4:]) + 1) / 100 / n for n in (1, 2)]


@pytest.mark.parametrize(
    ("configured", "variable", "expected"),
    [
        ("online", "", "online"), ("online", "offline", "offline"), ("online", "disabled", "disabled"),
        ("offline", "online", "offline"), ("offline", "disabled", "disabled"), ("disabled", "online", "disabled"),
        ("disabled", "offline", "disabled"), ("online", "dryrun", "offline"), ("online", "nonsense", "online"),
    ],
)  # fmt: skip
def test_the_environment_may_only_lower_the_mode(configured, variable, expected):
    assert effective_mode(configured, {"WANDB_MODE": variable}) == expected


def test_disabled_starts_nothing_and_leaves_nothing(tmp_path):
    tracker = WandbTracker(WandbConfig(mode="disabled"), "bag", CONFIG, tmp_path)
    for moment, event in a_run():
        tracker.handle(event, moment)
    tracker.close(True)
    assert list(tmp_path.iterdir()) == []


def test_the_artifact_is_the_run_folder(tmp_path):
    """Every listed file and the list itself; what the artifact holds can be read as a run."""
    from ensemble.commands.main import main
    from ensemble.storage import RunFolder

    config = {
        "name": "kept", "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
        "model": {"name": "mlp", "widths": [8]}, "training": {"epochs": 1}, "output_dir": str(tmp_path),
        "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "offline", "artifact": True}},
    }  # fmt: skip
    (tmp_path / "kept.yaml").write_text(json.dumps(config))
    from click.testing import CliRunner

    assert CliRunner().invoke(main, ["train", str(tmp_path / "kept.yaml"), "-q"]).exit_code == 0
    folder = tmp_path / "kept"
    (run,) = [run for run in read_folder(folder).values() if run.run.job_type == "ensemble"]
    ((name, files),) = [(a.name, a.manifest.contents) for a in run.artifacts if a.type == "ensemble"]
    assert name == run.run.run_group
    copy = tmp_path / "copy"
    for file in files:
        (copy / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.local_path, copy / file.path)
    restored, original = RunFolder.read(copy), RunFolder.read(folder)
    assert restored.finished() == {0, 1}
    np.testing.assert_array_equal(restored.load_member(1).votes.test_NK, original.load_member(1).votes.test_NK)
    assert restored.read_bytes("evaluation.json") == original.read_bytes("evaluation.json")
