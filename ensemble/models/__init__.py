"""The networks, a file each: the keys of its configuration section, how it is built, what the planner must know of it.

    model = build_model(config, image_shape=(1, 28, 28), num_classes=10)

Building draws the initial weights from torch's CPU generator; `training.stack` seeds it for every member. Importing this
needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensemble.config.network import Network

if TYPE_CHECKING:
    from torch import nn

ImageShape = tuple[int, int, int]


def build_model(config: Network, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """The network of a configuration section for images (C, H, W) and that many classes.

    Raises ConfigError where the images are too small for the layers.
    """
    model: nn.Module = config.build(image_shape, num_classes)
    return model


def num_parameters(model: nn.Module) -> int:
    """Trainable parameters of a network."""
    return sum(parameter.numel() for parameter in model.parameters())
