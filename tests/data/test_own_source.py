"""A source of images of a script or of an installed package: one class, one line, and everything there is works with it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import Field

import ensemble
from ensemble import DataConfig, register_data
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.config.base import Part
from ensemble.config.json_schema import json_schema
from ensemble.config.keys import kind_of
from ensemble.data import Dataset, load_dataset
from ensemble.data.published import Published
from ensemble.errors import ConfigError, DataError
from ensemble.executors import InlineExecutor
from ensemble.run.run import run_ensemble
from ensemble.storage import RunFolder
from tests import preloaded
from tests.installed_package import install

KEYS: dict[str, Any] = {
    "name": "own", "num_members": 3, "method": {"name": "bagging"}, "model": {"name": "mlp", "widths": (8,)},
    "training": {"epochs": 2, "batch_size": 16}, "compute": {"executor": "inline", "device": "cpu"},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
PACKAGE = """
from typing import Literal
import numpy as np
from ensemble import DataConfig
class Ramps(DataConfig):
    "Ramps to the right and to the left."
    name: Literal["ramps_of_a_package"]
    size: int = 8
    def build(self):
        ramp = np.arange(self.size) / self.size
        images = np.stack([np.tile(ramp[::1 - 2 * (i % 2)], (self.size, 1)) for i in range(60)])
        return images, np.arange(60) % 2
"""


class Bars(DataConfig):
    """Upright and lying bars."""

    name: Literal["bars"]
    side: int = Field(8, ge=4)
    tone: Literal["dark", "bright"] = "bright"

    def build(self) -> Any:
        generator = np.random.default_rng(self.side)
        images = generator.integers(0, 60, (90, self.side, self.side)).astype(np.uint8)
        labels_N = np.arange(90) % 2
        for image, label in zip(images, labels_N, strict=True):
            place = generator.integers(self.side)
            (image.T if label else image)[place] = 250 if self.tone == "bright" else 120
        return {"train": (images[:60], labels_N[:60]), "test": (images[60:], labels_N[60:])}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sources that a test registers are forgotten after it."""
    monkeypatch.setattr(DataConfig.registry, "_parts", {**DataConfig.registry.all()})
    register_data(Bars)
    yield
    Part.registered += 1


def train(folder: Path, data: dict[str, Any], **keys: Any) -> Path:
    experiment = parse_experiment({**KEYS, **keys, "data": data, "output_dir": str(folder)})
    return run_ensemble(experiment, lambda *_: InlineExecutor(), lambda _folder: ()).path


def test_trains_resumes_and_reports(tmp_path: Path) -> None:
    sets = ({"name": "dark", "kind": "shifted", "data": {"name": "bars", "tone": "dark"}},)
    run = train(tmp_path, {"name": "bars"}, evaluation={"sets": sets})
    votes = (run / "members/0001/votes.npz").read_bytes()
    (run / "members/0001/votes.npz").unlink()
    assert train(tmp_path, {"name": "bars"}, evaluation={"sets": sets}) == run
    assert (run / "members/0001/votes.npz").read_bytes() == votes
    for command in ("evaluate", "report", "check", "card"):
        done = CliRunner().invoke(main, [command, str(run)])
        assert done.exit_code == 0, done.output
    assert "bars" in (run / "report.html").read_text()
    facts = RunFolder.read(run).dataset()
    assert (facts.name, facts.class_names, facts.image_shape) == ("bars", ["0", "1"], [1, 8, 8])
    with pytest.raises(ConfigError, match=r"data\.side: 8 in the folder, 9 now"):
        train(tmp_path, {"name": "bars", "side": 9})


def test_its_keys_are_checked_like_all_others(tmp_path: Path) -> None:
    def mistake(**data: Any) -> str:
        with pytest.raises(ConfigError) as error:
            parse_experiment({**KEYS, "data": data})
        return str(error.value)

    assert "data.sied: unknown key; did you mean data.side?" in mistake(name="bars", sied=3)
    assert "data.side = 2: expected at least 4" in mistake(name="bars", side=2)
    assert "layout has no effect with data set bars, which takes side, tone" in mistake(name="bars", layout="x")
    assert "side has no effect with data set mnist, which takes root" in mistake(name="mnist", side=8)
    assert (
        "data.rooot: unknown key; did you mean data.root, which mnist, fashion_mnist, kmnist and others take?"
        in mistake(name="bars", rooot="x")
    )
    assert "did you mean data.side, which bars takes?" in mistake(name="digits", sied=8)
    assert "did you mean bars?" in mistake(name="bras")
    assert kind_of(("data", "tone")) == "text"
    assert DataConfig.choose({"name": "bars", "layout": None}).own
    values = {"method": {"name": "bagging"}, "num_members": 2, "model": {"name": "mlp"}}
    jsonschema.validate({**values, "data": {"name": "bars", "side": 12}}, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "data": {"name": "bars", "side": 3}}, json_schema())


def test_it_is_listed_and_an_axis_of_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = " ".join(CliRunner().invoke(main, ["datasets"]).stdout.split())
    assert "bars Upright and lying bars. side, tone" in listed
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(json.dumps({**KEYS, "data": {"name": "bars"}}))
    done = CliRunner().invoke(main, ["sweep", "own.yaml", "data.side=8,10", "training.epochs=1", "-q", "--json"])
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(main, ["config", "own.yaml", "data.side=12"])
    assert "data.side" in shown.stdout
    assert "data.layout" not in shown.stdout


def test_what_build_may_give(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels_N = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    images += labels_N[:, None, None].astype(np.uint8) * 200
    rows = list(zip(images, labels_N.tolist(), strict=True))

    class Rows:
        classes = ("dark", "bright")

        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, row: int) -> Any:
            return rows[row]

    def loaded(made: Any) -> Dataset:
        monkeypatch.setattr(Bars, "build", lambda _self: made)
        return load_dataset(DataConfig(name="bars"))

    whole = loaded((images, labels_N))
    assert (len(whole.train_labels_N), len(whole.test_labels_N)) == (16, 4)
    named = loaded({"train": Rows(), "validation": (images, labels_N), "test": Rows()})
    assert named.class_names == ("dark", "bright")
    assert named.validation_rows is not None
    assert named.validation_rows.tolist() == list(range(20, 40))
    by_name = loaded({"train_images": images, "train_labels": labels_N, "class_names": np.array(["a", "b"])})
    assert by_name.class_names == ("a", "b")
    assert loaded(whole) is whole
    for made, message in (
        (7, "data set bars: found int; expected {'train': ...,"),
        ({"train": Rows(), "tset": Rows()}, "data set bars: found data sets by the names train, tset"),
        ({"train": "images"}, "data set bars: train: found str; expected a data set with a length"),
        ({"train_images": images}, "bars: train_labels missing; found train_images"),
        ({"train_images": images, "train_labels": labels_N, "tset_images": images}, "unknown arrays tset_images"),
        ((images[:, 0], labels_N), "bars: train_images: found shape"),
    ):
        with pytest.raises((ConfigError, DataError)) as error:
            loaded(made)
        assert message in str(error.value)


def test_the_example_of_the_guide_works_as_it_stands(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text().partition("**How to add a data source.**")[2]
    lines = itertools.takewhile(
        lambda line: not line or line.startswith("    "), guide.split("\n\n", 1)[1].splitlines()
    )
    code = compile(textwrap.dedent("\n".join(lines)), "guide.py", "exec", dont_inherit=True)
    exec(code, {"__name__": "guide"})
    run = train(tmp_path, {"name": "blobs", "images": 300}, training={"epochs": 10, "batch_size": 16})
    assert ensemble.load(run).evaluation.headline.test_error == 0


def test_names_are_not_taken_twice() -> None:
    register_data(Bars)  # the same once more, as when a notebook's cell runs again

    class Mine(Bars):
        name: Literal["mnist"]  # type: ignore[assignment]

    class Unbuilt(DataConfig):
        name: Literal["unbuilt"]

    with pytest.raises(ConfigError, match="data set 'mnist': there is one of that name already"):
        register_data(Mine)
    with pytest.raises(TypeError, match="Unbuilt: needs a method build"):
        register_data(Unbuilt)


def test_a_stored_run_of_a_source_that_is_not_here_is_judged_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path, {"name": "bars"})
    first = CliRunner().invoke(main, ["evaluate", str(run), "--json"])
    monkeypatch.delitem(DataConfig.registry._parts, "bars")
    Part.registered += 1
    again = CliRunner().invoke(main, ["evaluate", str(run), "--json"])
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout


def test_a_script_registers_one_for_other_processes(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/own_data.py"
    text = example.read_text().replace('method="bagging",', 'method="bagging", compute={"executor": sys.argv[2]},')
    (tmp_path / "own.py").write_text(text)
    for executor in ("inline", "processes", "ray"):
        words = [sys.executable, "own.py", executor, executor]
        done = preloaded.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr
    for number in range(5):
        file = f"stripes/members/{number:04d}/weights.safetensors"
        for executor in ("processes", "ray"):
            assert (tmp_path / executor / file).read_bytes() == (tmp_path / "inline" / file).read_bytes()


def test_an_installed_package_brings_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by its entry point, also by another process."""
    points = ["ramps_of_a_package = a_package:Ramps", "broken_of_a_package = a_package:NotThere"]
    install(tmp_path, "a_package", PACKAGE, "ensemble.data", points, monkeypatch)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ensemble", *words]
        return preloaded.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)

    (tmp_path / "own.yaml").write_text(json.dumps({**KEYS, "data": {"name": "ramps_of_a_package", "size": 9}}))
    done = run("train", "own.yaml", "-q", "training.epochs=20")
    assert done.returncode == 0, done.stderr
    assert ensemble.load(tmp_path / "runs/own").evaluation.headline.test_error == 0
    (tmp_path / "own.yaml").write_text(json.dumps({**KEYS, "data": {"name": "broken_of_a_package"}}))
    done = run("config", "own.yaml")
    assert done.returncode == 2
    assert "data set 'broken_of_a_package': a_package:NotThere cannot be imported" in done.stderr


def test_a_published_set_must_say_how_it_is_read_and_fetched() -> None:
    class Half(Published):
        name: Literal["half"]

        def read(self, root: Path) -> Any:
            return root

    with pytest.raises(TypeError, match=r"Half: needs a method fetch, see ensemble\.data\.published\.Published\.fetch"):
        register_data(Half)

    class Nothing(DataConfig):
        name: Literal["nothing"]

    with pytest.raises(
        TypeError, match=r"Nothing: needs a method build, see ensemble\.config\.data\.DataConfig\.build"
    ):
        register_data(Nothing)
    assert DataConfig.registry.find("half") is None
