"""What is known of a network's work and room before anything runs, beside what torch does and keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble.config import parse_experiment
from ensemble.config.network import Network
from ensemble.models import build_model
from ensemble.models.work import activation_sizes, multiply_adds, needs_two_images

IMAGE, IMAGES = (3, 32, 32), 4


def config_of(model: dict[str, Any]) -> Network:
    single = {"name": "t", "num_members": 1, "method": {"name": "deep_ensemble"}, "model": model}
    return parse_experiment(single).groups[0].model


def kept_for_backward(config: Network) -> float:
    """Numbers that autograd keeps of one image, weights left out."""
    network = build_model(config, IMAGE, 10).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}  # the tensors too, so that no storage is used twice

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.randn(IMAGES, *IMAGE))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 4 / IMAGES


@pytest.mark.parametrize(
    "model",
    [
        {"name": "lenet5"},
        {"name": "mlp"},
        {"name": "cnn"},
        {"name": "cnn", "batch_norm": True, "dropout": 0.2},
        {"name": "resnet18"},
        {"name": "resnet18", "stem": "small"},
        {"name": "resnet50"},
    ],
    ids=lambda model: "-".join(map(str, model.values())),
)
def test_activations_are_what_training_keeps(model: dict[str, Any]) -> None:
    """Training keeps at least nine tenths of them, and may keep more: masks of dropout, and the places of maxima."""
    sizes, kept = activation_sizes(config_of(model), IMAGE, 10), kept_for_backward(config_of(model))
    assert 0.8 * kept <= sum(sizes)
    assert 0.9 * sum(sizes) <= kept
    assert sizes[0] == 3 * 32 * 32


@pytest.mark.parametrize(
    "model",
    [
        {"name": "lenet5"}, {"name": "lenet4"}, {"name": "mlp"}, {"name": "cnn", "batch_norm": True, "dropout": 0.2},
        {"name": "resnet18"}, {"name": "resnet50"}, {"name": "torchvision", "architecture": "mobilenet_v2"},
    ],
    ids=lambda model: "-".join(map(str, model.values())),
)  # fmt: skip
def test_a_pass_and_a_followed_shape_give_the_same(model: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is made where it is quick, the second for large networks."""
    config, found = config_of(model), []
    for weights in (10**9, -1):
        monkeypatch.setattr("ensemble.models.work._MANY_WEIGHTS", weights)
        found.append(
            (activation_sizes(config, IMAGE, 10), multiply_adds(config, IMAGE, 10), needs_two_images(config, IMAGE, 10))
        )
    assert found[0] == found[1]
