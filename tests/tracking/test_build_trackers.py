"""The listeners that a configuration asks for, together."""

from __future__ import annotations

import pytest

from ensemble.config.schema import Experiment, TrackingConfig
from ensemble.events import Notice
from ensemble.methods.one_round import DeepEnsembleConfig
from ensemble.tracking.base import Composite
from ensemble.tracking.build import build_trackers
from ensemble.tracking.console import PlainConsole, WarningsOnly
from ensemble.tracking.event_log import EventLog
from ensemble.tracking.ray_metrics import RayMetrics
from ensemble.tracking.trackers.wandb import WandbConfig
from ensemble.tracking.wandb_tracker import WandbTracker
from tests.contracts.tracker_contract import T0, a_run
from tests.tracking.wandb_reader import read_folder


def experiment(mode):
    return Experiment(
        name="bag",
        num_members=3,
        method=DeepEnsembleConfig(name="deep_ensemble"),
        model={"name": "lenet5"},
        tracking=TrackingConfig(wandb=WandbConfig(mode=mode)),
    )


@pytest.mark.parametrize(
    ("mode", "console", "expected"),
    [
        ("disabled", "progress", [RayMetrics, PlainConsole]),
        ("disabled", "warnings", [RayMetrics, WarningsOnly]),
        ("disabled", "silent", [RayMetrics]),
    ],
)
def test_only_what_is_asked_for(tmp_path, mode, console, expected):
    assert [type(tracker) for tracker in build_trackers(experiment(mode), tmp_path, console)] == expected
    assert list(tmp_path.iterdir()) == []


def test_warnings_are_told_even_where_progress_is_not(tmp_path, capsys):
    trackers = Composite(build_trackers(experiment("disabled"), tmp_path, "warnings"))
    for moment, event in [
        *a_run(),
        (T0, Notice("data: left out 3 files", warning=True)),
        (T0, Notice("quick kernels")),
    ]:
        trackers.handle(event, moment)
    trackers.close(True)
    assert capsys.readouterr() == ("", "note: data: left out 3 files\n")


def test_what_weights_and_biases_has_to_say_is_on_the_console(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    log = EventLog(tmp_path / "events.jsonl")
    for moment, event in a_run()[:9]:  # an earlier start finished member 0
        log.handle(event, moment)
    log.close(False)
    trackers = build_trackers(experiment("online"), tmp_path, "progress")
    assert [type(tracker) for tracker in trackers] == [WandbTracker, RayMetrics, PlainConsole]
    both = Composite(trackers)
    for moment, event in a_run()[9:]:
        both.handle(event, moment)
    both.close(True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("note: W&B: no API key found; logging offline") == 1
    runs = {id.rsplit("-", 1)[1]: found for id, found in read_folder(tmp_path).items()}
    finished = [row["member/index"] for row in runs["ensemble"].history if "member/index" in row]
    assert finished == [0, 1, 2]
    assert runs["ensemble"].history[0]["_timestamp"] >= T0
