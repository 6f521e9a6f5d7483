"""A network of one's own: a class or a function in a file beside the configuration, or one that Python has already.

model: {name: python, path: "my_nets.py:make_net", args: {width: 64}}

    def make_net(num_classes, in_channels, width): ...  # -> nn.Module from images [B, C, H, W] to logits [B, num_classes]

PythonConfig.of_network(nn.Sequential(...)) is the section of a network that is built; see `models/instances.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ensemble.config.network import Network, register_network
from ensemble.errors import ConfigError
from ensemble.outside import own_code
from ensemble.outside.code_names import file_of

if TYPE_CHECKING:
    from torch import nn


@register_network
class PythonConfig(Network):
    """A class or function of a Python file beside the configuration, called with num_classes, in_channels and args."""

    stored_code: ClassVar[bool] = True
    name: Literal["python"]
    path: str = Field(description="FILE.py:NAME, the file beside the configuration")
    args: dict[str, Any] = Field({}, description="further arguments of the class or function")
    code: dict[str, str] = Field(
        {},
        description="texts of the file and of those it imports from beside it, by name; filled in when the file is read",
    )

    built: str | None = Field(
        None,
        description="what a network is made of that was given to ensemble.train as it is; filled in there, and refused in a file",
    )

    @classmethod
    def complete(cls, values: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """With the texts of the files. Raises ConfigError where they cannot be read."""
        if values.get("built") is not None:
            raise ConfigError(
                "model.built is filled in by ensemble.train(model=...) of a network that is built; leave it out"
            )
        return super().complete(own_code.with_code(values, folder, "model", "my_nets.py:make_net"), folder)

    @classmethod
    def of(cls, make: Callable[..., Any], args: Mapping[str, Any]) -> PythonConfig:
        """The section of a class or function that this process has. Raises ConfigError where it is not at the top of a file."""
        name = getattr(make, "__qualname__", repr(make))
        file = file_of(make)
        if file is None or own_code.parsed_path(f"{file.name}:{name}") is None:
            raise ConfigError(
                f"model: {name} is not at the top of a Python file, so its text cannot travel with the run; put it into one, and import it from there"
            )
        return cls(name="python", path=f"{file.name}:{name}", args=dict(args), code=own_code.collect(file))

    @classmethod
    def of_network(cls, network: nn.Module, keep_weights: bool) -> PythonConfig:
        """The section of a network that is built. keep_weights: members start from its weights; else they draw their own.

        Raises ConfigError where it holds what cannot travel, or weights that no layer draws.
        """
        from ensemble.models.instances import described, draw, kept_weights, rebuilt, reference_of

        text, code = described(network)
        weights, digest = kept_weights(network) if keep_weights else (None, None)
        if not keep_weights:
            draw(rebuilt(text, code), code)  # what cannot be drawn is better said now
        return cls(
            name="python", path=reference_of(network), code=code, built=text, weights=weights, weights_sha256=digest
        )

    @property
    def label(self) -> str:
        return self.path.rpartition(":")[2]

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """What the class or function makes. Raises ConfigError where that fails or is no network for these images."""
        from torch import nn

        if self.built is not None:
            from ensemble.models.instances import draw, rebuilt

            built = rebuilt(self.built, self.code)
            draw(built, self.code, required=not self.has_weights)
            return built
        make = own_code.find(self.code, self.path)
        called = f"{self.path}(num_classes={num_classes}, in_channels={image_shape[0]}{''.join(f', {k}={v!r}' for k, v in self.args.items())})"
        try:
            with own_code.beside_each_other(self.code):
                network = make(num_classes=num_classes, in_channels=image_shape[0], **self.args)
        except Exception as error:  # the code is not ours
            raise ConfigError(f"{called}: failed: {own_code.told(error, self.code)}") from error
        if not isinstance(network, nn.Module):
            raise ConfigError(f"{called}: gave {type(network).__name__}; expected a torch.nn.Module")
        return network
