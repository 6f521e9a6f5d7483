"""A tracker of a script or of an installed package: one class, one line, and everything there is works with it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from click.testing import CliRunner
from pydantic import Field

from ensemble import TrackerJob, TrackerSection, register_tracker
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.config.base import Part
from ensemble.config.json_schema import json_schema
from ensemble.config.keys import kind_of
from ensemble.config.loading import parse_stored
from ensemble.config.schema import TrackingConfig
from ensemble.errors import ConfigError
from ensemble.events import EpochFinished, Event, RunFinished
from ensemble.run.compose import run_experiment
from ensemble.storage.identity import differences
from ensemble.tracking.run_identity import config_hash
from tests.contracts.tracker_contract import TrackerContract
from tests.installed_package import install

KEYS: dict[str, Any] = {
    "name": "own", "num_members": 2, "method": {"name": "bagging"}, "data": {"name": "digits", "max_train_rows": 300},
    "model": {"name": "mlp", "widths": (8,)}, "training": {"epochs": 2, "batch_size": 32},
    "compute": {"executor": "inline", "device": "cpu"},
}  # fmt: skip
OFF = {"wandb": {"mode": "disabled"}}
PACKAGE = """
from ensemble import TrackerSection, register_tracker
class Count(TrackerSection):
    "Counts."
    step: int = 1
    def build(self, job):
        return Counter(job.folder / "count.txt", self.step)
class Counter:
    def __init__(self, path, step):
        self.path, self.step, self.count = path, step, 0
    def handle(self, event, time):
        self.count += self.step
    def close(self, ok):
        self.path.write_text(str(self.count))
register_tracker("count_of_a_package")(Count)
"""


class Toy(TrackerSection):
    """Remembers what it hears."""

    note: str = Field("heard", min_length=1)
    every: int = Field(1, ge=1)
    heard: ClassVar[list[tuple[str, Event]]] = []

    def build(self, job: TrackerJob) -> Listener:
        job.notify(f"{job.name}: {len(job.earlier())} earlier events")
        return Listener(self)


class Listener:
    def __init__(self, section: Toy) -> None:
        self.section = section

    def handle(self, event: Event, _time: float) -> None:
        Toy.heard.append((self.section.note, event))

    def close(self, _ok: bool) -> None: ...


class Sign(TrackerSection):
    """Written without a section of keys."""

    value_of = "colour"
    colour: str | None = None

    @property
    def wanted(self) -> bool:
        return self.colour is not None

    def build(self, _job: TrackerJob) -> Listener:
        return Listener(Toy(note=self.colour or ""))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trackers that a test registers are forgotten after it."""
    monkeypatch.setattr(TrackerSection.registry, "_parts", {**TrackerSection.registry.all()})
    register_tracker("toy")(Toy)
    register_tracker("sign")(Sign)
    Toy.heard.clear()
    yield
    Part.registered += 1


def experiment(folder: Path, **tracking: Any) -> Any:
    return parse_experiment({**KEYS, "output_dir": str(folder), "tracking": {**OFF, **tracking}})


class TestListener(TrackerContract):
    @pytest.fixture
    def tracker(self) -> Listener:
        return Listener(Toy())


def test_hears_a_whole_run_and_its_next_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = experiment(tmp_path, toy={"note": "red"}, sign="green")
    run = run_experiment(given, "progress").path
    assert "note: own: 0 earlier events\n" in capsys.readouterr().err
    for note in ("red", "green"):
        heard = [event for told, event in Toy.heard if told == note]
        assert sum(isinstance(event, EpochFinished) for event in heard) == 4
        assert isinstance(heard[-1], RunFinished)
    assert yaml.safe_load((run / "config.yaml").read_text())["tracking"]["toy"] == {"note": "red", "every": 1}
    before = len((run / "events.jsonl").read_text().splitlines())
    (run / "members/0001/votes.npz").unlink()
    Toy.heard.clear()
    assert run_experiment(experiment(tmp_path, toy={"note": "blue"}), "progress").path == run
    assert f"note: own: {before} earlier events\n" in capsys.readouterr().err
    assert {note for note, _ in Toy.heard} == {"blue"}
    assert 1 in {event.member for _, event in Toy.heard if isinstance(event, EpochFinished)}
    assert CliRunner().invoke(main, ["report", str(run)]).exit_code == 0


def test_a_run_is_read_and_goes_on_where_its_tracker_is_not_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_experiment(experiment(tmp_path, toy={}), "silent").path
    stored = yaml.safe_load((run / "config.yaml").read_text())
    identity = config_hash(stored)
    for name in ("toy", "sign"):
        monkeypatch.delitem(TrackerSection.registry._parts, name)
    Part.registered += 1
    assert "toy" not in parse_stored(stored).model_dump(mode="json")["tracking"]
    plain = experiment(tmp_path)
    assert differences(stored, plain.model_dump(mode="json")) == []
    assert config_hash(plain.model_dump(mode="json")) == identity
    assert run_experiment(plain, "silent").trained == 0
    for command in ("evaluate", "report", "check", "watch"):
        done = CliRunner().invoke(main, [command, str(run)])
        assert done.exit_code == 0, done.output


def test_its_keys_are_checked_like_all_others(tmp_path: Path) -> None:
    def mistake(**tracking: Any) -> str:
        with pytest.raises(ConfigError) as error:
            experiment(tmp_path, **tracking)
        return str(error.value)

    assert "tracking.toy.evry: unknown key; did you mean tracking.toy.every?" in mistake(toy={"evry": 2})
    assert "tracking.toy.every = 0: expected at least 1" in mistake(toy={"every": 0})
    assert "tracking.toi: unknown key; did you mean tracking.toy?" in mistake(toi={})
    assert "tracking.toy: expected a section of keys, found true" in mistake(toy=True)
    assert "tracking.sign = 3: expected text" in mistake(sign=3)
    assert (kind_of(("tracking", "toy", "note")), kind_of(("tracking", "sign"))) == ("text", "text")
    assert kind_of(("tracking", "toy", "every")) == "yaml"
    schema = json_schema()
    assert "every" in schema["$defs"]["Toy"]["properties"]
    assert {"wandb", "tensorboard", "toy", "sign"} <= schema["$defs"]["TrackingConfig"]["properties"].keys()


def test_what_it_lacks_is_said_before_there_is_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "packages", {"json": "never-needed", "not_there_at_all": "not-there"})
    wanted = "tracking.toy needs the package not-there, which is missing: pip install not-there, or leave the key out"
    with pytest.raises(ConfigError, match=wanted):
        run_experiment(experiment(tmp_path, toy={}), "silent")
    assert list(tmp_path.iterdir()) == []
    assert run_experiment(experiment(tmp_path), "silent").trained == 2


@pytest.mark.parametrize("console", ["progress", "warnings"])
def test_one_that_cannot_be_started_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], console: Any
) -> None:
    monkeypatch.setattr(Toy, "build", lambda *_: [][0])
    assert run_experiment(experiment(tmp_path, toy={}, sign="on"), console).trained == 2
    said = "tracking.toy: cannot be started and is left out; the run goes on: IndexError: list index out of range"
    assert said in capsys.readouterr().err
    assert {note for note, _ in Toy.heard} == {"on"}


def test_one_that_refuses_its_keys_ends_the_start_and_the_others_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ConfigError("tracking.toy.note: nobody listens there")

    closed = []
    monkeypatch.setattr(Toy, "build", refuse)
    monkeypatch.setattr(Listener, "close", lambda _, ok: closed.append(ok))
    with pytest.raises(ConfigError, match=r"tracking\.toy\.note: nobody listens there"):
        run_experiment(experiment(tmp_path, toy={}, sign="on"), "silent")
    assert closed == [False]
    assert not list(tmp_path.glob("own/members/*"))


def test_names_are_not_taken_twice() -> None:
    register_tracker("toy")(Toy)  # the same once more, as when a notebook's cell runs again

    class Other(Toy):
        pass

    for name in ("toy", "wandb"):
        with pytest.raises(ConfigError, match="there is one of that name already; choose another name"):
            register_tracker(name)(Other)
    for name in ("two words", "Upper", "sections", "model_dump"):
        with pytest.raises(TypeError, match="can be no key; expected a name such as csv_lines"):
            register_tracker(name)(Other)

    class Unbuilt(TrackerSection):
        pass

    with pytest.raises(TypeError, match="Unbuilt: needs a method build"):
        register_tracker("unbuilt")(Unbuilt)


def test_a_configuration_travels_to_other_processes(tmp_path: Path) -> None:
    given = experiment(tmp_path, toy={"every": 4}, sign="red", metrics_port=0)
    again = pickle.loads(pickle.dumps(given))
    assert again == given
    assert again.tracking.toy.every == 4
    assert isinstance(given.tracking, TrackingConfig)
    assert given.model_copy(deep=True) == given


@pytest.mark.parametrize("where", ["command line", "Python"])
def test_an_installed_package_brings_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Found by its entry point, by another process."""
    points = ["count_of_a_package = a_tracking_package:Count"]
    install(tmp_path, "a_tracking_package", PACKAGE, "ensemble.trackers", points, monkeypatch)
    keys = {**KEYS, "tracking": {**OFF, "count_of_a_package": {"step": 3}}, "output_dir": "here"}
    (tmp_path / "own.yaml").write_text(json.dumps(keys))
    by_name = "import ensemble; ensemble.train('own.yaml', {'training.epochs': 1})"
    words = ["-m", "ensemble", "train", "own.yaml", "-q"] if where == "command line" else ["-c", by_name]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = len((tmp_path / "here/own/events.jsonl").read_text().splitlines())
    assert int((tmp_path / "here/own/count.txt").read_text()) == 3 * events
