"""A multi-layer perceptron on the flattened image."""

from __future__ import annotations

import math

from torch import nn

from ensemble.config.models import MlpConfig
from ensemble.models.activations import ACTIVATIONS


def build_mlp(config: MlpConfig, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Linear, activation and dropout for every width, then the classes."""
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(image_shape)
    for width in config.widths:
        layers += [nn.Linear(features, width), ACTIVATIONS[config.activation]()]
        if config.dropout:
            layers.append(nn.Dropout(config.dropout))
        features = width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))
