"""torchvision's residual networks (He et al. 2016), untrained, for any number of channels and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ensemble.config.controls import widths
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

    width: float = Field(1.0, gt=0, le=4096, description="channels of every layer, as a multiple of the published ones")
    stochastic_depth: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability that the last residual block adds nothing to an image in training; that of the others is in proportion to their depth (Huang et al. 2016)",
    )

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Stem `imagenet`: 7x7 stride 2 and pooling; `small`: 3x3 stride 1 and none."""
        from torch import nn
        from torchvision.models import resnet  # slow to import, and most runs need no ResNet

        block, layers = (
            (resnet.BasicBlock, [2, 2, 2, 2]) if self.name == "resnet18" else (resnet.Bottleneck, [3, 4, 6, 3])
        )
        if self.stochastic_depth:
            from ensemble.models.stochastic_depth import dropping

            block = dropping(block)
        model: nn.Module
        if self.width == 1:
            model, first = resnet.ResNet(block, layers, num_classes=num_classes), 64
        else:
            model, first = _scaled(block, layers, self.width, num_classes)
        channels = image_shape[0]
        if self.stem == "small":
            model.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
            model.maxpool = nn.Identity()
        else:
            model.conv1 = nn.Conv2d(channels, first, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own stem
        if self.stochastic_depth:
            from ensemble.models.stochastic_depth import leave_out

            leave_out([layer for layer in model.modules() if isinstance(layer, block)], self.stochastic_depth)
        return model

    def widened(self, factor: float) -> Network:
        """The channels of all blocks and of the stem."""
        return self.model_copy(update={"width": self.width * factor})

    def widest_convolution(self) -> int:
        return widths([512 if self.name == "resnet18" else 2048], self.width)[0]

    @property
    def measured_as(self) -> str:
        return f"{self.name} {self.stem}" + ("" if self.width == 1 else f" width {self.width:g}")

    @property
    def fills_a_gpu(self) -> int:
        return 4 if self.name == "resnet18" else 1


def _scaled(block: Any, layers: list[int], width: float, num_classes: int) -> tuple[nn.Module, int]:
    """The network with other channels, which torchvision has no argument for, and how many its stem makes."""
    from torch import nn
    from torchvision.models import resnet

    first, last = widths((64, 512), width)

    class ScaledResNet(resnet.ResNet):  # type: ignore[misc]  # torchvision has no types
        def _make_layer(self, block: Any, planes: int, *arguments: Any, **more: Any) -> nn.Sequential:
            if planes == 64:  # the first of the four, behind the stem
                self.inplanes = first
            made: nn.Sequential = super()._make_layer(block, widths([planes], width)[0], *arguments, **more)
            return made

    model = ScaledResNet(block, layers, num_classes=num_classes)
    model.bn1 = nn.BatchNorm2d(first)
    model.fc = nn.Linear(last * block.expansion, num_classes)
    return model, first
