"""The networks a configuration can name. Input channels and classes come from the data set, never from here."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ensemble.config.base import Section

Activation = Literal["relu", "tanh", "sigmoid", "gelu", "leaky_relu", "elu", "silu"]
Width = Annotated[int, Field(ge=1, le=65_536)]


class LeNet5Config(Section):
    """LeNet-5 as used today: two 5x5 convolutions with ReLU and max-pooling, then 120, 84 and the classes."""

    name: Literal["lenet5"]


class LeNet4Config(Section):
    """LeNet-4, the smaller sister: two 5x5 convolutions with ReLU and max-pooling, then 120 and the classes."""

    name: Literal["lenet4"]


class MlpConfig(Section):
    """A fully connected network on the flattened image."""

    name: Literal["mlp"]
    widths: tuple[Width, ...] = (128, 64)
    activation: Activation = "relu"
    dropout: float = Field(0.0, ge=0, lt=1, description="after every hidden layer")


class CnnConfig(Section):
    """Convolutions, each with activation and 2x2 max-pooling, then fully connected layers."""

    name: Literal["cnn"]
    widths: tuple[Width, ...] = Field((32, 64), min_length=1)
    kernel_size: int = Field(3, ge=1, le=15)
    padding: int = Field(1, ge=0, le=7)
    batch_norm: bool = False
    fully_connected: tuple[Width, ...] = (128,)
    activation: Activation = "relu"
    dropout: float = Field(0.0, ge=0, lt=1, description="before every fully connected layer")


class ResNetConfig(Section):
    """torchvision's ResNet, from scratch. `small` puts a 3x3 stem without pooling in front, for small images."""

    name: Literal["resnet18", "resnet50"]
    stem: Literal["imagenet", "small"] = "imagenet"


class ConvLayer(Section):
    """A convolution of stride 1; then, where asked for, batch norm, activation and dropout, in this order."""

    kind: Literal["conv"]
    channels: Width | Literal["classes"]
    kernel_size: int = Field(3, ge=1, le=15)
    padding: int = Field(0, ge=0, le=7)
    bias: bool | None = Field(None, description="without it: a bias unless batch norm, which has one, follows")
    batch_norm: bool = False
    activation: Activation | None = None
    dropout: float = Field(0.0, ge=0, lt=1)


class PoolLayer(Section):
    """Maximum or mean of windows of `size`, side by side unless `stride` says otherwise."""

    kind: Literal["max_pool", "average_pool"]
    size: int = Field(2, ge=2, le=64)
    stride: int | None = Field(None, ge=1, le=64, description="without it as the size")


class LinearLayer(Section):
    """A full connection of all there is so far; then, where asked for, activation and dropout."""

    kind: Literal["linear"]
    width: Width | Literal["classes"]
    activation: Activation | None = None
    dropout: float = Field(0.0, ge=0, lt=1)


Layer = Annotated[ConvLayer | PoolLayer | LinearLayer, Field(discriminator="kind")]


class LayersConfig(Section):
    """A network written layer by layer; what the last layer leaves must be one number per class."""

    name: Literal["layers"]
    layers: tuple[Layer, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ends_with_classes(self) -> Self:
        sizes = [getattr(layer, "channels", getattr(layer, "width", None)) for layer in self.layers]
        if [size for size in sizes if size is not None][-1:] != ["classes"]:
            raise ValueError("the last convolution or full connection must have `classes` for its channels or width")
        flat = [i for i, layer in enumerate(self.layers) if isinstance(layer, LinearLayer)]
        if flat and any(not isinstance(layer, LinearLayer) for layer in self.layers[flat[0] :]):
            raise ValueError("after a full connection only full connections can follow")
        return self


ModelConfig = Annotated[
    LeNet5Config | LeNet4Config | MlpConfig | CnnConfig | ResNetConfig | LayersConfig, Field(discriminator="name")
]
