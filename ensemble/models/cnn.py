"""A plain convolutional network: blocks of convolution, activation and 2x2 max-pooling, then full connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ensemble.config.controls import widths
from ensemble.config.network import Activation, Network, Width, register_network
from ensemble.models.shapes import convolved, pooled, require_positive

if TYPE_CHECKING:
    from torch import nn


@register_network
class CnnConfig(Network):
    """Convolutions, each with activation and 2x2 max-pooling, then fully connected layers."""

    name: Literal["cnn"]
    widths: tuple[Width, ...] = Field(
        (32, 64), min_length=1, description="channels of the convolutions; each is pooled, which halves the image"
    )
    kernel_size: int = Field(3, ge=1, le=15, description="height and width of every convolution's kernel")
    padding: int = Field(1, ge=0, le=7, description="zeros around the image before every convolution")
    batch_norm: bool = Field(False, description="a batch norm after every convolution, whose bias it replaces")
    fully_connected: tuple[Width, ...] = Field(
        (128,), description="widths of the hidden layers behind the convolutions"
    )
    activation: Activation = Field("relu", description="after every convolution and every hidden layer")
    dropout: float = Field(0.0, ge=0, lt=1, description="before every fully connected layer")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """One block per entry of `widths`, one hidden layer per entry of `fully_connected`."""
        from torch import nn

        from ensemble.models.activations import ACTIVATIONS, MONOTONE

        layers: list[nn.Module] = []
        channels, height, width = image_shape
        for out_channels in self.widths:
            # Batch norm has a bias of its own, so the convolution before it needs none.
            layers.append(
                nn.Conv2d(channels, out_channels, self.kernel_size, padding=self.padding, bias=not self.batch_norm)
            )
            if self.batch_norm:
                layers.append(nn.BatchNorm2d(out_channels))
            activation: list[nn.Module] = [ACTIVATIONS[self.activation]()]
            pooling: list[nn.Module] = [nn.MaxPool2d(2)]
            layers += pooling + activation if self.activation in MONOTONE else activation + pooling
            height = pooled(convolved(height, self.kernel_size, self.padding))
            width = pooled(convolved(width, self.kernel_size, self.padding))
            require_positive("cnn", image_shape, height, width)
            channels = out_channels
        layers.append(nn.Flatten())
        features = channels * height * width
        for hidden in self.fully_connected:
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
            layers += [nn.Linear(features, hidden), ACTIVATIONS[self.activation]()]
            features = hidden
        if self.dropout:
            layers.append(nn.Dropout(self.dropout))
        return nn.Sequential(*layers, nn.Linear(features, num_classes))

    def widened(self, factor: float) -> Network:
        """Channels and hidden layers alike."""
        wide = {"widths": widths(self.widths, factor), "fully_connected": widths(self.fully_connected, factor)}
        return self.model_copy(update=wide)

    def widest_convolution(self) -> int:
        return max(self.widths)
