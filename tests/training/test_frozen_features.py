"""Last layers on the features of one frozen backbone: the same members as of whole networks, and which networks that suits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from safetensors.torch import save_file

import ensemble
from ensemble.commands.main import main
from ensemble.config.evaluation import EvaluationConfig
from ensemble.config.network import Network
from ensemble.config.tta import TtaConfig
from ensemble.errors import ConfigError
from ensemble.events import Notice
from ensemble.training import frozen_features
from ensemble.training.frozen_features import HeadStack, head_layer
from ensemble.training.suitability import check_views_of_features, starts
from tests.training.helpers import arrays as arrays
from tests.training.helpers import experiment, results, specs, train
from tests.training.test_cuda_graph import run_of
from tests.training.test_start import CNN, RESNET, SHAPE, stored, weights_of

TRAINING: dict[str, dict[str, Any]] = {
    "adam": {}, "averaged": {"ema_decay": 0.5, "keep": "best_validation"}, "weighted": {"class_weights": "balanced"},
    "accumulated": {"batch_size": 16, "accumulation": 2},
    "plateau": {"optimizer": "sgd", "lr": 0.05, "schedule": {"name": "plateau", "patience": 0, "threshold": 0.9}},
}  # fmt: skip


@pytest.mark.parametrize("training", TRAINING.values(), ids=TRAINING)
@pytest.mark.parametrize("model", [CNN, {"name": "mlp", "widths": (12, 6)}], ids=["cnn", "mlp"])
def test_members_are_those_of_whole_networks(
    tmp_path: Path,
    arrays: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, Any],
    training: dict[str, Any],
) -> None:
    """Votes, histories and last layers, to rounding; the backbone to the last bit."""
    given = weights_of(model, SHAPE, 7)
    config = experiment({**model, **stored(tmp_path, given), "freeze": "backbone"}, **training)
    group = config.groups[0]
    more = {**arrays, **starts(config.groups, SHAPE, 10).arrays}
    head = head_layer(group, SHAPE, 10)
    assert head is not None
    assert isinstance(run_of(config, more, None).stack, HeadStack)
    on_features = results(train(config, specs([0, 1, 2]), more))
    alone = results(train(config, specs([1]), more))[1]
    monkeypatch.setattr(frozen_features, "MOST_BYTES", 0)
    assert not isinstance(run_of(config, more, None).stack, HeadStack)
    whole = results(train(config, specs([0, 1, 2]), more))
    for index, member in whole.items():
        mine = on_features[index]
        assert set(mine.weights) == {f"{head}.weight", f"{head}.bias"}
        assert mine.num_parameters == member.num_parameters
        assert mine.shared_parameters == mine.num_parameters - sum(array.size for array in mine.weights.values())
        assert member.shared_parameters == 0  # trained whole, each has a copy of its own
        for name, array in member.weights.items():
            if name in mine.weights:
                np.testing.assert_allclose(mine.weights[name], array, rtol=1e-3, atol=1e-4)
            else:
                np.testing.assert_array_equal(array, given[name].numpy())
        for part in ("validation_NK", "test_NK", "rows_RK"):
            np.testing.assert_allclose(getattr(mine.votes, part), getattr(member.votes, part), atol=1e-4)
        losses = [[record.train_loss for record in result.history] for result in (mine, member)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
    for name, array in alone.weights.items():
        np.testing.assert_allclose(on_features[1].weights[name], array, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "more", "head"),
    [
        (CNN, {}, "11"),
        (RESNET, {}, "fc"),
        ({"name": "torchvision", "architecture": "shufflenet_v2_x0_5"}, {}, "fc"),
        ({**CNN, "dropout": 0.3}, {}, None),  # draws behind the frozen layers
        (CNN, {"augmentation": {"shift": 0.1}}, None),
        ({"name": "torchvision", "architecture": "squeezenet1_1"}, {}, None),  # its last layer is a convolution
        ({"name": "cnn", "widths": (4,), "fully_connected": ()}, {}, "4"),
    ],
)
def test_which_networks_it_suits(tmp_path: Path, model: dict[str, Any], more: dict[str, Any], head: str | None) -> None:
    shape = (1, 64, 64) if model["name"] == "torchvision" else SHAPE
    given = stored(tmp_path, weights_of(model, shape, 10))
    for freeze, found in (("backbone", head), ("none", None)):
        group = experiment({**model, **given, "freeze": freeze}, **more).groups[0]
        assert head_layer(group, shape, 10) == found
    if head is not None:  # by name it is the same as by its word, and part of it is not enough
        names = [name for name in weights_of(model, shape, 10) if not name.startswith(f"{head}.")]
        assert head_layer(experiment({**model, **given, "freeze": tuple(names)}).groups[0], shape, 10) == head
        assert head_layer(experiment({**model, **given, "freeze": tuple(names[1:])}).groups[0], shape, 10) is None
        part_of_it = {**model, **given, "freeze": (*names, f"{head}.bias")}
        assert head_layer(experiment(part_of_it).groups[0], shape, 10) is None


def test_a_network_that_looks_at_its_last_layer_s_answer_is_trained_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Twice(nn.Module):\n"
        "    def __init__(self, num_classes, in_channels, more=0.5):\n"
        "        super().__init__()\n"
        "        self.body, self.head, self.more = nn.Linear(784, 6), nn.Linear(6, num_classes), more\n"
        "    def forward(self, x):\n"
        "        x = self.body(x.flatten(1)).tanh()\n"
        "        return self.head(x) + self.more * self.head(-x) if self.more else self.head(x)\n"
        "def scaled(num_classes, in_channels):\n"
        "    net = Twice(num_classes, in_channels, 0)\n"
        "    return nn.Sequential(net, nn.Softplus())\n"
    )
    for path, args, head in (("Twice", {}, None), ("Twice", {"more": 0}, "head"), ("scaled", {}, None)):
        keys = {"name": "python", "path": f"nets.py:{path}", "args": args}
        plain = dict(Network.registry.find("python").complete(keys, tmp_path))  # type: ignore[union-attr]
        model = {**plain, **stored(tmp_path, weights_of(plain, SHAPE, 10)), "freeze": "backbone"}
        assert head_layer(experiment(model).groups[0], SHAPE, 10) == head, path


HABITS = """
import torch
from torch import nn
class Base(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.body, self.norm = nn.Linear(784, 6), self.normalised()
        self.head = nn.Linear(6, num_classes)
        self.own()
    def normalised(self):
        return nn.Identity()
    def own(self):
        pass
    def features(self, f):
        return f
    def forward(self, x):
        return self.head(self.features(self.norm(self.body(x.flatten(1))).tanh()))
class OfTheBatch(Base):
    def features(self, f):
        return f - f.mean(0)
class WithoutStatistics(Base):
    def normalised(self):
        return nn.BatchNorm1d(6, track_running_stats=False)
class RarelyDrops(Base):
    def features(self, f):
        return nn.functional.dropout(f, 0.5, self.training and len(f) > 8)
class OfItsOwn(Base):
    def own(self):
        self.register_buffer("turn", torch.randn(6, 6), persistent=False)
    def features(self, f):
        return f @ self.turn
class HookedHead(Base):
    def own(self):
        self.head = nn.utils.spectral_norm(self.head)
class Fails(Base):
    def features(self, f):
        raise RuntimeError("not today")
"""


@pytest.mark.parametrize(
    ("habit", "head"),
    [
        ("Base", "head"), ("OfTheBatch", None), ("WithoutStatistics", None), ("RarelyDrops", None), ("OfItsOwn", None),
        ("HookedHead", None), ("Fails", None),
    ],
)  # fmt: skip
def test_features_that_depend_on_more_than_the_image_are_computed_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, habit: str, head: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(HABITS)
    plain = {"name": "python", "path": f"nets.py:{habit}"}
    model = {**plain, **stored(tmp_path, weights_of(_of_file(plain, tmp_path), SHAPE, 10)), "freeze": "backbone"}
    assert head_layer(experiment(model).groups[0], SHAPE, 10) == head


def _of_file(keys: dict[str, Any], folder: Path) -> dict[str, Any]:
    section = Network.registry.find("python")
    assert section is not None
    return dict(section.complete(keys, folder))


def run(*words: str) -> str:
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_keeps_the_backbone_once_and_every_door_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({k: t.contiguous() for k, t in weights_of(CNN, SHAPE, 10).items()}, "w.safetensors")
    model = {**CNN, "weights": "w.safetensors", "freeze": "backbone", "new_head": True}
    values: dict[str, Any] = {
        "num_members": 6, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits", "max_train_rows": 300}, "model": model,
        "training": {"epochs": 2, "batch_size": 32}, "compute": {"device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
    }  # fmt: skip
    Path("c.yaml").write_text(json.dumps(values))
    said = run("train", "c.yaml")
    assert "the features of the frozen layers are computed once, 8 numbers for each of 1,797 images" in said, said
    folder = Path("runs/c")
    assert json.loads((folder / "plan.json").read_text())["stack_sizes"] == {"cnn": 6}
    own = load_file(folder / "members/0003/weights.safetensors")
    shared = load_file(folder / "shared/cnn.safetensors")
    assert set(own) == {"11.weight", "11.bias"}
    backbone = sum(array.size for name, array in shared.items() if "running" not in name and "num_batches" not in name)
    head = sum(array.size for array in own.values())
    lines = json.loads((folder / "evaluation.json").read_text())["leaderboard"]
    (single,) = [line["num_parameters"] for line in lines if line["kind"] == "best_member"]
    (vote,) = [line["num_parameters"] for line in lines if line["headline"]]
    assert (single, vote) == (backbone + head, backbone + 6 * head)  # the vote computes what is shared once
    assert not set(own) & set(shared)
    loaded = ensemble.load(folder)
    from ensemble.config.schema import DataConfig
    from ensemble.data import load_dataset

    images = load_dataset(DataConfig(name="digits")).test_images_NCHW
    np.testing.assert_allclose(loaded.predict_proba(images), loaded.votes("test").mean(0), atol=1e-5)
    assert [stack.num_members for stack in loaded.ensemble.network().members.stacks] == [6]
    for form in ("onnx", "torch_export"):
        run("export", "runs/c", "--format", form)
    run("check", "runs/c")
    before = (
        (folder / "members/0003/weights.safetensors").read_bytes(),
        (folder / "shared/cnn.safetensors").read_bytes(),
    )
    (folder / "shared/cnn.safetensors").write_bytes(b"damaged")
    failed = CliRunner().invoke(main, ["export", "runs/c", "--format", "onnx"])
    assert failed.exit_code == 6
    assert "shared/cnn.safetensors" in failed.output
    assert "shared/cnn.safetensors is damaged or missing; it is written anew" in run("train", "c.yaml")
    shutil.rmtree(folder / "members/0003")
    run("train", "c.yaml", "-q")
    assert before == (
        (folder / "members/0003/weights.safetensors").read_bytes(), (folder / "shared/cnn.safetensors").read_bytes(),
    )  # fmt: skip
    # A member is a start for others as any: with what it shares.
    other = ["model.weights=runs/c/members/0003/weights.safetensors", "model.new_head=false", "model.freeze=none"]
    run("train", "c.yaml", "-q", "name=d", "training.epochs=1", "num_members=1", "training.lr=1e-9", *other)
    tuned = load_file("runs/d/members/0000/weights.safetensors")
    for name, array in {**shared, **own}.items():
        if "running" not in name and "num_batches" not in name:
            np.testing.assert_allclose(tuned[name], array, atol=1e-6)


@pytest.mark.parametrize("method", ["adaboost", "snapshot", "fast_geometric", "gradient_boosting", "filter_boosting"])
def test_every_method_trains_last_layers(tmp_path: Path, method: str) -> None:
    save_file({k: t.contiguous() for k, t in weights_of(CNN, SHAPE, 10).items()}, tmp_path / "w.safetensors")
    count = {"adaboost": 8, "filter_boosting": 3}.get(method, 2)
    augmented = {"augmentation": {"shift": 0.1}} if method == "filter_boosting" else {}
    trained = ensemble.train(
        name="r", output_dir=tmp_path, num_members=count, method=method, data={"name": "digits", "max_train_rows": 300},
        model={**CNN, "weights": str(tmp_path / "w.safetensors"), "freeze": "backbone", "new_head": True},
        training={"epochs": 2, "batch_size": 32, "lr": 0.01, **augmented}, compute={"executor": "inline"},
    )  # fmt: skip
    assert len(trained.members) >= 1
    from ensemble.config.schema import DataConfig
    from ensemble.data import load_dataset

    images = load_dataset(DataConfig(name="digits")).test_images_NCHW
    votes = trained.votes("test")
    np.testing.assert_allclose(trained.ensemble.member_probs(images), votes, atol=1e-5)
    own = load_file(tmp_path / "r/members/0000/weights.safetensors")
    assert (set(own) == {"11.weight", "11.bias"}) == (method != "filter_boosting")  # whose images are each member's own


def test_what_cannot_be_stacked_whole_is_one_network_on_features(tmp_path: Path, arrays: dict[str, Any]) -> None:
    """Its branches are joined; members without a frozen backbone are trained one by one, and say so."""
    small = {**arrays, "train_images": arrays["train_images"].repeat(2, 2).repeat(2, 3)[:, :, :48, :48]}
    small["test_images"] = arrays["test_images"].repeat(2, 2).repeat(2, 3)[:, :, :48, :48]
    model = {"name": "torchvision", "architecture": "shufflenet_v2_x0_5"}
    frozen = {**model, **stored(tmp_path, weights_of(model, (1, 48, 48), 10)), "freeze": "backbone"}
    told = {}
    for name, one in (("whole", model), ("frozen", frozen)):
        config = experiment(one, epochs=1)
        given = starts(config.groups, (1, 48, 48), 10).arrays
        items = train(config, specs([0, 1]), {**small, **given})
        told[name] = " ".join(item.message for item in items if isinstance(item, Notice))
        assert len(results(items)) == 2
    assert "trained one by one" in told["whole"]
    assert "trained one by one" not in told["frozen"]
    assert "features of the frozen layers are computed once" in told["frozen"]


def test_features_of_images_as_they_are_have_no_views(tmp_path: Path) -> None:
    """Refused before anything is trained; where more than the last layer is trained, or images are deformed, there are no such features."""
    model = {**CNN, **stored(tmp_path, weights_of(CNN, SHAPE, 7))}
    views = {"evaluation": EvaluationConfig(tta=TtaConfig(shift=1))}
    frozen = experiment({**model, "freeze": "backbone"})
    with pytest.raises(ConfigError, match=r"evaluation\.tta: of cnn only the last layer is trained.*\(model\.freeze\)"):
        check_views_of_features(frozen.model_copy(update=views), SHAPE, 10)
    check_views_of_features(frozen, SHAPE, 10)
    for other in (experiment(model), experiment({**model, "freeze": "backbone"}, augmentation={"shift": 0.1})):
        check_views_of_features(other.model_copy(update=views), SHAPE, 10)
