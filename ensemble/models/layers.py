"""A network written layer by layer in the configuration.

model:
  name: layers
  layers:
    - {kind: conv, channels: 10, batch_norm: true, activation: relu}
    - {kind: max_pool}
    - {kind: conv, channels: classes, kernel_size: 1}
    - {kind: average_pool, size: 13}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from ensemble.config.base import Section
from ensemble.config.controls import widths
from ensemble.config.network import Activation, Network, Width, register_network
from ensemble.errors import ConfigError
from ensemble.models.shapes import convolved, require_positive

if TYPE_CHECKING:
    from torch import nn


class ConvLayer(Section):
    """A convolution of stride 1; then, where asked for, batch norm, activation and dropout, in this order."""

    kind: Literal["conv"]
    channels: Width | Literal["classes"] = Field(description="that it makes; classes: one for each class")
    kernel_size: int = Field(3, ge=1, le=15, description="height and width of its kernel")
    padding: int = Field(0, ge=0, le=7, description="zeros around what comes in")
    bias: bool | None = Field(None, description="without it: a bias unless batch norm, which has one, follows")
    batch_norm: bool = Field(False, description="a batch norm behind it")
    activation: Activation | None = Field(None, description="behind that; without it none")
    dropout: float = Field(0.0, ge=0, lt=1, description="behind that")


class PoolLayer(Section):
    """Maximum or mean of windows of `size`, side by side unless `stride` says otherwise."""

    kind: Literal["max_pool", "average_pool"]
    size: int = Field(2, ge=2, le=64, description="height and width of the windows")
    stride: int | None = Field(None, ge=1, le=64, description="without it as the size")


class LinearLayer(Section):
    """A full connection of all there is so far; then, where asked for, activation and dropout."""

    kind: Literal["linear"]
    width: Width | Literal["classes"] = Field(description="numbers that it makes; classes: one for each class")
    activation: Activation | None = Field(None, description="behind it; without it none")
    dropout: float = Field(0.0, ge=0, lt=1, description="behind that")


Layer = Annotated[ConvLayer | PoolLayer | LinearLayer, Field(discriminator="kind")]


@register_network
class LayersConfig(Network):
    """A network written layer by layer; what the last layer leaves must be one number per class."""

    name: Literal["layers"]
    layers: tuple[Layer, ...] = Field(min_length=1, description="from the image to the classes")

    @model_validator(mode="after")
    def _ends_with_classes(self) -> Self:
        sizes = [getattr(layer, "channels", getattr(layer, "width", None)) for layer in self.layers]
        if [size for size in sizes if size is not None][-1:] != ["classes"]:
            raise ValueError("the last convolution or full connection must have `classes` for its channels or width")
        flat = [i for i, layer in enumerate(self.layers) if isinstance(layer, LinearLayer)]
        if flat and any(not isinstance(layer, LinearLayer) for layer in self.layers[flat[0] :]):
            raise ValueError("after a full connection only full connections can follow")
        return self

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """The layers in their order. Raises ConfigError where no feature map or not one number per class is left."""
        from torch import nn

        from ensemble.models.activations import ACTIVATIONS

        modules: list[nn.Module] = []
        channels, height, width = image_shape
        flat = False
        for layer in self.layers:
            if isinstance(layer, ConvLayer):
                out_channels = num_classes if layer.channels == "classes" else layer.channels
                kernel, padding = layer.kernel_size, layer.padding
                bias = not layer.batch_norm if layer.bias is None else layer.bias
                modules.append(nn.Conv2d(channels, out_channels, kernel, padding=padding, bias=bias))
                if layer.batch_norm:
                    modules.append(nn.BatchNorm2d(out_channels))
                channels = out_channels
                height, width = convolved(height, kernel, padding), convolved(width, kernel, padding)
            elif isinstance(layer, PoolLayer):
                stride = layer.stride or layer.size
                modules.append((nn.MaxPool2d if layer.kind == "max_pool" else nn.AvgPool2d)(layer.size, stride))
                height, width = (height - layer.size) // stride + 1, (width - layer.size) // stride + 1
            else:
                if not flat:
                    modules.append(nn.Flatten())
                    channels, height, width, flat = channels * height * width, 1, 1, True
                out_features = num_classes if layer.width == "classes" else layer.width
                modules.append(nn.Linear(channels, out_features))
                channels = out_features
            require_positive("layers", image_shape, height, width)
            if not isinstance(layer, PoolLayer):
                if layer.activation is not None:
                    modules.append(ACTIVATIONS[layer.activation]())
                if layer.dropout:
                    modules.append(nn.Dropout(layer.dropout))
        left = channels * height * width
        if left != num_classes:
            raise ConfigError(
                f"model layers: the last layer leaves {channels} channels of {height}x{width}, {left} numbers; expected {num_classes}, one per class: add pooling or another convolution"
            )
        return nn.Sequential(*modules) if flat else nn.Sequential(*modules, nn.Flatten())

    def widened(self, factor: float) -> Network:
        """All channels and widths that are given as numbers."""
        return self.model_copy(update={"layers": tuple(_widened(layer, factor) for layer in self.layers)})

    def widest_convolution(self) -> int | None:
        channels = [layer.channels for layer in self.layers if isinstance(layer, ConvLayer)]
        return max((c for c in channels if isinstance(c, int)), default=1) if channels else None


def _widened(layer: Layer, factor: float) -> Layer:
    if isinstance(layer, ConvLayer) and layer.channels != "classes":
        return layer.model_copy(update={"channels": widths([layer.channels], factor)[0]})
    if isinstance(layer, LinearLayer) and layer.width != "classes":
        return layer.model_copy(update={"width": widths([layer.width], factor)[0]})
    return layer
