"""torchvision's residual networks (He et al. 2016), untrained, for any number of channels and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ensemble.config.network import Network, register_network

if TYPE_CHECKING:
    from torch import nn


@register_network
class ResNetConfig(Network):
    """torchvision's ResNet, from scratch. `small` puts a 3x3 stem without pooling in front, for small images."""

    name: Literal["resnet18", "resnet50"]
    stem: Literal["imagenet", "small"] = Field(
        "imagenet", description="imagenet: 7x7 of stride 2, then pooling; small: 3x3 of stride 1, for small images"
    )

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Stem `imagenet`: 7x7 stride 2 and pooling; `small`: 3x3 stride 1 and none."""
        from torch import nn
        from torchvision.models import resnet  # slow to import, and most runs need no ResNet

        model: nn.Module = getattr(resnet, self.name)(weights=None, num_classes=num_classes)
        channels = image_shape[0]
        if self.stem == "small":
            model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            model.maxpool = nn.Identity()
        else:
            model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own stem
        return model

    def widest_convolution(self) -> int:
        return 512 if self.name == "resnet18" else 2048

    @property
    def measured_as(self) -> str:
        return f"{self.name} {self.stem}"

    @property
    def fills_a_gpu(self) -> int:
        return 4 if self.name == "resnet18" else 1
