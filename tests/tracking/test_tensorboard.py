"""TensorBoard's files of a run, read back by TensorBoard itself."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from ensemble.config import parse_experiment
from ensemble.errors import ConfigError
from ensemble.events import EpochFinished, MemberFinished, RunFinished, RunStarted
from ensemble.run.compose import run_experiment
from ensemble.tracking.build import build_trackers
from ensemble.tracking.event_log import EventLog, latest_histories, read_events
from ensemble.tracking.figures import ENSEMBLE, MEMBER
from ensemble.tracking.projected import ProjectedTracker
from ensemble.tracking.tensorboard_files import TensorBoardFiles
from ensemble.tracking.wandb_projection import Shown
from tests import preloaded
from tests.contracts.tracker_contract import T0, TrackerContract, a_run, epoch
from tests.tracking.judgement import keep_judgement
from tests.tracking.killed_run import killed_in_the_midst

CONFIG = {
    "name": "bag", "seed": 3, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"}, "model": {"name": "lenet5"},
    "training": {"lr": 1e-3, "betas": [0.9, 0.999], "deterministic": True}, "aggregator": "hard",
}  # fmt: skip
RUN: dict[str, Any] = {
    "name": "bag", "seed": 5, "num_members": 3, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": (64,)}, "training": {"epochs": 20},
    "compute": {"executor": "inline", "device": "cpu", "stack_size": 1, "checkpoint_every_s": 0.05},
    "tracking": {"wandb": {"mode": "disabled"}, "tensorboard": True},
}  # fmt: skip


def tracker_of(folder: Path, lines: list[str], earlier=()) -> ProjectedTracker:
    return ProjectedTracker(
        "TensorBoard", lambda: TensorBoardFiles(folder), Shown(), "bag", CONFIG, folder, earlier=earlier, notify=lines.append
    )  # fmt: skip


def tell(folder: Path, events, earlier=(), ok=True) -> None:
    lines: list[str] = []
    tracker = tracker_of(folder, lines, earlier)
    for moment, event in events:
        tracker.handle(event, moment)
    tracker.close(ok)
    assert lines == []
    assert tracker.complete


def read(folder: Path) -> dict[str, EventAccumulator]:
    """All runs below a run folder, whole."""
    found = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        found[path.name] = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
        found[path.name].Reload()
    return found


def curves(run: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    return {tag: [(each.step, each.value) for each in run.Scalars(tag)] for tag in run.Tags()["scalars"]}


def text(run: EventAccumulator, tag: str) -> str:
    (found,) = run.Tensors(tag)
    return found.tensor_proto.string_val[0].decode()


def near(*values: tuple[int, float]) -> list[tuple[int, Any]]:
    """As float32 has them."""
    return [(step, pytest.approx(value)) for step, value in values]


class TestContract(TrackerContract):
    @pytest.fixture
    def tracker(self, tmp_path):
        lines = []
        tracker = tracker_of(tmp_path, lines)
        yield tracker
        tracker.close(False)
        assert lines == []
        assert tracker.complete


def test_curves_have_the_figures_names_and_their_axis_as_step(tmp_path):
    tell(tmp_path, a_run())
    runs = read(tmp_path)
    assert list(runs) == ["ensemble", "m0000", "m0001", "m0002"]
    member = curves(runs["m0000"])
    assert member["validation/error"] == near((1, 0.1), (2, 0.05), (3, 0.1 / 3))
    assert member["train/loss"] == near((1, 1.5), (2, 0.75), (3, 0.5))
    assert member["kept/epoch"] == [(0, 3.0)]
    assert set(member) <= {figure.name for figure in MEMBER}
    assert text(runs["m0000"], "status") == "finished"
    # Of a member that was tried again only the last try.
    assert curves(runs["m0002"])["validation/error"] == near((1, 0.3))
    assert text(runs["m0002"], "failure/reason") == "the loss became nan"
    whole = curves(runs["ensemble"])
    assert whole["member/train_seconds"] == near((1, 7.5), (2, 7.5))
    assert [step for step, _ in whole["live/members"]] == [
        2,
        4,
        6,
        7,
        8,
    ]  # a row where all that train side by side have got on
    assert whole["members/failed"] == [(0, 1.0)]
    assert set(whole) <= {figure.name for figure in ENSEMBLE} | {"error/soft", "p/mcnemar"}
    assert runs["m0000"].Scalars("train/loss")[0].wall_time == a_run()[2][0]


def test_the_configuration_is_text_and_hyperparameters(tmp_path):
    tell(tmp_path, a_run())
    runs = read(tmp_path)
    assert "method:\n      name: bagging" in text(runs["ensemble"], "config")
    content = runs["m0001"].SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    info = HParamsPluginData.FromString(content).session_start_info
    assert info.hparams["training.lr"].number_value == 1e-3
    assert info.hparams["training.betas"].string_value == "[0.9, 0.999]"
    assert info.hparams["training.deterministic"].bool_value
    assert info.hparams["member"].number_value == 1
    ends = {
        name: HParamsPluginData.FromString(
            run.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
        ).session_end_info.status
        for name, run in runs.items()
    }
    assert ends == {"ensemble": 1, "m0000": 1, "m0001": 1, "m0002": 2}  # success, failure


def test_the_judgement_is_scalars_and_texts(tmp_path):
    keep_judgement(tmp_path)
    tell(tmp_path, a_run())
    run = read(tmp_path)["ensemble"]
    found = curves(run)
    assert found["error/test"] == near((0, 0.1))
    assert found["verdict/p_value"] == near((0, 0.25))
    assert found["size/error"] == near((1, 0.15), (2, 0.1))
    assert text(run, "verdict/sentence") == "It is not better."
    table = text(run, "leaderboard").splitlines()
    assert table[0].startswith("| kind | name | ")
    assert table[2].startswith("| vote | soft | ")


@pytest.mark.parametrize("cut", [1, 5, 9, 13, 16])
def test_a_run_that_goes_on_has_the_curves_of_one_that_was_never_stopped(tmp_path, cut):
    """Whatever the first start had told; the second trains the member anew that it finds unfinished."""
    log, events = tmp_path / "events.jsonl", a_run()
    written = EventLog(log)
    for moment, event in events[:cut]:
        written.handle(event, moment)
    written.close(False)
    tell(tmp_path, events[:cut], ok=False)
    repeated = [event for event in events[:cut] if isinstance(event[1], EpochFinished)][-1:]
    again = [(T0 + 99, RunStarted("bag", "bagging", 3, 0, "inline", 1)), *repeated, *events[cut:]]
    tell(tmp_path, again, read_events(log))
    calm = tmp_path / "calm"
    tell(calm, events)
    found, expected = read(tmp_path), read(calm)
    assert list(found) == list(expected)
    for name in found:
        of_axis = {
            tag: points for tag, points in curves(found[name]).items() if not tag.startswith("live/") or not repeated
        }
        assert of_axis == {tag: points for tag, points in curves(expected[name]).items() if tag in of_axis}, name
        for points in curves(found[name]).values():
            steps = [step for step, _ in points]
            assert steps == sorted(set(steps)), "no step twice, none back"
        assert len(list((tmp_path / "tensorboard" / name).iterdir())) == 1


def test_a_value_that_replaces_another_of_its_step_is_the_only_one_there(tmp_path):
    """A member that was found damaged is trained again: as many have finished as before."""
    first = MemberFinished(0, "lenet5", 61706, 7.5, 1, 0.1)
    events = [RunStarted("bag", "bagging", 2, 0, "inline", 1), epoch(0, 1), first]
    events += [dataclasses.replace(first, validation_error=0.4), RunFinished(1, 0, 1.0, {})]
    tell(tmp_path, [(T0 + number, event) for number, event in enumerate(events)])
    assert curves(read(tmp_path)["ensemble"])["member/validation_error"] == near((1, 0.4))
    assert curves(read(tmp_path)["m0000"])["kept/validation_error"] == near((0, 0.4))


def test_it_can_be_watched_while_the_run_goes_on(tmp_path):
    lines: list[str] = []
    tracker = tracker_of(tmp_path, lines)
    for moment, event in a_run()[:4]:
        tracker.handle(event, moment)
    deadline = time.monotonic() + 30
    while not (tmp_path / "tensorboard" / "m0001").exists() or not curves(read(tmp_path)["m0001"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert curves(read(tmp_path)["m0001"])["train/loss"] == near((1, 1.5))
    tracker.close(False)
    assert lines == []
    assert text(read(tmp_path)["ensemble"], "config")


def test_other_files_in_the_folder_stay(tmp_path):
    mine = tmp_path / "tensorboard" / "mine" / "events.out.tfevents.1.host"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"")
    tell(tmp_path, a_run())
    assert mine.exists()


def test_what_cannot_be_written_is_said_and_training_goes_on(tmp_path):
    root = tmp_path / "runs"
    (root / "bag").mkdir(parents=True)
    (root / "bag" / "tensorboard").write_text("in the way")
    lines: list[str] = []
    tracker = tracker_of(root / "bag", lines)
    for moment, event in a_run():
        tracker.handle(event, moment)
    tracker.close(True)
    (line,) = lines
    assert line.startswith("TensorBoard: ")
    assert line.endswith("; the run itself is unharmed, started once more it is told there again, whole")
    assert not tracker.complete


def test_without_the_package_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    experiment = parse_experiment({**RUN, "output_dir": str(tmp_path / "runs")})
    with pytest.raises(
        ConfigError, match=r"tracking\.tensorboard is true and needs the package tensorboard: pip install"
    ):
        run_experiment(experiment, "silent")
    assert not (tmp_path / "runs").exists()


def test_nothing_is_written_unless_asked_for(tmp_path):
    off = parse_experiment({**RUN, "tracking": {"wandb": {"mode": "disabled"}}})
    for experiment, expected in ((off, False), (parse_experiment(RUN), True)):
        trackers = build_trackers(experiment, tmp_path, "silent")
        assert any(isinstance(tracker, ProjectedTracker) for tracker in trackers) == expected
        for tracker in trackers:
            tracker.close(True)


def command(root: Path) -> list[str]:
    (root / "bag.yaml").write_text(json.dumps({**RUN, "output_dir": str(root)}))
    return [sys.executable, "-m", "ensemble", "train", str(root / "bag.yaml"), "-q"]


@pytest.mark.timeout(600)
def test_a_run_that_was_killed_shows_each_epoch_once(tmp_path):
    log = tmp_path / "bag" / "events.jsonl"
    killed_in_the_midst(command(tmp_path), log, 25)
    preloaded.run(command(tmp_path), check=True, capture_output=True, timeout=240)
    for _ in range(2):  # and once more, when nothing is left to train
        runs, histories = read(tmp_path / "bag"), latest_histories(log)
        assert list(runs) == ["ensemble", "m0000", "m0001", "m0002"]
        for member, rows in histories.items():
            found = curves(runs[f"m{member:04d}"])
            assert found["validation/error"] == near(*((row.epoch, row.validation_error) for row in rows))
            assert len(found["train/loss"]) == 20
        ensemble = curves(runs["ensemble"])
        assert [step for step, _ in ensemble["vote/validation_error"]] == [1, 2, 3]
        assert [step for step, _ in ensemble["epoch/validation_error_mean"]] == list(range(1, 21))
        judged = json.loads((tmp_path / "bag" / "evaluation.json").read_text())["leaderboard"]
        assert ensemble["error/test"] == near((0, next(row["test_error"] for row in judged if row["headline"])))
        assert '"tensorboard' not in (tmp_path / "bag" / "manifest.json").read_text()
        preloaded.run(command(tmp_path), check=True, capture_output=True, timeout=240)
