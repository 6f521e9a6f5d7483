"""What every network that a configuration can name has; the networks are in `ensemble/models`, a file each.

Input channels and classes come from the data set, never from the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field

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

    @classmethod
    def complete(cls, values: Mapping[str, Any], _folder: Path) -> Mapping[str, Any]:
        """The keys of a section with what else it needs from the folder of its configuration. Raises ConfigError."""
        return values

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> Any:
        """An nn.Module from images [B, C, H, W] of this shape (C, H, W) to logits [B, num_classes], and nothing else.

        Its initial weights are drawn from torch's CPU generator, which is seeded for every member. Raises ConfigError
        where the images are too small for the layers. torch is imported inside, so that reading a configuration is quick.
        """
        raise NotImplementedError

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
