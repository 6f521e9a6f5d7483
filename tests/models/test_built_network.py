"""A network that Python has already, as `ensemble.train(model=network)` takes it: what it is made of travels, its weights need not."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

import ensemble
from ensemble.config import load_config
from ensemble.errors import ConfigError
from ensemble.models.instances import described, draw, rebuilt
from ensemble.models.python import PythonConfig
from ensemble.report.card import model_card
from ensemble.storage import RunFolder
from tests import preloaded

KEYS: dict[str, Any] = {
    "data": {"name": "digits", "max_train_rows": 300}, "method": "bagging", "num_members": 3, "baseline": False,
    "training": {"epochs": 2, "batch_size": 32}, "compute": {"executor": "inline", "device": "cpu"}, "seed": 2,
}  # fmt: skip


class Scaled(nn.Module):
    """A layer of one's own, which draws its weight."""

    def __init__(self, size: int, act: Any = torch.tanh) -> None:
        super().__init__()
        self.scale, self.act, self.size = nn.Parameter(torch.empty(size)), act, (size, {"deep": [1.5, float("inf")]})
        self.register_buffer("shift", torch.arange(size) / size)
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.scale, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x * self.scale + self.shift)


class Undrawn(nn.Module):
    """A layer that draws nothing anew."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def chain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(576, 12), Scaled(12),
        nn.Dropout(0.1), nn.Linear(12, 10),
    )  # fmt: skip


def plain_chain() -> nn.Sequential:
    """Of torch's layers alone, all of which have a K-fold form."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 12), nn.Tanh(), nn.Dropout(0.2), nn.Linear(12, 10))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copied(network: nn.Module, weights: bool = True) -> nn.Module:
    text, code = described(network)
    again = rebuilt(text, code)
    if weights:
        again.load_state_dict(network.state_dict())
    return again.eval()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = self.first  # the same layer in two places
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.first.weight
        self.parts = nn.ModuleDict({"a": nn.LayerNorm(6), "b": nn.ParameterList([torch.ones(6)])})
        self.norm = functools.partial(nn.functional.normalize, dim=1)
        self.kinds = {nn.Linear: "class", (1, 2): None, "size": torch.Size([3]), "dtype": torch.float64}
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.memory = nn.LSTM(6, 6, batch_first=True)
        self.still = nn.Parameter(torch.arange(6.0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.parts["a"](self.second(self.first(x))) * self.parts["b"][0] + self.tied(x) + self.still
        y, _ = self.attention(y[:, None], y[:, None], y[:, None])
        return self.norm(self.memory(y)[0][:, 0])


@pytest.mark.parametrize("make", [chain, Block], ids=["chain", "block"])
def test_the_text_says_all_but_the_weights(make: Any) -> None:
    network = make().eval()
    again = copied(network)
    x = torch.rand((3, 1, 28, 28) if make is chain else (3, 6))
    torch.testing.assert_close(again(x), network(x), rtol=0, atol=0)
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in network.named_parameters()]
    assert described(make())[0] == described(network)[0], (
        "as a further start of the run compares it, with other weights"
    )
    if make is chain:
        assert "5.shift" in again.state_dict()
        assert "5.seen" in dict(again.named_buffers())


def test_what_is_shared_stays_shared() -> None:
    again: Any = copied(Block())
    assert again.first is again.second
    assert again.tied.weight is again.first.weight
    assert again.kinds == {nn.Linear: "class", (1, 2): None, "size": torch.Size([3]), "dtype": torch.float64}
    assert isinstance(again.kinds["size"], torch.Size)
    assert not again.still.requires_grad


def test_members_draw_weights_of_their_own(home: Path) -> None:
    network = chain()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run = ensemble.train(model=network, name="drawn", **KEYS)
    folder = RunFolder.read(run.path)
    starts = [PythonConfig.model_validate(folder.config()["model"] | {"freeze": "none"}).built for _ in range(2)]
    assert starts[0] == described(network)[0]
    assert [member.recipe for member in run.evaluation.members] == ["Sequential"] * 3
    weights = [folder.load_weights(index) for index in range(3)]
    assert all(np.abs(weights[0][name] - weights[1][name]).max() > 0.01 for name in ("0.weight", "4.weight", "5.scale"))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items()), "left as it was"
    assert '"module"' not in model_card(run.path), "its class says enough there"
    images = np.zeros((2, 28, 28), np.uint8)
    assert run.predict(images).shape == (2,)
    with pytest.raises(ConfigError, match="trust_code=True"):
        ensemble.load(run.path).predict(images)
    assert ensemble.train(model=chain(), name="drawn", **KEYS).path == run.path, (
        "another of the same kind goes on with it"
    )
    other = chain()
    other[6] = nn.Dropout(0.2)
    with pytest.raises(ConfigError, match=r"(?s)model\.built:.*\+.*\"p\": 0\.2") as changed:
        ensemble.train(model=other, name="drawn", **KEYS)
    assert '"p": 0.1' in str(changed.value)


def test_a_stack_is_what_its_members_are_alone(home: Path) -> None:
    one, three = (
        ensemble.train(model=plain_chain(), name=name, **{**KEYS, "compute": {**KEYS["compute"], "stack_size": size}})
        for name, size in (("one", 1), ("three", 3))
    )
    assert [
        RunFolder.read(three.path).load_member(0).stack_size,
        RunFolder.read(one.path).load_member(0).stack_size,
    ] == [3, 1]
    np.testing.assert_allclose(one.votes("test"), three.votes("test"), atol=2e-5)


def test_members_start_from_the_weights_it_has(home: Path) -> None:
    network = chain()
    keys = {**KEYS, "training": {"epochs": 1, "batch_size": 32, "lr": 1e-8}, "num_members": 2}
    run = ensemble.train(model=network, keep_weights=True, name="own", **keys)
    for index in range(2):
        for name, found in RunFolder.read(run.path).load_weights(index).items():
            if name in dict(network.named_parameters()):
                np.testing.assert_allclose(found, network.state_dict()[name].numpy(), atol=1e-6)
    assert ensemble.train(model=network, keep_weights=True, name="own", **keys).path == run.path
    with pytest.raises(ConfigError, match=r"model\.weights_sha256: .* in the folder, .* now"):
        ensemble.train(model=chain(), keep_weights=True, name="own", **keys)
    frozen = ensemble.train(
        model=network, keep_weights=True, name="frozen", overrides={"model.freeze": ["0", "1"]}, **KEYS
    )
    weights = RunFolder.read(frozen.path).load_weights(0)
    assert weights["0.weight"].tobytes() == network.state_dict()["0.weight"].numpy().tobytes()
    assert np.abs(weights["4.weight"] - network.state_dict()["4.weight"].numpy()).max() > 1e-3


@pytest.mark.parametrize("keys", [{}, {"model.new_head": True}])
def test_its_backbone_can_be_frozen(home: Path, keys: dict[str, Any]) -> None:
    """Of a network for one number of classes the last layer is the one that is called last."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 9), nn.Tanh(), nn.Linear(9, 10))
    given = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run = ensemble.train(
        model=network, keep_weights=True, name="frozen", overrides={"model.freeze": "backbone", **keys}, **KEYS
    )
    assert "frozen layers are computed once" in (run.path / "events.jsonl").read_text()
    (shared,) = (load_file(path) for path in (run.path / "shared").iterdir())
    np.testing.assert_array_equal(shared["1.weight"], given["1.weight"].numpy())
    heads = [load_file(run.path / f"members/000{k}/weights.safetensors")["3.weight"] for k in range(3)]
    assert not np.array_equal(heads[0], heads[1])
    far = np.linalg.norm(heads[0] - given["3.weight"].numpy()) / float(given["3.weight"].norm())
    assert (far > 1) == bool(keys), far


def test_weights_that_nothing_draws_are_named(home: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), Undrawn(10))
    with pytest.raises(
        ConfigError, match=r"gain of 2 \(Undrawn\) is drawn anew by no reset_parameters.*keep_weights=True"
    ):
        ensemble.train(model=network, name="x", **KEYS)
    assert not (home / "runs").exists()
    run = ensemble.train(model=network, keep_weights=True, name="x", **KEYS)
    assert len(run.evaluation.members) == 3


def test_an_outer_layer_has_the_last_word() -> None:
    class Outer(nn.Sequential):
        def reset_parameters(self) -> None:
            for layer in self:
                nn.init.constant_(layer.weight, 3.0)

    outer = Outer(nn.Linear(2, 2), nn.Linear(2, 2))
    draw(outer, {})
    assert all(bool((layer.weight == 3).all()) for layer in outer)


def local() -> nn.Module:
    class Inner(nn.ReLU):
        pass

    return nn.Sequential(nn.Linear(2, 2), Inner())


def with_lambda() -> nn.Module:
    layer: Any = nn.Linear(2, 2)
    layer.how = lambda x: x
    return nn.Sequential(layer)


def with_hook() -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda *_: None)
    return nn.Sequential(nn.ReLU(), layer)


def with_file() -> nn.Module:
    layer: Any = nn.Linear(2, 2)
    layer.log = sys.stdout
    return layer


def with_forward() -> nn.Module:
    layer: Any = nn.Linear(2, 2)
    layer.again = layer.forward
    return layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (local, r"model: 1: local\.<locals>\.Inner is not at the top of a Python file.*model=make_net"),
        (with_lambda, r"model: 0\.how: with_lambda\.<locals>\.<lambda> is not at the top of a Python file"),
        (with_hook, r"model: 1 \(Linear\) has hooks \(_forward_hooks"),
        (with_file, r"model: log(\.\w+)* is a \w+, which cannot travel with the run"),
        (with_forward, r"model: again: Linear\.forward is not at the top of a Python file"),
        (lambda: nn.LazyLinear(10), "weight has no shape yet; call the network once"),
    ],
)  # fmt: skip
def test_what_cannot_travel_is_refused_by_its_place(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ensemble.train(model=make(), name="x", **KEYS)


def test_arguments_without_effect_are_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="model_args: has no effect on a network that is built"):
        ensemble.train(model=chain(), model_args={"width": 3}, **KEYS)
    with pytest.raises(ConfigError, match=r"keep_weights: has no effect without model=\.\.\."):
        ensemble.train(model="lenet5", keep_weights=True, **KEYS)
    with pytest.raises(ConfigError, match=r"model\.freez: "):
        ensemble.train(model=chain(), overrides={"model.freez": "backbone"}, **KEYS)
    text, code = described(chain())
    model = {"name": "python", "path": "x.py:Net", "built": text, "code": code}
    (home / "x.yaml").write_text(json.dumps({"num_members": 1, "method": {"name": "bagging"}, "model": model}))
    with pytest.raises(ConfigError, match=r"model\.built is filled in by ensemble\.train"):
        load_config(home / "x.yaml")


SCRIPT = """
import sys
import numpy as np
import torch
from torch import nn
import ensemble
from layers_of_mine import Gate


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body, self.gate, self.head = nn.Linear(784, width), Gate(width), nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.gate(torch.relu(self.body(x.flatten(1)))))


if __name__ == "__main__":
    torch.manual_seed(int(sys.argv[2]))
    run = ensemble.train(
        model=Net(9), name="script", method="bagging", baseline=False, num_members=2, data="digits", training={"epochs": 1},
        compute={"executor": sys.argv[1], "stack_size": 1},
    )
    print(run.evaluation.members[0].recipe, run.predict_proba(np.zeros((1, 28, 28), np.uint8)).shape, *run.config["model"]["code"])
"""
LAYERS = """
import torch
from torch import nn


class Gate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gate = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.gate, 1.0, 0.1)

    def forward(self, x):
        return x * self.gate
"""


def test_a_network_of_a_script_travels_to_other_processes_and_is_trained_again_after_damage(home: Path) -> None:
    (home / "layers_of_mine.py").write_text(LAYERS)
    (home / "script.py").write_text(SCRIPT)
    for executor in ("inline", "ray", "processes"):
        words = [sys.executable, "script.py", executor, "1"]
        done = preloaded.run(words, cwd=home, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stdout) == (0, "Net (1, 10) layers_of_mine.py script.py\n"), done.stderr
        if executor != "processes":
            (home / "runs").rename(home / executor)
    weights = "script/members/0001/weights.safetensors"
    before = (home / "inline" / weights).read_bytes()
    assert (home / "ray" / weights).read_bytes() == (home / "runs" / weights).read_bytes() == before
    (home / "runs" / weights).unlink()
    words = [sys.executable, "script.py", "inline", "2"]  # other weights in the script's own network change nothing
    done = preloaded.run(words, cwd=home, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (home / "runs" / weights).read_bytes() == before


def test_much_that_is_no_weight_is_refused(home: Path) -> None:
    network = plain_chain()
    network.register_buffer("table", torch.rand(1200, 1200))
    with pytest.raises(
        ConfigError, match=r"beside its weights the network holds \d MiB of buffers and values, more than 4"
    ):
        ensemble.train(model=network, name="x", **KEYS)
