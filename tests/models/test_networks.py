"""Every network: parameter counts, shapes for any channels and classes, finite outputs, gradients everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from ensemble.config.network import Network
from ensemble.errors import ConfigError
from ensemble.models import build_model, num_parameters
from ensemble.training.stack import unstackable

ADAPTER: TypeAdapter[Any] = TypeAdapter(Network)
COUNTS = [
    ({"name": "lenet5"}, (1, 28, 28), 10, 61_706),
    ({"name": "resnet50"}, (1, 28, 28), 10, 23_522_250),
    ({"name": "resnet18"}, (3, 32, 32), 10, 11_181_642),
    ({"name": "mlp", "widths": (784, 128)}, (1, 28, 28), 10, 717_210),
    ({"name": "mlp", "widths": (128, 64)}, (1, 28, 28), 10, 109_386),
    ({"name": "cnn", "fully_connected": (128, 64)}, (1, 28, 28), 10, 429_258),
]
ALL = [
    {"name": "lenet5"},
    {"name": "mlp", "widths": (16,), "activation": "gelu", "dropout": 0.1},
    {"name": "cnn", "widths": (4, 8), "batch_norm": True, "dropout": 0.2},
    {"name": "cnn", "widths": (4,), "kernel_size": 5, "padding": 0, "activation": "silu", "fully_connected": ()},
    {"name": "resnet18"},
    {"name": "resnet18", "stem": "small"},
]


@pytest.mark.parametrize(("config", "shape", "classes", "count"), COUNTS, ids=lambda value: str(value))
def test_parameters(config: dict[str, Any], shape: tuple[int, int, int], classes: int, count: int) -> None:
    assert num_parameters(build_model(ADAPTER.validate_python(config), shape, classes)) == count


@pytest.mark.parametrize("config", ALL, ids=str)
@pytest.mark.parametrize(("shape", "classes"), [((1, 28, 28), 10), ((3, 32, 32), 4), ((2, 20, 24), 2)])
def test_any_channels_and_classes(config: dict[str, Any], shape: tuple[int, int, int], classes: int) -> None:
    torch.manual_seed(0)
    model = build_model(ADAPTER.validate_python(config), shape, classes)
    logits = model(torch.rand(5, *shape))
    assert logits.shape == (5, classes)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert unstackable(model) == []


def test_too_small_images_say_so() -> None:
    with pytest.raises(ConfigError, match="model cnn: images of 8x8"):
        build_model(ADAPTER.validate_python({"name": "cnn", "widths": (4, 4, 4, 4)}), (1, 8, 8), 10)
    with pytest.raises(ConfigError, match="lenet5"):
        build_model(ADAPTER.validate_python({"name": "lenet5"}), (1, 10, 10), 10)


def test_pooling_before_a_monotone_activation_changes_nothing() -> None:
    x = torch.randn(3, 4, 8, 8)
    pool = torch.nn.MaxPool2d(2)
    for name in ("relu", "tanh", "sigmoid"):
        activation = getattr(torch, name)
        torch.testing.assert_close(pool(activation(x)), activation(pool(x)), rtol=0, atol=0)
