"""LeNet-5 and LeNet-4 in today's form (after LeCun et al. 1998): ReLU, max-pooling, full connections.

On MNIST LeNet-5 has 61,706 parameters, LeNet-4 51,050 (the original connected its second layer only in part, and had
about 17,000).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ensemble.config.controls import widths
from ensemble.config.network import Network, register_network
from ensemble.models.shapes import pooled, require_positive

if TYPE_CHECKING:
    from torch import nn


class _LeNet(Network):
    width: float = Field(
        1.0, gt=0, le=4096, description="channels and hidden units, as a multiple of the published ones"
    )

    def widened(self, factor: float) -> Network:
        """All channels and hidden layers."""
        return self.model_copy(update={"width": self.width * factor})

    def widest_convolution(self) -> int:
        return widths([16], self.width)[0]

    @property
    def measured_as(self) -> str:
        return "lenet" if self.width == 1 else super().measured_as

    @property
    def fills_a_gpu(self) -> int | None:
        return 32 if self.width == 1 else None


@register_network
class LeNet5Config(_LeNet):
    """LeNet-5 as used today: two 5x5 convolutions with ReLU and max-pooling, then 120, 84 and the classes."""

    name: Literal["lenet5"]

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Convolutions 6@5x5 (padding 2) and 16@5x5, each pooled by 2, then 120, 84 and the classes."""
        from torch import nn

        first, second, third, fourth = widths((6, 16, 120, 84), self.width)
        features, layers = _features("lenet5", first, second, image_shape)
        return nn.Sequential(
            *layers,
            nn.Linear(features, third),
            nn.ReLU(),
            nn.Linear(third, fourth),
            nn.ReLU(),
            nn.Linear(fourth, num_classes),
        )


@register_network
class LeNet4Config(_LeNet):
    """LeNet-4, the smaller sister: two 5x5 convolutions with ReLU and max-pooling, then 120 and the classes."""

    name: Literal["lenet4"]

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Convolutions 4@5x5 (padding 2) and 16@5x5, each pooled by 2, then 120 and the classes."""
        from torch import nn

        first, second, third = widths((4, 16, 120), self.width)
        features, layers = _features("lenet4", first, second, image_shape)
        return nn.Sequential(*layers, nn.Linear(features, third), nn.ReLU(), nn.Linear(third, num_classes))


def _features(name: str, first: int, second: int, image_shape: tuple[int, int, int]) -> tuple[int, list[nn.Module]]:
    """The convolutional part and how many numbers it leaves.

    Pooling stands before ReLU: both orders give the same values, and a quarter as many are clipped.
    """
    from torch import nn

    channels, height, width = image_shape
    height, width = pooled(pooled(height) - 4), pooled(pooled(width) - 4)
    require_positive(name, image_shape, height, width)
    layers = [
        nn.Conv2d(channels, first, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(first, second, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
    ]
    return second * height * width, layers
