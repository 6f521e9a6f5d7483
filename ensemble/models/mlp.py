"""A multi-layer perceptron on the flattened image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ensemble.config.controls import widths
from ensemble.config.network import Activation, Network, Width, register_network

if TYPE_CHECKING:
    from torch import nn


@register_network
class MlpConfig(Network):
    """A fully connected network on the flattened image."""

    name: Literal["mlp"]
    widths: tuple[Width, ...] = Field((128, 64), description="of the hidden layers, in their order")
    activation: Activation = Field("relu", description="after every hidden layer")
    dropout: float = Field(0.0, ge=0, lt=1, description="after every hidden layer")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Linear, activation and dropout for every width, then the classes."""
        from torch import nn

        from ensemble.models.activations import ACTIVATIONS

        layers: list[nn.Module] = [nn.Flatten()]
        features = math.prod(image_shape)
        for width in self.widths:
            layers += [nn.Linear(features, width), ACTIVATIONS[self.activation]()]
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
            features = width
        return nn.Sequential(*layers, nn.Linear(features, num_classes))

    def widened(self, factor: float) -> Network:
        """All hidden layers."""
        return self.model_copy(update={"widths": widths(self.widths, factor)})

    def widest_convolution(self) -> None:
        return None

    @property
    def fills_a_gpu(self) -> int:
        return 32

    def idle_keys(self) -> Iterator[tuple[str, str]]:
        for key in ("activation", "dropout"):
            if not self.widths and getattr(self, key) != type(self).model_fields[key].default:
                yield key, "has no effect without hidden layers (widths is empty); leave it out"
