"""Last layers drawn without building whole networks: as building draws them, by whatever means a network draws its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble.config.network import Network
from ensemble.seeding import Purpose, member_seed
from ensemble.training import drawn_heads, frozen_features
from ensemble.training.drawn_heads import DrawnAlone, _built, _shapes, _steps
from ensemble.training.frozen_features import HeadStack
from ensemble.training.stack import build_seeded
from ensemble.training.start import head_of, trained
from ensemble.training.suitability import starts
from tests.training.helpers import arrays as arrays
from tests.training.helpers import experiment, specs
from tests.training.test_cuda_graph import run_of
from tests.training.test_start import CNN, RESNET, SHAPE, stored, weights_of

# How a network may draw its last layer, and whether that can be done again without building it.
HABITS = {
    "as_linear_layers": ("", True),
    "normal": ("nn.init.normal_(self.head.weight, std=0.02); nn.init.zeros_(self.head.bias)", True),
    "truncated": ("nn.init.trunc_normal_(self.head.weight, std=0.02)", True),
    "scaled": ("self.head.weight.data.mul_(0.1)", True),
    "all": ("self.apply(lambda m: nn.init.xavier_uniform_(m.weight) if isinstance(m, nn.Linear) else None)", True),
    "by_a_function": ("self.head.weight = nn.Parameter(torch.randn(num_classes, 6))", False),
    "copied": ("self.head.weight.data.copy_(torch.rand(num_classes, 6))", False),
    "orthogonal": ("nn.init.orthogonal_(self.head.weight)", False),
    "looks_at_its_weights": ("assert self.body.weight.std() > 0", False),
    "scaled_by_its_answer": ("self.head.weight.data.div_(self(torch.rand(4, 1, 28, 28)).std())", False),
    "a_second_layer_of_its_shape": ("self.body = nn.Sequential(self.body, nn.Linear(6, num_classes), nn.Linear(num_classes, 6))", True),
}  # fmt: skip
NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.body, self.head = nn.Linear(784, 6), nn.Linear(6, num_classes)
        {habit}
    def forward(self, x):
        return self.head(self.body(x.flatten(1)).tanh())
"""
LIBRARY = ["resnet18", "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "vgg11"]


@pytest.fixture(params=[*HABITS, *LIBRARY, "cnn", "resnet"])
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, bool]]:
    """(network, image shape), and whether its last layer can be drawn again alone."""
    name = request.param
    if name in HABITS:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "nets.py").write_text(NET.format(habit=HABITS[name][0]))
        section = Network.registry.find("python")
        assert section is not None
        keys = dict(section.complete({"name": "python", "path": "nets.py:Net"}, tmp_path))
        yield (experiment(keys).groups[0].model, SHAPE), HABITS[name][1]
    elif name in LIBRARY:
        yield (experiment({"name": "torchvision", "architecture": name}).groups[0].model, (3, 64, 64)), True
    else:
        yield (experiment({"cnn": CNN, "resnet": RESNET}[name]).groups[0].model, SHAPE), True


def test_they_are_those_of_a_network_in_which_nothing_else_is_drawn(case: tuple[Any, bool]) -> None:
    """Or, where that cannot be done again without building it, of the network as it is."""
    (model, shape), again = case
    assert (_steps(model, shape, 10) is not None) == again
    seeds = [5, 2**40, 7]
    found = drawn_heads.drawn_heads(model, shape, 10, seeds)
    for seed, layer in zip(seeds, found, strict=True):
        alone = DrawnAlone(_shapes(model, shape, 10)) if again else nullcontext()  # else the whole network is drawn
        expected = _built(model, shape, 10, seed, alone)
        assert set(layer) == set(expected) == head_of(model, shape, 10)
        for name, tensor in expected.items():
            torch.testing.assert_close(layer[name], tensor, rtol=0, atol=0)
            assert not layer[name].requires_grad
    # Of the distribution that the network gives them: the same scale, and another draw for every seed.
    whole = build_seeded(model, shape, 10, 3).state_dict()
    for name in found[0]:
        assert float(whole[name].std()) == pytest.approx(float(found[0][name].std()), rel=0.6, abs=1e-6)
        if name.endswith("weight"):
            assert not torch.equal(found[0][name], found[2][name])


def test_the_generator_is_left_as_it_was(case: tuple[Any, bool]) -> None:
    (model, shape), _ = case
    torch.manual_seed(11)
    before = torch.get_rng_state()
    drawn_heads.drawn_heads(model, shape, 10, [1, 2])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("keys", "alone"), [({"freeze": "backbone"}, True), ({"freeze": ("0", "1")}, False), ({}, False)]
)
def test_whole_networks_of_which_the_last_layer_alone_is_trained_start_with_it(
    tmp_path: Path, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], alone: bool
) -> None:
    """The other layers are those of the weights, and the last one is drawn as ever where more than that is trained."""
    given = stored(tmp_path, weights_of(CNN, SHAPE, 7))  # of seven classes, so that the last layer is not theirs
    config = experiment({**CNN, **given, **keys})
    model = config.groups[0].model
    assert trained(config.groups[0], SHAPE, 10).head_alone == alone
    monkeypatch.setattr(frozen_features, "MOST_BYTES", 0)
    started = starts(config.groups, SHAPE, 10)
    stack = run_of(config, {**arrays, **started.arrays}, None).stack
    assert not isinstance(stack, HeadStack)
    for k, member in enumerate(specs([0, 1])):
        drawn = build_seeded(model, SHAPE, 10, member_seed(config.seed, member.index, Purpose.INIT)).state_dict()
        if alone:
            seed = member_seed(config.seed, member.index, Purpose.HEAD)
            drawn = drawn_heads.drawn_heads(model, SHAPE, 10, [seed])[0]
        for name in head_of(model, SHAPE, 10):
            torch.testing.assert_close(stack.member_state(k)[name], drawn[name], rtol=0, atol=0)
