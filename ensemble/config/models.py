"""The networks a configuration can name. Channels and classes come from the data set, never from here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ensemble.config.base import Section

Activation = Literal["relu", "tanh", "sigmoid", "gelu", "leaky_relu", "elu", "silu"]
Width = Annotated[int, Field(ge=1, le=65_536)]


class LeNet5Config(Section):
    """LeNet-5 as used today: two 5x5 convolutions with ReLU and max-pooling, then 120, 84 and the classes."""

    name: Literal["lenet5"]


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


ModelConfig = Annotated[LeNet5Config | MlpConfig | CnnConfig | ResNetConfig, Field(discriminator="name")]
