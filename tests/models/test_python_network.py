"""A network from a file beside the configuration: its text is the run's, wherever the tasks run, and is executed only on request."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import ensemble
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.errors import ConfigError
from ensemble.models import build_model, num_parameters
from ensemble.models.work import activation_sizes, multiply_adds
from ensemble.outside import own_code
from tests import preloaded
from tests.own_code_doors import same_weights_through_every_door, trained_without_its_files

NETS = """
from torch import nn
from blocks import hidden


class Net(nn.Module):
    def __init__(self, num_classes, in_channels, width=16):
        super().__init__()
        self.body = hidden(in_channels * 28 * 28, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).tanh())


def chain(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 784, 8), nn.ReLU(), nn.Linear(8, num_classes))


def looks_at_numbers(num_classes, in_channels):
    class Odd(Net):
        def forward(self, x):
            return super().forward(x * float(x.abs().max().item() > 1e9) + x)

    return Odd(num_classes, in_channels)


def lenet5(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2),
        nn.ReLU(), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes),
    )


def features(num_classes, in_channels):
    return nn.Flatten()


def empty(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(num_classes))


def broken(num_classes, in_channels):
    return 1 / 0


def no_module(num_classes, in_channels):
    return 7
"""
BLOCKS = """
def hidden(inputs, width):
    from deeper import linear
    return linear(inputs, width)
"""
DEEPER = "from torch import nn\nlinear = nn.Linear\n"
KEYS: dict[str, Any] = {
    "num_members": 3, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits", "max_train_rows": 300},
    "model": {"name": "python", "path": "my_nets.py:Net", "args": {"width": 12}},
    "training": {"epochs": 2, "batch_size": 32}, "compute": {"executor": "inline", "device": "cpu"},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {"my_nets.py": NETS, "blocks.py": BLOCKS, "deeper.py": DEEPER, "unused.py": "1 / 0"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "own.yaml").write_text(json.dumps(KEYS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def network(path: str, **args: Any) -> Any:
    model = {"name": "python", "path": path, "args": args}
    return parse_experiment({**KEYS, "name": "x", "model": model}).groups[0].model


def test_the_text_travels_and_is_executed_only_on_request(home: Path) -> None:
    with trained_without_its_files(home, ("my_nets.py", "blocks.py", "deeper.py")):
        (home / "x.pgm").write_bytes(b"P5 28 28 255 " + bytes(784))
        refused = run("predict", "runs/own", "x.pgm")
        assert refused.exit_code == 2
        assert "would execute that; read it, then give --trust-code" in refused.output
        assert run("predict", "runs/own", "x.pgm", "--trust-code").exit_code == 0
        with pytest.raises(ConfigError, match="trust_code=True"):
            ensemble.load("runs/own").predict(np.zeros((1, 28, 28), np.uint8))
        assert ensemble.load("runs/own", trust_code=True).predict(np.zeros((1, 28, 28), np.uint8)).shape == (1,)
        for form in ("torch_export", "onnx"):
            exported = run("export", "runs/own", "--format", form, "--trust-code")
            assert exported.exit_code == 0, exported.output


def test_a_changed_file_is_refused_with_the_difference(home: Path) -> None:
    assert run("train", "own.yaml", "-q").exit_code == 0
    (home / "deeper.py").write_text(DEEPER + "changed = 1\n")
    done = run("train", "own.yaml", "-q")
    assert done.exit_code == 2
    assert "model.code.deeper.py:" in done.output
    assert "+changed = 1" in done.output
    assert "Net(nn.Module)" not in done.output


def test_ray_and_launched_ranks_need_no_file(home: Path) -> None:
    same_weights_through_every_door(home, members=3)


def test_the_same_lenet5_gives_the_built_in_s_votes(home: Path) -> None:
    """All layers have twins, so it trains in stacks by the same kernels; to float32 rounding, for stacks may differ in size."""
    own = ensemble.train("own.yaml", name="mine", model={"name": "python", "path": "my_nets.py:lenet5"})
    built_in = ensemble.train("own.yaml", name="theirs", model="lenet5")
    np.testing.assert_allclose(own.votes("test"), built_in.votes("test"), atol=1e-6)


def test_networks_are_measured_also_where_the_meta_device_does_not_do(home: Path) -> None:
    shape = (1, 28, 28)
    plain, odd = network("my_nets.py:Net"), network("my_nets.py:looks_at_numbers")
    assert multiply_adds(plain, shape, 10) == multiply_adds(odd, shape, 10) == 784 * 16 + 160
    assert activation_sizes(plain, shape, 10) == activation_sizes(odd, shape, 10)
    assert num_parameters(build_model(plain, shape, 10)) == 784 * 16 + 16 + 170
    assert num_parameters(build_model(network("my_nets.py:Net", width=3), shape, 10)) == 784 * 3 + 3 + 40


SCRIPT = """
import sys
import numpy as np
from torch import nn
import ensemble
from blocks import hidden


def make(num_classes, in_channels, width=4):
    return nn.Sequential(nn.Flatten(), hidden(in_channels * 784, width), nn.ReLU(), nn.Linear(width, num_classes))


def train(**keys):
    keys = {"method": "bagging", "baseline": False, "num_members": 2, "data": "digits", "training": {"epochs": 1}, **keys}
    return ensemble.train(model=make, model_args={"width": np.int64(6)}, **keys)


if GUARD:
    run = train(name="script", compute={"executor": sys.argv[1], "stack_size": 1})
    print(run.evaluation.members[0].recipe, run.predict_proba(np.zeros((1, 28, 28), np.uint8)).shape, run.config["model"]["args"])
"""


def test_a_class_or_function_of_a_script(home: Path) -> None:
    script = home / "deep" / "script.py"
    script.parent.mkdir()
    for name in ("blocks.py", "deeper.py"):
        (home / name).rename(script.parent / name)
    for executor in ("inline", "processes", "ray"):
        script.write_text(SCRIPT.replace("GUARD", '__name__ == "__main__"'))
        words = [sys.executable, str(script), executor]
        done = preloaded.run(words, cwd=home, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stdout) == (0, "make (1, 10) {'width': 6}\n"), done.stderr
        if executor != "ray":
            (home / "runs").rename(home / executor)
    weights = "script/members/0001/weights.safetensors"
    for executor in ("processes", "runs"):
        assert (home / executor / weights).read_bytes() == (home / "inline" / weights).read_bytes()
    script.write_text(SCRIPT.replace("GUARD", "True"))
    done = preloaded.run(words, cwd=home, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "put the training under `if __name__" in done.stderr


def test_what_has_no_file_is_refused() -> None:
    def inner(num_classes: int, in_channels: int) -> None: ...

    keys: dict[str, Any] = {"method": "bagging", "baseline": False, "num_members": 2, "data": "digits"}
    with pytest.raises(ConfigError, match="inner is not at the top of a Python file"):
        ensemble.train(model=inner, **keys)
    with pytest.raises(ConfigError, match="model_args: has no effect without"):
        ensemble.train(model="mlp", model_args={"width": 3}, **keys)


def test_files_may_be_called_like_secrets(home: Path) -> None:
    (home / "tokens.py").write_text("from torch import nn\nclass Net(nn.Linear):\n    pass\n")
    assert list(network("tokens.py:Net").code) == ["tokens.py"]


def test_sweeps_mixed_ensembles_and_the_classifier(home: Path) -> None:
    """Every door that reads a configuration finds the file beside it, or in the working directory."""
    words = ["training.lr=0.003,0.01", "training.epochs=1", "num_members=1"]
    done = run("sweep", "own.yaml", *words, "-q", "--json")
    assert done.exit_code == 0, done.output
    groups = [
        {"count": 1, "model": {"name": "python", "path": "my_nets.py:chain"}}, {"count": 2, "name": "net", "model": KEYS["model"]},
    ]  # fmt: skip
    mixed = {key: value for key, value in KEYS.items() if key not in ("model", "num_members")}
    (home / "below").mkdir()
    for name in ("my_nets.py", "blocks.py", "deeper.py"):
        (home / name).rename(home / "below" / name)
    (home / "below/mixed.yaml").write_text(json.dumps({**mixed, "members": groups}))
    trained = ensemble.train(home / "below/mixed.yaml")
    assert [member.recipe for member in trained.evaluation.members] == ["chain", "net", "net"]
    assert trained.predict(np.zeros((2, 28, 28), np.uint8)).shape == (2,)
    with pytest.raises(ValueError, match=r"my_nets\.py: cannot be read: No such file"):
        ensemble.EnsembleClassifier(model=KEYS["model"]).fit(np.zeros((40, 28, 28), np.uint8), np.arange(40) % 2)


def test_only_what_is_imported_is_taken_and_names_stay_apart(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = own_code.collect(home / "my_nets.py")
    assert list(code) == ["blocks.py", "deeper.py", "my_nets.py"]
    other = {"blocks.py": "hidden = 3", "my_nets.py": "from blocks import hidden\nclass Net:\n    found = hidden"}
    monkeypatch.setitem(sys.modules, "blocks", json)
    first, second = own_code.find(code, "my_nets.py:Net"), own_code.find(other, "my_nets.py:Net")
    assert second.found == 3  # type: ignore[attr-defined]
    assert first is own_code.find(code, "my_nets.py:Net")
    assert sys.modules["blocks"] is json
    assert "my_nets" not in sys.modules


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"path": "my_nets.py"}, "expected FILE.py:NAME with a file beside the configuration"),
        ({"path": "../my_nets.py:Net"}, "expected FILE.py:NAME"),
        ({"path": "gone.py:Net"}, "gone.py: cannot be read: No such file or directory"),
        ({"path": "bad.py:Net"}, "bad.py:2: is no Python"),
        ({"path": "latin.py:Net"}, "latin.py: is no UTF-8 text"),
        ({"path": "my_nets.py:Nett"}, "there is no such class or function in my_nets.py; expected one of those it has: Net, broken, chain"),
        ({"path": "unused.py:Net"}, "executing the file failed: unused.py:1: ZeroDivisionError"),
        ({"path": "my_nets.py:broken"}, "my_nets.py:broken(num_classes=10, in_channels=1): failed: my_nets.py:44: ZeroDivisionError"),
        ({"path": "my_nets.py:Net", "args": {"wide": 3}}, "unexpected keyword argument 'wide'"),
        ({"path": "my_nets.py:no_module"}, "gave int; expected a torch.nn.Module"),
        ({"path": "my_nets.py:features"}, "gives numbers of shape [1, 784] for one image; expected [1, 10], one per class"),
        ({"path": "my_nets.py:empty"}, "the network has no weights to train"),
        ({"path": "my_nets.py:Net", "code": {"my_nets.py": "1"}}, "is not what"),
        ({"path": 3}, "model.path = '3': expected FILE.py:NAME"),
        ({}, "model.path: missing"),
    ],
)  # fmt: skip
def test_mistakes_are_named(home: Path, model: dict[str, Any], message: str) -> None:
    (home / "bad.py").write_text("x = 1\nclass Net(:\n")
    (home / "latin.py").write_bytes("# \xe4\n".encode("latin-1"))
    (home / "own.yaml").write_text(json.dumps({**KEYS, "model": {"name": "python", **model}}))
    done = run("train", "own.yaml", "-q")
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert not (home / "runs").exists()
