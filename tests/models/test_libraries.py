"""Networks of torchvision and timm by name: right alone, in a stack where that is right, and through every door."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.errors import ConfigError
from ensemble.models import build_model
from ensemble.training import check_network
from ensemble.training.stack import Stack
from ensemble.training.trial import maps, obstacles

SHAPE = (1, 48, 48)
# Whether members can be one network, and else a part of the reason.
SMALL: dict[tuple[str, str], str] = {
    ("torchvision", "mobilenet_v3_small"): "", ("torchvision", "mobilenet_v2"): "", ("torchvision", "mnasnet0_5"): "",
    ("torchvision", "regnet_y_400mf"): "", ("torchvision", "shufflenet_v2_x0_5"): "the network as two",
    ("torchvision", "squeezenet1_1"): "the network as two", ("torchvision", "efficientnet_b0"): "",
    ("timm", "mobilenetv3_small_050"): "BatchNormAct2d", ("timm", "resnet10t"): "",
}  # fmt: skip
# Of those that cannot, the ones that torch.func computes as one on a GPU.
MAPPED = {
    "shufflenet_v2_x0_5", "squeezenet1_1", "mobilenetv3_small_050", "densenet121", "googlenet", "shufflenet_v2_x1_0",
    "squeezenet1_0", "vit_tiny_patch16_224",
}  # fmt: skip
LARGE: dict[tuple[str, str], str] = {
    ("torchvision", "resnet18"): "", ("torchvision", "resnet34"): "occupies a device alone",
    ("torchvision", "resnext50_32x4d"): "occupies a device alone", ("torchvision", "densenet121"): "the network as two",
    ("torchvision", "googlenet"): "the network as two", ("torchvision", "convnext_tiny"): "LayerNorm2d",
    ("torchvision", "swin_t"): "Permute", ("torchvision", "mnasnet1_0"): "", ("torchvision", "regnet_x_800mf"): "",
    ("torchvision", "mobilenet_v3_large"): "", ("torchvision", "shufflenet_v2_x1_0"): "the network as two",
    ("torchvision", "squeezenet1_0"): "the network as two", ("torchvision", "efficientnet_v2_s"): "occupies a device alone",
    ("timm", "vit_tiny_patch16_224"): "VisionTransformer", ("timm", "efficientvit_b0"): "LayerNorm",
}  # fmt: skip


def network(library: str, architecture: str, **args: Any) -> Any:
    model = {"name": library, "architecture": architecture, "args": args}
    values = {"name": "t", "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "model": model}
    return parse_experiment(values).groups[0].model


@pytest.mark.parametrize(
    ("library", "architecture", "reason"),
    [(*key, reason) for key, reason in SMALL.items()]
    + [pytest.param(*key, reason, marks=pytest.mark.long) for key, reason in LARGE.items()],
)
def test_alone_and_in_a_stack(library: str, architecture: str, reason: str) -> None:
    args = {"img_size": 48} if architecture.startswith("vit") else {}
    model = network(library, architecture, **args)
    list(check_network(model, SHAPE, 7, several=False))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        plain = build_model(model, SHAPE, 7).eval()
    images = torch.rand(2, *SHAPE)
    torch.testing.assert_close(
        Stack.build(model, SHAPE, 7, [5]).eval()(images)[:, 0], plain(images), rtol=1e-3, atol=1e-4
    )
    found = ", ".join(obstacles(model, SHAPE, 7))
    assert (reason in found) if reason else found == "", found
    if not reason:
        both = Stack.build(model, SHAPE, 7, [4, 5]).eval()(images)
        torch.testing.assert_close(both[:, 1], plain(images), rtol=1e-3, atol=1e-4)
    else:
        assert maps(model, SHAPE, 7) == (architecture in MAPPED)
    if architecture in MAPPED:
        both = Stack.build_mapped(model, SHAPE, 7, [4, 5]).eval()(images)
        torch.testing.assert_close(both[:, 1], plain(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("library", "architecture"), [("torchvision", "squeezenet1_1"), ("timm", "resnet10t")])
def test_any_number_of_channels(library: str, architecture: str, channels: int) -> None:
    made = build_model(network(library, architecture), (channels, 48, 48), 5)
    assert made(torch.rand(2, channels, 48, 48)).shape == (2, 5)


def test_a_run_through_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keys = {
        "name": "own", "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits", "max_train_rows": 100},
        "model": {"name": "torchvision", "architecture": "mobilenet_v3_small"},
        "training": {"epochs": 1, "batch_size": 32}, "compute": {"executor": "inline", "device": "cpu", "stack_size": 2},
        "tracking": {"wandb": {"mode": "disabled"}},
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(json.dumps(keys))
    run = CliRunner()
    done = run.invoke(main, ["train", "own.yaml", "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert {member["recipe"] for member in record["members"]} == {"mobilenet_v3_small"}
    events = [json.loads(line) for line in (tmp_path / "runs/own/events.jsonl").read_text().splitlines()]
    assert [event["members"] for event in events if event["event"] == "TaskStarted"] == [[0, 1]]
    assert run.invoke(main, ["evaluate", "own"]).exit_code == 0
    exported = run.invoke(main, ["export", "own", "--format", "torch_export"])
    assert exported.exit_code == 0, exported.output
    listed = run.invoke(main, ["models", "torchvision", "architecture=squeezenet1_1"])
    assert (listed.exit_code, "Conv2d" in listed.output) == (0, True)


@pytest.mark.parametrize(
    ("library", "architecture", "args", "message"),
    [
        ("torchvision", "resnet19", {}, "torchvision.models has no such network; near it: .*resnet18"),
        ("torchvision", "fcn_resnet50", {}, "has no such network"),  # a network, but no classifier
        ("timm", "resnet10tt", {}, "timm has no such network; near it: .*resnet10t"),
        ("torchvision", "squeezenet1_1", {"width": 3}, "squeezenet1_1.* failed: TypeError"),
        ("torchvision", "squeezenet1_1", {"num_classes": 3}, "num_classes of squeezenet1_1 is given by the data set"),
        ("torchvision", "alexnet", {}, "cannot take images of 1 channels and 28x28 pixels"),
    ],
)
def test_mistakes_are_named(library: str, architecture: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(check_network(network(library, architecture, **args), (1, 28, 28), 10, several=True))


def test_timm_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install 'ensemble-trainer\[timm\]'"):
        build_model(network("timm", "resnet10t"), SHAPE, 10)
