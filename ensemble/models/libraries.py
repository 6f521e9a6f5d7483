"""Networks of torchvision and timm by name, untrained, for any number of channels and classes.

model: {name: torchvision, architecture: resnet34}
model: {name: timm, architecture: resnet10t, args: {drop_path_rate: 0.1}}
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ensemble.config.network import Network, register_network
from ensemble.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

# Further classifiers inside a network, which answer in training only and would have to be part of the loss.
_WITHOUT_MORE_ANSWERS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


class LibraryNetwork(Network):
    """What the two have in common: an architecture by its name, and arguments for it."""

    architecture: str = Field(description="its name in the library")
    args: dict[str, Any] = Field({}, description="further arguments of the function that makes it")

    @property
    def label(self) -> str:
        return self.architecture.replace(".", "_")

    @property
    def foreign(self) -> bool:
        return True

    @property
    def measured_as(self) -> str:
        return f"{self.name} {self.architecture}"

    def _made(self, make: Callable[..., nn.Module], **own: Any) -> nn.Module:
        """The network. Raises ConfigError where the library refuses the arguments."""
        if both := sorted(own.keys() & self.args.keys()):
            raise ConfigError(
                f"model.args: {', '.join(both)} of {self.architecture} is given by the data set; leave it out"
            )
        words = "".join(f", {key}={value!r}" for key, value in self.args.items())
        try:
            return make(**own, **self.args)
        except Exception as error:  # the library's own, of every kind
            raise ConfigError(
                f"model {self.name}: {self.architecture}({', '.join(f'{key}={value!r}' for key, value in own.items())}{words}) failed: {type(error).__name__}: {error}"
            ) from error

    def _unknown(self, known: Sequence[str], where: str) -> ConfigError:
        near = difflib.get_close_matches(self.architecture, known, 5, 0.5)
        hint = f"; near it: {', '.join(near)}" if near else ""
        return ConfigError(f"model.architecture = {self.architecture!r}: {where} has no such network{hint}")


@register_network
class TorchvisionNetwork(LibraryNetwork):
    """A classifier of torchvision by name (torchvision.models.list_models), untrained."""

    name: Literal["torchvision"]

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """With a first convolution for the channels of the images, drawn as He et al. (2015) do where they are not three."""
        from torchvision import models  # slow to import

        known = models.list_models(module=models)
        if self.architecture not in known:
            raise self._unknown(known, "torchvision.models")
        make = models.get_model_builder(self.architecture)
        more = _WITHOUT_MORE_ANSWERS.get(self.architecture, {})
        network = self._made(make, weights=None, num_classes=num_classes, **more)
        if image_shape[0] != 3:
            _take_channels(network, image_shape[0])
        return network


@register_network
class TimmNetwork(LibraryNetwork):
    """A classifier of timm by name (timm.list_models), untrained; needs the package timm."""

    name: Literal["timm"]

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """As timm adapts it to channels and classes."""
        try:
            import timm  # slow to import, and not everybody's
        except ImportError as error:
            raise ConfigError(
                f"model {self.name}: the package timm is not installed; install it with: pip install 'ensemble-trainer[timm]'"
            ) from error
        if not timm.is_model(self.architecture):
            raise self._unknown(timm.list_models(), "timm")

        def make(**words: Any) -> nn.Module:
            made: nn.Module = timm.create_model(self.architecture, pretrained=False, **words)
            return made

        return self._made(make, num_classes=num_classes, in_chans=image_shape[0])


def _take_channels(network: nn.Module, channels: int) -> None:
    """Put a first convolution for so many channels in the place of the one for three. Raises ConfigError where there is none."""
    from torch import nn

    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 3 and layer.groups == 1:
            size = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
            first = nn.Conv2d(channels, layer.out_channels, *size, bias=layer.bias is not None)  # type: ignore[arg-type]
            nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
            if first.bias is not None:
                nn.init.zeros_(first.bias)
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, first)
            return
    raise ConfigError(f"the network has no convolution over three channels that could take {channels}")
