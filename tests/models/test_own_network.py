"""A network of a script or of an installed package: one class, one line, and everything there is works with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import Field

import ensemble
from ensemble import Network, register_network
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.config.base import Part
from ensemble.config.keys import kind_of
from ensemble.errors import ConfigError
from ensemble.executors import InlineExecutor
from ensemble.registry import Registry
from ensemble.results.judging import judge
from ensemble.run.run import run_ensemble
from ensemble.storage import RunFolder
from tests import preloaded
from tests.installed_package import install

KEYS: dict[str, Any] = {
    "name": "own", "num_members": 3, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits", "max_train_rows": 300},
    "training": {"epochs": 2, "batch_size": 32}, "compute": {"executor": "inline", "device": "cpu"},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
PACKAGE = """
from typing import Literal
from ensemble import Network
class Plain(Network):
    "Pixels to classes."
    name: Literal["plain_of_a_package"]
    bias: bool = True
    def build(self, image_shape, num_classes):
        from torch import nn
        channels, height, width = image_shape
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes, bias=self.bias))
"""


class Tiny(Network):
    """One hidden layer with a layer norm, which has no K-fold form."""

    name: Literal["tiny"]
    width: int = Field(8, ge=1)
    ending: Literal["relu", "tanh"] = "relu"

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> Any:
        from torch import nn

        channels, height, width = image_shape
        ending = nn.ReLU() if self.ending == "relu" else nn.Tanh()
        hidden = [nn.Linear(channels * height * width, self.width), nn.LayerNorm(self.width), ending]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(self.width, num_classes))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks that a test registers are forgotten after it."""
    monkeypatch.setattr(Network.registry, "_parts", {**Network.registry.all()})
    register_network(Tiny)
    yield
    Part.registered += 1


def train(folder: Path, model: dict[str, Any], **keys: Any) -> Path:
    experiment = parse_experiment({**KEYS, **keys, "model": model, "output_dir": str(folder)})
    return run_ensemble(experiment, lambda *_: InlineExecutor(), lambda _folder: ()).path


def test_trains_judges_resumes_and_predicts(tmp_path: Path) -> None:
    run = train(tmp_path, {"name": "tiny", "width": 12})
    votes = (run / "members/0001/votes.npz").read_bytes()
    (run / "members/0001/votes.npz").unlink()
    assert train(tmp_path, {"name": "tiny", "width": 12}) == run
    assert (run / "members/0001/votes.npz").read_bytes() == votes
    assert 0 < judge(RunFolder.read(run)).headline.test_error < 0.8
    probs_NK = ensemble.load_ensemble(run).predict_proba(np.zeros((2, 1, 28, 28), np.uint8))
    np.testing.assert_allclose(probs_NK.sum(axis=1), 1, rtol=1e-6)
    done = CliRunner().invoke(main, ["report", str(run)])
    assert done.exit_code == 0, done.output
    assert "tiny" in (run / "report.html").read_text()


def test_exports(tmp_path: Path) -> None:
    run = train(tmp_path, {"name": "tiny"})
    for form, name in (("torch_export", "own.pt2"), ("onnx", "own.onnx")):
        done = CliRunner().invoke(main, ["export", str(run), "--format", form, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).stat().st_size > 0


def test_later_members_train_on_what_the_earlier_ones_choose(tmp_path: Path) -> None:
    """Boosting by filtering has judges, which cannot be stacked here."""
    keys: dict[str, Any] = {"method": {"name": "filter_boosting"}, "data": {"name": "digits", "max_train_rows": 600}}
    moves = {"rotation_degrees": 15.0, "shift": 0.1}
    run = train(tmp_path, {"name": "tiny"}, **keys, training={"epochs": 1, "augmentation": moves})
    facts = json.loads((run / "members/0002/member.json").read_text())
    assert facts["facts"]["filter_distinct"] > 0


def test_its_keys_are_checked_like_all_others() -> None:
    def mistake(**model: Any) -> str:
        with pytest.raises(ConfigError) as error:
            parse_experiment({**KEYS, "model": model})
        return str(error.value)

    assert "model.widht: unknown key; did you mean model.width?" in mistake(name="tiny", widht=3)
    assert "model.width = 0: expected at least 1" in mistake(name="tiny", width=0)
    assert "model.name = 'tyni': expected one of lenet5" in mistake(name="tyni")
    assert "did you mean tiny?" in mistake(name="tinny")
    assert kind_of(("model", "ending")) == "text"


def test_an_error_of_its_code_is_told_before_the_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tiny, "build", lambda *_: [][0])
    with pytest.raises(ConfigError, match="model tiny: cannot take images of 1 channels and 28x28 pixels: IndexError"):
        train(tmp_path, {"name": "tiny"})
    assert list(tmp_path.iterdir()) == []


def test_it_is_listed() -> None:
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(main, ["models", "--json"]).stdout)}
    assert rows["tiny"]["parameters"] == 28 * 28 * 8 + 8 + 2 * 8 + 8 * 10 + 10
    assert rows["tiny"]["description"].startswith("One hidden layer")
    assert not rows["tiny"]["stackable"]


def test_names_are_not_taken_twice() -> None:
    register_network(Tiny)  # the same once more, as when a notebook's cell runs again

    class Other(Tiny):
        name: Literal["tiny", "free"]  # type: ignore[assignment]

    class Mine(Tiny):
        name: Literal["lenet5"]  # type: ignore[assignment]

    class Nameless(Network):
        pass

    for taken in (Other, Mine):
        with pytest.raises(ConfigError, match="there is one of that name already; choose another name"):
            register_network(taken)
    assert Network.registry.find("free") is None
    fresh: Registry[type[Network]] = Registry("network", "none", {"lenet5": "ensemble.models.lenet"})
    with pytest.raises(ConfigError, match="'lenet5': there is one of that name already"):
        fresh.register(Mine, "lenet5")  # before anybody asked for ours

    class Unbuilt(Network):
        name: Literal["unbuilt"]

    with pytest.raises(TypeError, match="Unbuilt: needs a method build"):
        register_network(Unbuilt)
    with pytest.raises(TypeError, match="needs its name as a key, such as name: Literal"):
        register_network(Nameless)


def test_an_installed_package_brings_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by its entry point, also by another process, and by Ray's workers."""
    points = ["plain_of_a_package = a_package:Plain", "broken_of_a_package = a_package:NotThere"]
    install(tmp_path, "a_package", PACKAGE, "ensemble.networks", points, monkeypatch)
    (tmp_path / "own.yaml").write_text(json.dumps({**KEYS, "model": {"name": "plain_of_a_package", "bias": False}}))
    for number, executor in enumerate(("inline", "processes", "ray")):
        words = ["-m", "ensemble", "train", "own.yaml", "-q", f"compute.executor={executor}", f"output_dir={number}"]
        done = preloaded.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    weights = [(tmp_path / f"{number}/own/members/0002/weights.safetensors").read_bytes() for number in range(3)]
    assert weights[0] == weights[1] == weights[2]
    (tmp_path / "own.yaml").write_text(json.dumps({**KEYS, "model": {"name": "broken_of_a_package"}}))
    done = preloaded.run(
        [sys.executable, "-m", "ensemble", "config", "own.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "'broken_of_a_package': a_package:NotThere cannot be imported" in done.stderr
