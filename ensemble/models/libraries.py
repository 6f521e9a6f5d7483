"""Networks of torchvision and timm by name, for any number of channels and classes, untrained or with the library's weights.

model: {name: torchvision, architecture: resnet34, weights: DEFAULT}
model: {name: timm, architecture: resnet10t, pretrained: true, args: {drop_path_rate: 0.1}}
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from ensemble.config import weights_file
from ensemble.config.network import Network, register_network
from ensemble.errors import ConfigError, first_line
from ensemble.outside.long_work import working

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
        hint = f"near it: {', '.join(near)}" if near else f"expected one of its {len(known):,}"
        return ConfigError(f"model.architecture = {self.architecture!r}: {where} has no such network; {hint}")


@register_network
class TorchvisionNetwork(LibraryNetwork):
    """A classifier of torchvision by name (torchvision.models.list_models); weights: a file, or a name such as DEFAULT."""

    name: Literal["torchvision"]

    @classmethod
    def complete(cls, values: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """With the exact name of weights of the library's, and how their images were standardised."""
        weights, architecture = values.get("weights"), values.get("architecture")
        if not isinstance(weights, str) or not isinstance(architecture, str) or weights_file.is_file_name(weights):
            return super().complete(values, folder)
        chosen = _weights_of_torchvision(architecture, weights)
        if chosen is None:
            return values  # there is no such network, which its build explains
        transforms = chosen.transforms()
        scale = {key: tuple(map(float, getattr(transforms, key))) for key in ("mean", "std")}
        return {**scale, **values, "weights": chosen.name}

    def named_weights(self) -> Mapping[str, Any] | None:
        """torchvision's, which are downloaded once into torch's cache."""
        if self.weights is None or weights_file.is_file_name(self.weights):
            return None
        chosen = _weights_of_torchvision(self.architecture, self.weights)
        assert chosen is not None, "the network has been built"
        import torch

        try:
            with redirect_stdout(
                sys.stderr
            ):  # where a download is announced: what a command answers may be read by programs
                tensors: dict[str, Any] = chosen.get_state_dict(progress=False, check_hash=True)
        except Exception as error:  # of the network, the disk, the digest
            place = Path(torch.hub.get_dir()) / "checkpoints" / chosen.url.rpartition("/")[2]
            raise ConfigError(
                f"model.weights: {self.architecture} {self.weights} cannot be downloaded from {chosen.url} ({error}); put that file at {place}, or give another one by its path"
            ) from error
        return tensors

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
    """A classifier of timm by name (timm.list_models); needs the package timm."""

    name: Literal["timm"]
    pretrained: bool = Field(False, description="start from timm's weights, which are downloaded once into its cache")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained stands for timm's weights, and weights names a file: give one of them")
        return self

    @property
    def has_weights(self) -> bool:
        return self.pretrained or super().has_weights

    @classmethod
    def complete(cls, values: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """With how the images of timm's weights were standardised."""
        architecture = values.get("architecture")
        if values.get("pretrained") is not True or not isinstance(architecture, str):
            return super().complete(values, folder)
        found = _timm().get_pretrained_cfg(architecture)
        if found is None or not (found.url or found.hf_hub_id):
            return values  # there are no such weights, which is said where they are asked for
        return {"mean": tuple(map(float, found.mean)), "std": tuple(map(float, found.std)), **values}

    def named_weights(self) -> Mapping[str, Any] | None:
        """timm's own, if they are asked for."""
        if not self.pretrained:
            return None
        try:
            with redirect_stdout(sys.stderr):
                network = _timm().create_model(self.architecture, pretrained=True)
        except Exception as error:  # of the network, the disk, or that there are none
            raise ConfigError(
                f"model.pretrained: timm gives no weights for {self.architecture} ({type(error).__name__}: {first_line(error)}); fetch them where there is a connection, save network.state_dict(), and give that file as model.weights"
            ) from error
        tensors: dict[str, Any] = network.state_dict()
        return tensors

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """As timm adapts it to channels and classes."""
        timm = _timm()
        if not timm.is_model(self.architecture):
            raise self._unknown(timm.list_models(), "timm")

        def make(**words: Any) -> nn.Module:
            made: nn.Module = timm.create_model(self.architecture, pretrained=False, **words)
            return made

        return self._made(make, num_classes=num_classes, in_chans=image_shape[0])


def _timm() -> Any:
    try:
        import timm  # slow to import, and not everybody's
    except ImportError as error:
        raise ConfigError(
            "model timm: the package timm is not installed; install it with: pip install 'ensemble-trainer[timm]'"
        ) from error
    return timm


def _weights_of_torchvision(architecture: str, name: str) -> Any:
    """torchvision's weights of that name; None for a network that it does not have. Raises ConfigError where they are not known."""
    with working("importing torchvision, which knows its weights"):
        from torchvision import models

    if architecture not in models.list_models(module=models):
        return None
    known = models.get_model_weights(architecture)
    if name not in known.__members__:
        raise ConfigError(
            f"model.weights = {name!r}: torchvision has {', '.join(known.__members__) or 'none'} for {architecture}; expected one of them, or a file such as weights.safetensors"
        )
    return known[name]


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
