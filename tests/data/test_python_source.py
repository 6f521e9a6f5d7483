"""Images that a function in a file beside the configuration gives: its text is the run's, and is executed only on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ensemble
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.config.loading import parse_stored
from ensemble.data import load_dataset
from ensemble.errors import ConfigError
from ensemble.launch.upload import collect
from ensemble.results.run_data import load_run_data
from ensemble.storage import RunFolder
from tests.own_code_doors import same_weights_through_every_door, trained_without_its_files

DATA = """
import numpy as np
from shapes import drawn


class Rows:
    classes = ["upright", "lying"]

    def __init__(self, count, seed):
        self.count, self.seed = count, seed

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        from later import tone
        return drawn(row, self.seed, tone), row % 2


def make_data(count=60):
    return {"train": Rows(count, 0), "validation": Rows(20, 1), "test": Rows(30, 2)}


def as_arrays(count=60):
    images = np.stack([drawn(row, 0, 250) for row in range(count)])
    return images, np.arange(count) % 2


def broken():
    return 1 / 0


def broken_rows():
    class Odd(Rows):
        def __getitem__(self, row):
            return [][row]

    return {"train": Odd(10, 0)}


def nothing():
    return None
"""
SHAPES = """
import numpy as np


def drawn(row, seed, tone):
    generator = np.random.default_rng([row, seed])
    image = generator.integers(0, 60, (8, 8)).astype(np.uint8)
    (image if row % 2 else image.T)[generator.integers(8)] = tone
    return image
"""
KEYS: dict[str, Any] = {
    "num_members": 2, "method": {"name": "bagging"}, "data": {"name": "python", "path": "my_data.py:make_data", "args": {"count": 50}},
    "model": {"name": "mlp", "widths": [8]}, "training": {"epochs": 2, "batch_size": 16},
    "compute": {"executor": "inline", "device": "cpu", "stack_size": 1}, "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
FILES = {"my_data.py": DATA, "shapes.py": SHAPES, "later.py": "tone = 250\n", "unused.py": "1 / 0\n"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "own.yaml").write_text(json.dumps(KEYS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def section(path: str, **keys: Any) -> Any:
    values = {**KEYS, "name": "x", "model": {"name": "mlp"}, "data": {"name": "python", "path": path, **keys}}
    return parse_experiment(values).data


def test_parts_and_class_names_are_those_that_the_function_gives(home: Path) -> None:
    data = load_dataset(section("my_data.py:make_data"))
    assert data.name == "my_data.py:make_data (python)"
    assert data.class_names == ("upright", "lying")
    assert (len(data.train_labels_N), len(data.test_labels_N)) == (80, 30)
    assert data.validation_rows is not None
    assert data.validation_rows.tolist() == list(range(60, 80))
    whole = load_dataset(section("my_data.py:as_arrays", args={"count": 40}, test_fraction=0.5))
    assert (len(whole.train_labels_N), len(whole.test_labels_N)) == (20, 20)


def test_the_text_travels_and_is_executed_only_on_request(home: Path) -> None:
    with trained_without_its_files(home, FILES) as folder:
        assert sorted(RunFolder.read(folder).config()["data"]["code"]) == ["later.py", "my_data.py", "shapes.py"]
        (home / "x.pgm").write_bytes(b"P5 8 8 255 " + bytes(64))
        assert run("predict", "runs/own", "x.pgm").exit_code == 0, "predicting needs no data"
        assert run("export", "runs/own", "--format", "torch_export").exit_code == 0
        refused = run("evaluate", "runs/own", "--on", "mnist_c")
        assert refused.exit_code == 2, refused.output
        assert "reading them would execute that; read it, then give --trust-code" in refused.output
        done = run("evaluate", "runs/own", "--on", "cifar10_c", "--trust-code")
        assert done.exit_code == 0, done.output
        with pytest.raises(ConfigError, match=r"data\.code in config\.yaml"):
            load_run_data(RunFolder.read(folder))
        assert len(load_run_data(RunFolder.read(folder), trust_code=True).test_labels_N) == 30


def test_a_changed_file_is_refused_with_the_difference(home: Path) -> None:
    assert run("train", "own.yaml", "-q").exit_code == 0
    (home / "shapes.py").write_text(SHAPES + "changed = 1\n")
    done = run("train", "own.yaml", "-q")
    assert done.exit_code == 2
    assert "data.code.shapes.py:" in done.output
    assert "+changed = 1" in done.output
    assert "class Rows" not in done.output
    (home / "shapes.py").write_text(SHAPES)
    done = run("train", "own.yaml", "-q", "data.args={count: 52}")
    assert "data.args.count: 50 in the folder, 52 now" in done.output


def test_ray_and_launched_ranks_need_no_file(home: Path) -> None:
    same_weights_through_every_door(home, members=2)


def test_further_sets_sweeps_and_python_find_it_too(home: Path) -> None:
    sets = [{"name": "more", "kind": "shifted", "data": {"name": "python", "path": "my_data.py:as_arrays"}}]
    (home / "below").mkdir()
    for name in FILES:
        (home / name).rename(home / "below" / name)
    text = json.dumps({**KEYS, "data": {"name": "digits", "max_train_rows": 100}, "evaluation": {"sets": sets}})
    (home / "below/own.yaml").write_text(text)
    trained = ensemble.train(home / "below/own.yaml")
    assert [one.name for one in trained.evaluation.shifted] == ["more"]
    assert list(trained.config["evaluation"]["sets"][0]["data"]["code"]) == ["later.py", "my_data.py", "shapes.py"]
    (home / "below/sweep.yaml").write_text(json.dumps(KEYS))
    done = run("sweep", "below/sweep.yaml", "data.args={count: 40},{count: 50}", "training.epochs=1", "-q", "--json")
    assert done.exit_code == 0, done.output


def test_a_job_takes_its_files_along(home: Path) -> None:
    assert set(collect(Path("own.yaml")).files) == {"own.yaml", "my_data.py", "shapes.py", "later.py"}
    sets = [{"name": "more", "kind": "shifted", "data": {"name": "python", "path": "my_data.py:as_arrays"}}]
    (home / "sets.yaml").write_text(json.dumps({**KEYS, "data": {"name": "digits"}, "evaluation": {"sets": sets}}))
    assert set(collect(Path("sets.yaml")).files) == {"sets.yaml", "my_data.py", "shapes.py", "later.py"}


def test_a_stored_configuration_needs_no_file(home: Path) -> None:
    experiment = parse_experiment({**KEYS, "name": "x", "model": {"name": "mlp"}})
    for name in FILES:
        (home / name).unlink()
    stored = parse_stored(json.loads(json.dumps(experiment.model_dump(mode="json"))))
    assert stored.data == experiment.data
    assert len(load_dataset(stored.data).test_labels_N) == 30, "what is asked of the text alone"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "my_data.py"}, "data.path = 'my_data.py': expected FILE.py:NAME with a file beside the configuration"),
        ({"path": "../my_data.py:make_data"}, "expected FILE.py:NAME"),
        ({"path": "gone.py:make_data"}, "gone.py: cannot be read: No such file or directory"),
        ({"path": "my_data.py:make"}, "data.path my_data.py:make: there is no such class or function in my_data.py; expected one of those it has: Rows, as_arrays"),
        ({"path": "unused.py:make"}, "data.path unused.py:make: executing the file failed: unused.py:1: ZeroDivisionError"),
        ({"path": "my_data.py:broken"}, "my_data.py:broken(): failed: my_data.py:30: ZeroDivisionError"),
        ({"path": "my_data.py:broken_rows"}, "my_data.py:broken_rows(): data (train), row 0: cannot be read, and the data set must give every row: IndexError: list index out of range (my_data.py:36: IndexError"),
        ({"path": "my_data.py:nothing"}, "data set my_data.py:nothing (python): found NoneType; expected"),
        ({"path": "my_data.py:make_data", "args": {"counts": 3}}, "unexpected keyword argument 'counts'"),
        ({"path": "my_data.py:make_data", "code": {"my_data.py": "1"}}, "data.code is filled in from the files themselves"),
        ({"path": "my_data.py:make_data", "root": "x"}, "root has no effect with data set python, which takes"),
        ({}, "data set python needs path, FILE.py:NAME"),
    ],
)  # fmt: skip
def test_mistakes_are_named(home: Path, data: dict[str, Any], message: str) -> None:
    (home / "own.yaml").write_text(json.dumps({**KEYS, "data": {"name": "python", **data}}))
    done = run("train", "own.yaml", "-q")
    assert done.exit_code in (2, 3), done.output
    assert message in done.output
    assert not (home / "runs").exists()
