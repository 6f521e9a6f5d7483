"""MLflow's runs of a run, read back by MLflow's own client."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
from mlflow import MlflowClient

from ensemble.config import parse_experiment
from ensemble.errors import ConfigError
from ensemble.events import RunStarted
from ensemble.run.compose import run_experiment
from ensemble.tracking.event_log import EventLog, latest_histories, read_events
from ensemble.tracking.mlflow_runs import MlflowRuns
from ensemble.tracking.projected import ProjectedTracker
from ensemble.tracking.trackers.mlflow import MlflowConfig, require_mlflow, tracking_uri
from ensemble.tracking.wandb_projection import Shown
from tests import preloaded
from tests.contracts.tracker_contract import T0, TrackerContract, a_run
from tests.tracking.judgement import keep_judgement
from tests.tracking.killed_run import killed_in_the_midst

# What MLflow and SQLAlchemy have to say to each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

CONFIG = {
    "name": "bag", "seed": 3, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"}, "model": {"name": "lenet5"},
    "training": {"lr": 1e-3, "betas": [0.9, 0.999]}, "aggregator": "hard",
}  # fmt: skip
RUN: dict[str, Any] = {
    "name": "bag", "seed": 5, "num_members": 3, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": (64,)}, "training": {"epochs": 20},
    "compute": {"executor": "inline", "device": "cpu", "stack_size": 1, "checkpoint_every_s": 0.05},
    "tracking": {"wandb": {"mode": "disabled"}, "mlflow": {"enabled": True, "experiment": "nights"}},
}  # fmt: skip


def uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


def tracker_of(folder: Path, lines: list[str], earlier=(), members="full") -> ProjectedTracker:
    folder.mkdir(exist_ok=True)
    return ProjectedTracker(
        "MLflow", lambda: MlflowRuns(uri(folder.parent), "nights", folder.parent, lines.append), Shown(members=members), "bag",
        CONFIG, folder, earlier=earlier, notify=lines.append, close_timeout_s=120,
    )  # fmt: skip


def tell(folder: Path, events, earlier=(), ok=True, members="full") -> None:
    lines: list[str] = []
    tracker = tracker_of(folder, lines, earlier, members)
    for moment, event in events:
        tracker.handle(event, moment)
    tracker.close(ok)
    assert lines == []
    assert tracker.complete


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("store")
    MlflowClient(uri(home)).search_experiments()
    return home / "mlflow.db"


@pytest.fixture(autouse=True)
def store_at_hand(tmp_path, empty_store) -> None:
    """Making one takes seconds; where a run makes its own, it does so in a folder below."""
    shutil.copy(empty_store, tmp_path)


class Store:
    """All runs of an experiment that are not deleted, by the last part of their names."""

    def __init__(self, home: Path) -> None:
        self.client = MlflowClient(uri(home))
        experiment = self.client.get_experiment_by_name("nights")
        found = self.client.search_runs([experiment.experiment_id])
        self.runs = {run.info.run_name.rpartition(" ")[2]: run for run in found}
        assert len(self.runs) == len(found), "two runs of one name"

    def curve(self, run: str, metric: str) -> list[tuple[int, Any]]:
        rows = self.client.get_metric_history(self.runs[run].info.run_id, metric)
        return [(row.step, row.value) for row in sorted(rows, key=lambda row: row.step)]

    def artifact(self, run: str, name: str) -> str:
        return Path(self.client.download_artifacts(self.runs[run].info.run_id, name)).read_text()


class TestContract(TrackerContract):
    @pytest.fixture
    def tracker(self, tmp_path):
        lines = []
        tracker = tracker_of(tmp_path / "bag", lines)
        yield tracker
        tracker.close(False)
        assert lines == []
        assert tracker.complete


def test_members_are_nested_in_the_ensembles_run(tmp_path):
    keep_judgement(tmp_path / "bag")
    tell(tmp_path / "bag", a_run())
    store = Store(tmp_path)
    assert set(store.runs) == {"ensemble", "m0000", "m0001", "m0002"}
    parent = store.runs["ensemble"]
    for name in ("m0000", "m0001", "m0002"):
        assert store.runs[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {name: run.info.status for name, run in store.runs.items()} == {
        "ensemble": "FINISHED", "m0000": "FINISHED", "m0001": "FINISHED", "m0002": "FAILED",
    }  # fmt: skip
    assert store.curve("m0000", "validation/error") == [(1, 0.1), (2, 0.05), (3, 0.1 / 3)]
    assert store.curve("m0002", "validation/error") == [(1, 0.3)], "of a member that was tried again the last try"
    assert store.curve("ensemble", "member/train_seconds") == [(1, 7.5), (2, 7.5)]
    assert store.curve("ensemble", "size/error") == [(1, 0.15), (2, 0.1)]
    assert parent.data.params["training.betas"] == "[0.9, 0.999]"
    assert store.runs["m0001"].data.params["member"] == "1"
    assert parent.data.metrics["error/test"] == 0.1
    assert parent.data.tags["verdict/sentence"] == "It is not better."
    assert store.runs["m0002"].data.tags["failure/reason"] == "the loss became nan"
    assert store.artifact("ensemble", "tables/leaderboard.csv").splitlines()[1].startswith("vote,soft,")
    assert "name: bagging" in store.artifact("ensemble", "config.yaml")
    assert parent.info.start_time == round(T0 * 1000)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and not path.name.startswith(".")) == [
        "bag"
    ]


@pytest.mark.parametrize("members", ["summary", "none"])
def test_members_may_be_kept_short(tmp_path, members):
    tell(tmp_path / "bag", a_run(), members=members)
    store = Store(tmp_path)
    if members == "none":
        assert set(store.runs) == {"ensemble"}
        assert store.artifact("ensemble", "tables/members.csv").splitlines()[1].startswith("0,lenet5,finished,3,")
    else:
        assert store.curve("m0000", "validation/error") == []
        assert store.runs["m0000"].data.metrics["kept/validation_error"] == 0.1 / 3


def test_told_again_it_is_the_same_runs(tmp_path):
    events, log = a_run(), tmp_path / "events.jsonl"
    written = EventLog(log)
    for moment, event in events[:9]:
        written.handle(event, moment)
    written.close(False)
    tell(tmp_path / "bag", events[:9], ok=False)
    assert Store(tmp_path).runs["ensemble"].info.status == "FAILED"
    tell(tmp_path / "bag", [(T0 + 99, RunStarted("bag", "bagging", 3, 1, "inline", 1)), *events[9:]], read_events(log))
    (tmp_path / "calm").mkdir()
    tell(tmp_path / "calm" / "bag", events)
    found, expected = Store(tmp_path), Store(tmp_path / "calm")
    assert set(found.runs) == set(expected.runs)
    for name, run in expected.runs.items():
        assert found.runs[name].info.status == run.info.status
        assert set(found.runs[name].data.metrics) == set(run.data.metrics)
        for metric in run.data.metrics:
            assert found.curve(name, metric) == expected.curve(name, metric), (name, metric)


def test_a_server_that_is_not_there_harms_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    lines: list[str] = []
    tracker = ProjectedTracker(
        "MLflow", lambda: MlflowRuns("http://127.0.0.1:9", "nights", tmp_path, lines.append), Shown(), "bag", CONFIG, tmp_path,
        notify=lines.append, close_timeout_s=120,
    )  # fmt: skip
    for moment, event in a_run():
        tracker.handle(event, moment)
    tracker.close(True)
    (line,) = lines
    assert line.startswith("MLflow: MlflowException: ")
    assert line.endswith("; the run itself is unharmed, started once more it is told there again, whole")


def test_where_it_goes(tmp_path):
    folder = tmp_path / "bag"
    assert tracking_uri(MlflowConfig(), folder, {}) == uri(tmp_path)
    assert tracking_uri(MlflowConfig(), folder, {"MLFLOW_TRACKING_URI": "http://a"}) == "http://a"
    assert tracking_uri(MlflowConfig(uri="http://b"), folder, {"MLFLOW_TRACKING_URI": "http://a"}) == "http://b"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("mlruns", "expected the address of a server or a database"),
        ("file:///tmp/mlruns", "expected the address of a server or a database"),
        ("https://me:secret@host/", "holds a secret.* set MLFLOW_TRACKING_URI, or for a server"),
    ],
)
def test_addresses_that_cannot_be_taken(given, problem):
    with pytest.raises(ConfigError, match=rf"tracking\.mlflow\.uri.*{problem}"):
        parse_experiment({**RUN, "tracking": {"mlflow": {"enabled": True, "uri": given}}})


@pytest.mark.parametrize("module", ["mlflow", "alembic"])
def test_without_a_package_nothing_is_begun(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    experiment = parse_experiment({**RUN, "output_dir": str(tmp_path / "runs")})
    with pytest.raises(ConfigError, match=r"tracking\.mlflow\.enabled is true and needs .*: pip install"):
        run_experiment(experiment, "silent")
    assert not (tmp_path / "runs").exists()
    if module == "alembic":  # which only a database needs
        require_mlflow(MlflowConfig(enabled=True, uri="http://host"), {})


def command(root: Path) -> list[str]:
    (root / "bag.yaml").write_text(json.dumps({**RUN, "output_dir": str(root)}))
    return [sys.executable, "-m", "ensemble", "train", str(root / "bag.yaml"), "-q"]


@pytest.mark.timeout(600)
def test_a_run_that_was_killed_shows_each_epoch_once(tmp_path):
    root = tmp_path / "new"
    root.mkdir()
    log = root / "bag" / "events.jsonl"
    killed_in_the_midst(command(root), log, 25)
    done = preloaded.run(command(root), check=True, capture_output=True, text=True, timeout=240)
    assert "mlflow" not in done.stderr.lower()
    assert {path.name for path in root.iterdir()} == {"bag", "bag.yaml", "mlflow.db", ".mlflow-artifacts"}
    store, histories = Store(root), latest_histories(log)
    assert set(store.runs) == {"ensemble", "m0000", "m0001", "m0002"}
    for member, rows in histories.items():
        assert store.curve(f"m{member:04d}", "validation/error") == [(row.epoch, row.validation_error) for row in rows]
        assert len(rows) == 20
    assert [step for step, _ in store.curve("ensemble", "vote/validation_error")] == [1, 2, 3]
    assert {run.info.status for run in store.runs.values()} == {"FINISHED"}
