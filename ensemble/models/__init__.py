"""The networks, by name. A network is an nn.Module from images [B, C, H, W] to logits [B, classes] and nothing else.

    model = build_model(config, image_shape=(1, 28, 28), num_classes=10)

Building draws the initial weights from torch's CPU generator; `training.stack` seeds it for every member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ensemble.config.models import ModelConfig
from ensemble.models.cnn import build_cnn
from ensemble.models.layers import build_layers
from ensemble.models.lenet import build_lenet4, build_lenet5
from ensemble.models.mlp import build_mlp
from ensemble.models.resnet import build_resnet

ImageShape = tuple[int, int, int]

MODELS: dict[str, Callable[[Any, ImageShape, int], nn.Module]] = {
    "lenet5": build_lenet5,
    "lenet4": build_lenet4,
    "mlp": build_mlp,
    "cnn": build_cnn,
    "resnet18": build_resnet,
    "resnet50": build_resnet,
    "layers": build_layers,
}


def build_model(config: ModelConfig, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """The network of a model configuration for images (C, H, W) and that many classes.

    Raises ConfigError where the images are too small for the layers.
    """
    return MODELS[config.name](config, image_shape, num_classes)


def num_parameters(model: nn.Module) -> int:
    """Trainable parameters of a network."""
    return sum(parameter.numel() for parameter in model.parameters())
