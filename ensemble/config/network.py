"""What every network that a configuration can name has; the networks are in `ensemble/models`, a file each.

Input channels and classes come from the data set, never from the configuration.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from ensemble.config import weights_file
from ensemble.config.base import Part, register
from ensemble.registry import Registry

Activation = Literal["relu", "tanh", "sigmoid", "gelu", "leaky_relu", "elu", "silu"]
Width = Annotated[int, Field(ge=1, le=65_536)]
NARROW, MEDIUM = 16, 128  # channels of the widest convolution, up to which networks count as alike in speed

_MODELS = "ensemble.models"


class Network(Part):
    """The keys of a network, how it is built, and what the planner must know of it."""

    registry: ClassVar[Registry[type[Network]]] = Registry(
        "network", "ensemble.networks",
        {
            "lenet5": f"{_MODELS}.lenet", "lenet4": f"{_MODELS}.lenet", "mlp": f"{_MODELS}.mlp", "cnn": f"{_MODELS}.cnn",
            "resnet18": f"{_MODELS}.resnet", "resnet50": f"{_MODELS}.resnet", "layers": f"{_MODELS}.layers", "python": f"{_MODELS}.python",
            "torchvision": f"{_MODELS}.libraries", "timm": f"{_MODELS}.libraries",
        },
    )  # fmt: skip

    stored_code: ClassVar[bool] = False  # it is built by executing text that its section holds

    weights: str | None = Field(
        None,
        description="file of weights that every member starts from (.safetensors, or what torch.save made of a state_dict), beside the configuration or by its path; a member of a run: RUN/members/0001/weights.safetensors",
    )
    weights_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of that file; filled in when it is read"
    )
    new_head: bool = Field(
        False,
        description="draw the last layer anew for every member even where that of the weights has as many classes",
    )
    freeze: Literal["none", "backbone"] | tuple[str, ...] = Field(
        "none",
        description="what is not trained: backbone (all but the last layer), or patterns of names, such as [conv1, layer1.*]; batch norms in it keep their statistics",
    )
    mean: tuple[float, ...] | None = Field(
        None,
        description="with std, per channel: how images are standardised (on the scale 0 to 1); without it by the training images, and as they were where the weights say so",
    )
    std: tuple[Annotated[float, Field(ge=1e-6)], ...] | None = Field(None, description="see mean")

    @classmethod
    def complete(cls, values: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """The keys of a section with what else it needs from the folder of its configuration. Raises ConfigError."""
        return weights_file.complete(values, folder)

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError("mean and std belong together: give both, with a number for each channel")
        if self.weights is None and self.weights_sha256 is not None:
            raise ValueError("weights_sha256 is filled in from the file that weights names; leave it out")
        if isinstance(self.freeze, tuple) and not self.freeze:
            raise ValueError("freeze is empty; expected none, backbone, or patterns of names")
        return self

    @property
    def has_weights(self) -> bool:
        """True where weights to start from are named, in a file or in the network's library."""
        return self.weights is not None

    @property
    def brings_weights(self) -> bool:
        """True where the network may not start from random weights: some are named, or its own code may load some."""
        return self.has_weights or self.stored_code or not self.registry.is_own(self.name)

    def scale(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and deviation for images of so many channels; None where the data set's are taken.

        What is given for three channels stands for one by its average, and what is given for one for all three.
        """
        if self.mean is None or self.std is None:
            return None
        if len(self.mean) == channels:
            return self.mean, self.std
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return (mean,) * channels, (std,) * channels

    def named_weights(self) -> Mapping[str, Any] | None:
        """Tensors by their names that the network's own library has; None where weights lie in a file, or there are none.

        Raises ConfigError where they cannot be had.
        """
        return None

    @abstractmethod
    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> Any:
        """An nn.Module from images [B, C, H, W] of this shape (C, H, W) to logits [B, num_classes], and nothing else.

        Its initial weights are drawn from torch's CPU generator, which is seeded for every member. Raises ConfigError
        where the images are too small for the layers. torch is imported inside, so that reading a configuration is quick.
        """

    def widened(self, factor: float) -> Network | None:
        """The same network with about `factor` times as many channels or units in every inner layer; None where it has no width.

        Whole numbers are the nearest, and at least one; more width never has fewer parameters. Asked by `controls: [wider]`.
        """
        del factor
        return None

    @property
    def label(self) -> str:
        """What members of this network are called where their group has no name."""
        return self.name

    @property
    def foreign(self) -> bool:
        """True for a network that is not this package's, so that a run checks it before it begins."""
        return self.stored_code or not self.registry.is_own(self.name)

    def widest_convolution(self) -> int | None:
        """Channels of the widest convolution; None for a network without any. Speeds are guessed from it."""
        return 64

    @property
    def measured_as(self) -> str:
        """The kind of network by which measured speeds are stored."""
        widest = self.widest_convolution()
        if widest is None:
            return "mlp"
        return "narrow" if widest <= NARROW else "medium" if widest <= MEDIUM else "wide"

    @property
    def fills_a_gpu(self) -> int | None:
        """A guess at how many members fill a GPU; None: by its widest convolution."""
        return None

    def idle_keys(self) -> Iterator[tuple[str, str]]:
        """Keys that differ from their defaults and can change nothing, each with the reason."""
        return iter(())


_Class = TypeVar("_Class", bound=type[Network])


def register_network(network: _Class) -> _Class:
    """Class decorator: configurations can name this network. Raises ConfigError where its name is taken."""
    register(network)
    return network
