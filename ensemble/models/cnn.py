"""A plain convolutional network: blocks of convolution, activation and 2x2 max-pooling, then full connections."""

from __future__ import annotations

from torch import nn

from ensemble.config.models import CnnConfig
from ensemble.models.activations import ACTIVATIONS, MONOTONE
from ensemble.models.shapes import convolved, pooled, require_positive


def build_cnn(config: CnnConfig, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """One block per entry of `widths`, one hidden layer per entry of `fully_connected`."""
    layers: list[nn.Module] = []
    channels, height, width = image_shape
    for out_channels in config.widths:
        # Batch norm has a bias of its own, so the convolution before it needs none.
        layers.append(
            nn.Conv2d(channels, out_channels, config.kernel_size, padding=config.padding, bias=not config.batch_norm)
        )
        if config.batch_norm:
            layers.append(nn.BatchNorm2d(out_channels))
        activation: list[nn.Module] = [ACTIVATIONS[config.activation]()]
        pooling: list[nn.Module] = [nn.MaxPool2d(2)]
        layers += pooling + activation if config.activation in MONOTONE else activation + pooling
        height = pooled(convolved(height, config.kernel_size, config.padding))
        width = pooled(convolved(width, config.kernel_size, config.padding))
        require_positive("cnn", image_shape, height, width)
        channels = out_channels
    layers.append(nn.Flatten())
    features = channels * height * width
    for hidden in config.fully_connected:
        if config.dropout:
            layers.append(nn.Dropout(config.dropout))
        layers += [nn.Linear(features, hidden), ACTIVATIONS[config.activation]()]
        features = hidden
    if config.dropout:
        layers.append(nn.Dropout(config.dropout))
    return nn.Sequential(*layers, nn.Linear(features, num_classes))
