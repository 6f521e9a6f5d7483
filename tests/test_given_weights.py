"""Weights that are given: the same run through every door, after kills, and in what is made of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.numpy import load_file
from safetensors.torch import save_file

import ensemble
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.errors import ConfigError
from ensemble.storage import RunFolder
from ensemble.training.start import starting_tensors
from ensemble.training.suitability import starts
from tests import preloaded

CNN: dict[str, Any] = {"name": "cnn", "widths": [4, 6], "batch_norm": True, "fully_connected": [8]}
KEYS: dict[str, Any] = {
    "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits", "max_train_rows": 300},
    "model": CNN, "training": {"epochs": 2, "batch_size": 32, "lr": 3e-3},
    "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
MEMBER = "members/0000/weights.safetensors"
NETS = """
from torch import nn
def net(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(784 * in_channels, 8), nn.Tanh(), nn.Linear(8, num_classes))
"""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, whose member the others start from."""
    folder = tmp_path_factory.mktemp("first")
    values = {**KEYS, "name": "first", "output_dir": str(folder)}
    return ensemble.train(None, {}, **values).path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(first / MEMBER, tmp_path / "old.safetensors")
    (tmp_path / "tuned.yaml").write_text(json.dumps({**KEYS, "model": {**CNN, "weights": "old.safetensors"}}))
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def weights(run: Path, member: int) -> dict[str, Any]:
    return RunFolder.read(run).load_weights(member)


@pytest.mark.parametrize(
    "method",
    ["deep_ensemble", "bagging", "adaboost", "filter_boosting", "gradient_boosting", "snapshot", "fast_geometric"],
)
def test_every_method_starts_from_them_and_leaves_what_is_frozen(home: Path, method: str) -> None:
    more = {
        "filter_boosting": ["training.augmentation.shift=0.1", "num_members=3"],
        "adaboost": ["num_members=4"],
        "gradient_boosting": ["training.epochs=6", "training.lr=0.03"],  # so that each round lowers the loss
    }.get(method, [])
    done = run(
        "train", "tuned.yaml", "-q", f"method.name={method}", "model.freeze=backbone", "model.new_head=true", *more
    )
    assert done.exit_code == 0, done.output
    old, members = load_file("old.safetensors"), RunFolder.read(Path("runs/tuned")).finished()
    assert len(members) >= 2
    for member in members:
        new = weights(Path("runs/tuned"), member)
        assert sorted(name for name in old if not np.array_equal(old[name], new[name])) == ["11.bias", "11.weight"]


def test_workers_of_ray_need_no_file_and_give_the_same_bits(home: Path) -> None:
    common = ["model.freeze=[0, 1]", "training.lr_backbone_factor=0.1", "compute.stack_size=1"]
    assert run("train", "tuned.yaml", "-q", "output_dir=inline", *common).exit_code == 0
    words = [sys.executable, "-m", "ensemble", "train", "tuned.yaml", "-q", "compute.executor=ray", "compute.slots=2"]
    done = preloaded.run([*words, "output_dir=ray", *common], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    for number in range(2):
        file = f"tuned/members/{number:04d}/weights.safetensors"
        assert (home / "ray" / file).read_bytes() == (home / "inline" / file).read_bytes()


def test_ranks_that_share_each_batch_leave_what_is_frozen(home: Path) -> None:
    words = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "ensemble.launch.accelerate_run",
        "tuned.yaml",
    ]
    more = ["compute.executor=accelerate", "compute.parallel=data", "model.freeze=backbone", "model.new_head=true"]
    done = subprocess.run([sys.executable, *words, *more], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert run("train", "tuned.yaml", "-q", "output_dir=inline", *more[2:]).exit_code == 0
    old = load_file("old.safetensors")
    for member in range(2):
        new, alone = weights(home / "runs/tuned", member), weights(home / "inline/tuned", member)
        assert sorted(name for name in old if not np.array_equal(old[name], new[name])) == ["11.bias", "11.weight"]
        for name, array in alone.items():
            np.testing.assert_allclose(new[name], array, rtol=1e-3, atol=1e-4)


def test_the_file_is_the_run_s_by_what_it_holds_not_by_where_it_lies(home: Path) -> None:
    assert run("train", "tuned.yaml", "-q").exit_code == 0
    lost = (home / "runs/tuned" / MEMBER).read_bytes()
    (home / "elsewhere").mkdir()
    (home / "old.safetensors").rename(home / "elsewhere/old.safetensors")
    gone = run("train", "tuned.yaml", "-q")
    assert gone.exit_code == 2
    assert "old.safetensors: cannot be read: No such file or directory" in gone.output
    for command in ("evaluate", "report", "check", "card"):
        assert run(command, "runs/tuned").exit_code == 0, command
    (home / "runs/tuned" / MEMBER).unlink()
    assert run("train", "tuned.yaml", "-q", "model.weights=elsewhere/old.safetensors").exit_code == 0
    assert (home / "runs/tuned" / MEMBER).read_bytes() == lost
    other = {name: torch.from_numpy(array) + 1 for name, array in load_file("elsewhere/old.safetensors").items()}
    save_file(other, "old.safetensors")
    changed = run("train", "tuned.yaml", "-q")
    assert changed.exit_code == 2
    assert "model.weights_sha256: " in changed.output


def test_a_member_of_a_run_brings_its_standardisation(home: Path, first: Path) -> None:
    facts = json.loads((first / "dataset.json").read_text())
    given = [f"model.weights={first / MEMBER}", "data.max_train_rows=200"]
    shown = run("config", "tuned.yaml", *given)
    assert shown.exit_code == 0, shown.output
    (line,) = [line for line in shown.output.splitlines() if line.startswith("model.mean ")]
    assert line.split() == ["model.mean", str(facts["mean"]), "filled", "in"]
    assert run("train", "tuned.yaml", "-q", *given, "model.freeze=backbone").exit_code == 0
    config = yaml.safe_load(Path("runs/tuned/config.yaml").read_text())
    assert config["model"]["mean"] == facts["mean"]
    card = run("card", "runs/tuned").output
    assert "| not trained | all but the last layer |" in card
    assert card.count("standardised with") == 1
    assert f"| standardised with | mean {facts['mean'][0]:.4f}, deviation" in card
    assert json.loads(Path("runs/tuned/dataset.json").read_text())["mean"] != facts["mean"]


def test_a_start_from_a_tuned_member_keeps_the_scale_that_this_one_had(home: Path) -> None:
    """Not that of its run's data; where groups differ and their names do not tell, it is asked for."""
    scaled = {**CNN, "weights": "old.safetensors", "mean": [0.25], "std": [0.5]}
    Path("tuned.yaml").write_text(json.dumps({**KEYS, "model": scaled}))
    assert run("train", "tuned.yaml", "-q").exit_code == 0
    cnn = {**CNN, "widths": (4, 6), "fully_connected": (8,)}
    model = {**cnn, "weights": f"runs/tuned/{MEMBER}"}
    made = parse_experiment({**KEYS, "name": "x", "model": model}, folder=home).groups[0].model
    assert (made.mean, made.std) == ((0.25,), (0.5,))
    values = {key: value for key, value in KEYS.items() if key not in ("model", "num_members")}
    named = [{"count": 1, "name": "own", "model": scaled}, {"count": 1, "name": "plain", "model": CNN}]
    Path("mixed.yaml").write_text(json.dumps({**values, "members": named}))
    assert run("train", "mixed.yaml", "-q").exit_code == 0
    facts = json.loads(Path("runs/mixed/dataset.json").read_text())
    for member, mean in ((0, (0.25,)), (1, tuple(facts["mean"]))):
        model = {**cnn, "weights": f"runs/mixed/members/{member:04d}/weights.safetensors"}
        assert parse_experiment({**KEYS, "name": "x", "model": model}, folder=home).groups[0].model.mean == mean
    unnamed = [{"count": 1, "model": scaled}, {"count": 1, "model": {"name": "lenet5"}}]
    Path("unnamed.yaml").write_text(json.dumps({**values, "members": unnamed}))
    assert run("train", "unnamed.yaml", "-q").exit_code == 0
    given = ["model.weights=runs/unnamed/members/0000/weights.safetensors"]
    Path("next.yaml").write_text(json.dumps({**KEYS, "model": CNN}))
    asked = run("config", "next.yaml", *given)
    assert asked.exit_code == 2
    assert "give model.mean and model.std" in asked.output
    assert run("config", "next.yaml", *given, "model.mean=[0.25]", "model.std=[0.5]").exit_code == 0


def test_groups_with_scales_of_their_own_answer_as_they_were_trained(home: Path) -> None:
    """Predictions and exported files are compared with the votes of the run."""
    values = {key: value for key, value in KEYS.items() if key not in ("model", "num_members")}
    groups = [
        {"count": 2, "name": "tuned", "model": {**CNN, "weights": "old.safetensors", "mean": [0.9], "std": [0.1]}},
        {"count": 1, "name": "fresh", "model": CNN},
        {"count": 1, "name": "other", "model": {"name": "lenet5", "mean": [0.2], "std": [2.0]}},
    ]
    Path("mixed.yaml").write_text(json.dumps({**values, "members": groups}))
    done = run("train", "mixed.yaml", "-q")
    assert done.exit_code == 0, done.output
    from ensemble.config.schema import DataConfig
    from ensemble.data import load_dataset

    images = load_dataset(DataConfig(name="digits")).test_images_NCHW
    loaded = ensemble.load("runs/mixed")
    votes = loaded.votes("test")
    np.testing.assert_allclose(loaded.predict_proba(images), votes.mean(0), atol=1e-5)
    assert run("export", "runs/mixed", "--format", "onnx", "--out", "vote.onnx").exit_code == 0
    card = run("card", "runs/mixed").output
    assert "| weights of tuned at the start | old.safetensors (SHA-256 " in card
    assert "weights: old.safetensors" in card
    assert str(home) not in card.partition("```yaml")[2].partition("```")[0]
    assert "| standardised of other with | mean 0.2000, deviation 2.0000 |" in card
    session = onnxruntime.InferenceSession("vote.onnx")
    found = session.run(["probabilities"], {"images": images[:50]})[0]
    np.testing.assert_allclose(found, loaded.predict_proba(images[:50]), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["model.weights=nowhere.pth"], "nowhere.pth: cannot be read: No such file"),
        (["model.weights=tuned.yaml"], "expected a file whose name ends in .safetensors, .pth, .pt or .bin"),
        (["model.weights_sha256=" + "0" * 64], "is filled in from the file itself"),
        (["model.name=lenet5"], "0.weight is [4, 1, 3, 3], but [6, 1, 5, 5] in this network"),
        (["model.mean=[0.5]"], "mean and std belong together"),
        (["model.mean=[0.5, 0.5]", "model.std=[0.5, 0.5]"], "model.mean has 2 numbers, but the images of this data set have 1 channels"),
        (["model.std=[0]", "model.mean=[0]"], "at least 0.000001"),
        (["model.freeze=[]"], "freeze is empty"),
        (["model.freeze=head"], "model.freeze"),
        (["model.freeze=[layer9]"], "'layer9' fits no weights of the network"),
        (["model.freeze=backbone", "training.lr_backbone_factor=0.1"], "lr_backbone_factor has no effect with model.freeze backbone"),
        (["model.weights=null", "model.freeze=backbone"], "model.freeze would keep layers as they were drawn at random"),
        (["model.weights=null", "model.new_head=true"], "model.new_head has no effect without model.weights"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_is_trained(home: Path, change: list[str], message: str) -> None:
    if change == ["model.name=lenet5"]:
        Path("tuned.yaml").write_text(json.dumps({**KEYS, "model": {"name": "lenet5", "weights": "old.safetensors"}}))
    done = run("train", "tuned.yaml", "-q", *change)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.output.split())
    assert not list(Path().glob("runs/*")), "a mistake leaves no folder behind"


def test_a_network_of_one_s_own_and_sweeps_and_the_classifier(home: Path) -> None:
    Path("nets.py").write_text(NETS)
    own = {"name": "python", "path": "nets.py:net"}
    Path("own.yaml").write_text(json.dumps({**KEYS, "model": own}))
    assert run("train", "own.yaml", "-q").exit_code == 0
    tuned = {**own, "weights": f"runs/own/{MEMBER}", "freeze": "backbone"}
    Path("own2.yaml").write_text(json.dumps({**KEYS, "model": tuned}))
    done = run("train", "own2.yaml", "-q")
    assert done.exit_code == 0, done.output
    random = {**own, "freeze": "backbone"}
    Path("own3.yaml").write_text(json.dumps({**KEYS, "model": random}))
    done = run("train", "own3.yaml")
    assert "which each member has drawn at random: the network loads none of them" in done.output
    old, new = weights(home / "runs/own", 0), weights(home / "runs/own2", 1)
    assert sorted(name for name in old if not np.array_equal(old[name], new[name])) == ["3.bias", "3.weight"]
    sweep = {**KEYS, "model": tuned, "sweep": {"axes": {"model.freeze": ["none", "backbone"], "training.lr": [1e-3]}}}
    Path("sweep.yaml").write_text(json.dumps(sweep))
    done = run("sweep", "sweep.yaml")
    assert done.exit_code == 0, done.output
    images = np.random.default_rng(0).integers(0, 255, (60, 28, 28)).astype(np.uint8)
    small = {"name": "mlp", "widths": [4]}
    plain = ensemble.EnsembleClassifier(
        model=small, num_members=2, training={"epochs": 1}, folder="fits", random_state=0
    )
    plain.fit(images, np.arange(60) % 3)
    file = str(next(Path("fits").rglob(MEMBER)))
    model = {**small, "weights": file, "freeze": "backbone"}
    again = ensemble.EnsembleClassifier(
        model=model, num_members=2, training={"epochs": 1}, folder="tuned", random_state=0
    )
    again.fit(images, np.arange(60) % 3)
    one, other = load_file(file), weights(next(Path("tuned").rglob(MEMBER)).parents[2], 0)
    assert sorted(name for name in one if not np.array_equal(one[name], other[name])) == ["3.bias", "3.weight"]


def test_the_library_s_own_weights_by_name(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a connection: the file lies where torchvision looks for it, or is missing."""
    from torchvision.models import ResNet18_Weights, resnet18

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    model = {"name": "torchvision", "architecture": "resnet18", "weights": "DEFAULT", "freeze": "backbone"}
    experiment = parse_experiment({**KEYS, "name": "x", "model": model})
    section = experiment.groups[0].model
    assert section.weights == "IMAGENET1K_V1"
    assert section.mean == (0.485, 0.456, 0.406)
    assert section.std == (0.229, 0.224, 0.225)
    monkeypatch.setattr("urllib.request.urlopen", _no_connection)
    with pytest.raises(
        ConfigError, match=r"cannot be downloaded from https://.* put that file at .*/torch/hub/checkpoints/resnet18-"
    ):
        starting_tensors(section, (3, 32, 32), 10)
    place = tmp_path / "torch/hub/checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    network = resnet18()
    torch.save(network.state_dict(), place / ResNet18_Weights.DEFAULT.url.rpartition("/")[2])
    found = starts(experiment.groups, (3, 32, 32), 10)
    assert found.notes == [
        "resnet18: drawn anew for every member: fc.weight, fc.bias",
        "resnet18: 11,176,512 of 11,181,642 parameters stay as they are (model.freeze)",
    ]
    assert len(found.arrays["start.resnet18"]) > 4 * 11_000_000
    with pytest.raises(ConfigError, match="torchvision has IMAGENET1K_V1, DEFAULT for resnet18; expected one of them"):
        parse_experiment({**KEYS, "name": "x", "model": {**model, "weights": "IMAGENET"}})


def _no_connection(*_args: Any, **_words: Any) -> Any:
    raise OSError("Network is unreachable")


def test_timm_s_weights_without_a_connection(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"name": "timm", "architecture": "resnet10t", "pretrained": True}
    section = parse_experiment({**KEYS, "name": "x", "model": model}).groups[0].model
    assert section.mean is not None
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", _no_connection)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", _no_connection)
    with pytest.raises(
        ConfigError, match=r"model\.pretrained: timm gives no weights for resnet10t \(OSError: Network is"
    ):
        starting_tensors(section, (3, 32, 32), 10)
    with pytest.raises(ConfigError, match="pretrained stands for timm's weights"):
        parse_experiment({**KEYS, "name": "x", "model": {**model, "weights": "old.safetensors"}})


def test_a_colour_run_is_a_start_for_grey_images(home: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 28, 28, 3)).astype(np.uint8)
    np.savez("colour.npz", train_images=images, train_labels=np.arange(60) % 3)
    data = {"name": "arrays", "path": "colour.npz"}
    Path("colour.yaml").write_text(json.dumps({**KEYS, "data": data}))
    assert run("train", "colour.yaml", "-q").exit_code == 0
    done = run("train", "tuned.yaml", f"model.weights=runs/colour/{MEMBER}")
    assert done.exit_code == 0, done.output
    assert "standardised by the average of the numbers for three channels" in done.output
    assert "the first convolution takes 1 channels, the weights are for 3: summed" in done.output


STRANGE = """
import torch
from torch import nn
class Scalar(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.body, self.norm = nn.Linear(784 * in_channels, 8), nn.BatchNorm1d(8, affine=False)
        self.register_buffer("scale", torch.tensor(0.5))
        self.warmth = nn.Parameter(torch.tensor(1.5))
        self.head = nn.Linear(8, num_classes)
    def forward(self, x):
        return self.head(self.norm(self.body(x.flatten(1))).relu() * self.scale) * self.warmth
"""


def test_numbers_without_axes_are_kept_as_they_are(home: Path) -> None:
    Path("nets.py").write_text(STRANGE)
    Path("own.yaml").write_text(json.dumps({**KEYS, "model": {"name": "python", "path": "nets.py:Scalar"}}))
    assert run("train", "own.yaml", "-q").exit_code == 0
    found = weights(home / "runs/own", 0)
    assert found["scale"].shape == found["warmth"].shape == found["norm.num_batches_tracked"].shape == ()
    loaded = ensemble.load("runs/own", trust_code=True)
    assert loaded.predict_proba(np.zeros((2, 1, 28, 28), np.uint8)).shape == (2, 10)
    again = {"name": "python", "path": "nets.py:Scalar", "weights": f"runs/own/{MEMBER}"}
    Path("again.yaml").write_text(json.dumps({**KEYS, "model": again}))
    assert run("train", "again.yaml", "-q").exit_code == 0
