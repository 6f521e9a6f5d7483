"""Networks written layer by layer, and the layer table of any network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from pydantic import TypeAdapter
from torch import nn

from ensemble.commands.main import main
from ensemble.config import load_config
from ensemble.config.network import Network
from ensemble.errors import ConfigError
from ensemble.models import build_model, num_parameters
from ensemble.report.layer_table import layer_rows
from ensemble.report.listings import describe_network
from ensemble.training.stack import Stack, unstackable

SEEDS = Path(__file__).resolve().parents[2] / "configs" / "seeds"
ADAPTER: TypeAdapter[Network] = TypeAdapter(Network)
PARAMETERS = {
    "lenet5": 61_706,
    "lenet5_augmented": 61_706,
    "lenet5_augmented_200": 61_706,
    "resnet50": 23_522_250,
    "mlp_784_128": 717_210,
    "mlp_128_64_sgd": 109_386,
    "mlp_128_64_adam": 109_386,
    "cnn_3x3_adam": 429_258,
    "cnn_3x3_sgd": 108_618,
    "cnn_5x5_adam": 582_026,
    "tiny_phase1": 7_896,
    "tiny_phase2": 7_974,
    "tiny_phase3": 7_753,
    "tiny_phase4": 7_753,
}


def layers(*entries: dict[str, object]) -> Network:
    return ADAPTER.validate_python({"name": "layers", "layers": entries})


def test_every_seed_configuration_has_its_published_number_of_parameters() -> None:
    found = {
        path.stem: num_parameters(build_model(load_config(path).experiment.groups[0].model, (1, 28, 28), 10))
        for path in SEEDS.glob("*.yaml")
    }
    assert found == PARAMETERS


def test_layers_stand_in_the_written_order() -> None:
    config = layers(
        {"kind": "conv", "channels": 4, "kernel_size": 5, "padding": 2, "batch_norm": True, "activation": "tanh", "dropout": 0.1},
        {"kind": "average_pool", "size": 2},
        {"kind": "linear", "width": 7, "activation": "relu"},
        {"kind": "linear", "width": "classes"},
    )  # fmt: skip
    model = build_model(config, (3, 8, 8), 5)
    kinds = [type(layer) for layer in model.children()]
    assert kinds == [
        nn.Conv2d, nn.BatchNorm2d, nn.Tanh, nn.Dropout, nn.AvgPool2d, nn.Flatten, nn.Linear, nn.ReLU, nn.Linear,
    ]  # fmt: skip
    assert next(model.children()).bias is None  # batch norm follows
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert not unstackable(model)


def test_a_stack_of_layered_networks_equals_the_networks_alone() -> None:
    config = load_config(SEEDS / "tiny_phase3.yaml").experiment.groups[0].model
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    stack = Stack.build(config, (1, 28, 28), 10, [5, 6]).eval()
    alone = [Stack.build(config, (1, 28, 28), 10, [seed]).eval()(images)[:, 0] for seed in (5, 6)]
    assert torch.allclose(stack(images), torch.stack(alone, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"kind": "conv", "channels": 4}], "must have `classes`"),
        ([{"kind": "linear", "width": 4}, {"kind": "conv", "channels": "classes"}], "only full connections can follow"),
    ],
)
def test_a_list_that_cannot_be_a_classifier_is_refused(entries: list[dict[str, object]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        layers(*entries)


def test_what_is_left_over_must_be_one_number_per_class() -> None:
    with pytest.raises(ConfigError, match=r"10 channels of 26x26, 6760 numbers; expected 10"):
        build_model(layers({"kind": "conv", "channels": "classes"}), (1, 28, 28), 10)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="too small"):
        build_model(layers({"kind": "conv", "channels": "classes", "kernel_size": 9}), (1, 8, 8), 10)


def test_layer_table_has_the_published_sizes_and_receptive_fields() -> None:
    """Output side and receptive field of every convolution and pooling as the document's table has them."""
    rows = describe_network(str(SEEDS / "tiny_phase1.yaml"), []).layers
    spatial = [(r.output[1], r.receptive_field, r.parameters) for r in rows if r.kernel_size is not None]
    assert spatial == [
        (26, 3, 100), (24, 5, 910), (22, 7, 910), (11, 8, 0), (9, 12, 910), (7, 16, 1001), (5, 20, 1200),
        (3, 24, 1308), (1, 28, 1417), (1, 28, 140),
    ]  # fmt: skip


def test_layer_table_of_a_residual_network_counts_the_main_path() -> None:
    """ResNet-18's receptive field before pooling is 435 pixels (Araujo, Norris and Sim 2019, table 1), cut at the side."""
    model = build_model(ADAPTER.validate_python({"name": "resnet18"}), (1, 512, 512), 10)
    rows = layer_rows(model, (1, 512, 512))
    fields = [row.receptive_field for row in rows if row.kind == "Conv2d" and "downsample" not in row.name]
    assert fields[-1] == 435
    assert sum(row.parameters for row in rows) == num_parameters(model)
    assert rows[-1].receptive_field is None  # after global pooling


def test_layers_of_a_named_network_take_its_keys() -> None:
    found = describe_network("mlp", ["widths=[5]"])
    title, rows = found.title, found.layers
    assert title == "mlp: images 1x28x28, 10 classes"
    assert [row.parameters for row in rows if row.kind == "Linear"] == [785 * 5, 60]
    with pytest.raises(ConfigError, match="no such network: mpl"):
        describe_network("mpl", [])
    with pytest.raises(ConfigError, match="width"):
        describe_network("mlp", ["width=3"])


def test_a_network_of_one_s_own_is_described_with_what_a_run_would_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def chain(num_classes, in_channels, width=4):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes))\n"
        "class Attends(nn.Module):\n"
        "    def __init__(self, num_classes, in_channels):\n"
        "        super().__init__()\n"
        "        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)\n"
        "        self.first, self.last = nn.Linear(in_channels * 8, 8), nn.Linear(8, num_classes)\n"
        "    def forward(self, x):\n"
        "        x = self.first(x.permute(0, 2, 3, 1).flatten(2))\n"
        "        return self.last(self.attention(x, x, x)[0].mean(1))\n"
        "def square(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    square = describe_network("nets.py:square", [], (3, 8, 8), 5)
    assert square.title == "nets.py:square: images 3x8x8, 5 classes"
    assert [(row.kind, row.output) for row in square.layers] == [
        ("Conv2d", (4, 6, 6)), ("ReLU", (4, 6, 6)), ("Flatten", (144,)), ("Linear", (5,)),
    ]  # fmt: skip
    assert square.notes == ["members are computed as one network"]
    attends = describe_network(f"{tmp_path}/nets.py:Attends", [], (1, 8, 8), 5)
    assert [row.kind for row in attends.layers if row.parameters] != []
    assert attends.notes[0].startswith("members are trained one by one, since attention")
    with pytest.raises(ConfigError, match=r"chain\(num_classes=10, in_channels=1, wdith=3\): failed: TypeError"):
        describe_network("nets.py:chain", ["wdith=3"])
    with pytest.raises(ConfigError, match=r"nets\.py:none: there is no such class or function"):
        describe_network("nets.py:none", [])
    done = CliRunner().invoke(main, ["models", "nets.py:square", "--image", "3x8x8", "--classes", "5", "--json"])
    assert json.loads(done.stdout) == json.loads(json.dumps(square.to_json()))
    wrong = CliRunner().invoke(main, ["models", "nets.py:square", "--image", "8x8"])
    assert wrong.exit_code == 2
    assert "expected such as 3x224x224" in wrong.output
