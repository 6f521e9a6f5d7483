"""How much work and how much room one image is for a network, known before anything has run.

An image of zeros is passed through it. Where that would be much work, only its shape is followed, on torch's meta device;
the meta device itself costs seconds, since torch then imports its compiler and sympy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ensemble.config.network import Network
from ensemble.errors import ConfigError
from ensemble.models import build_model
from ensemble.outside import own_code

_MANY_WEIGHTS = 30_000_000
_MANY_PIXELS = 300 * 300


def multiply_adds(config: Network, image_shape: tuple[int, int, int], num_classes: int) -> int:
    """Multiply-adds of the convolutions and linear layers of one forward pass for one image [C, H, W]."""
    total = 0

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        places = output.numel() // output.shape[0] if isinstance(layer, nn.Linear) else output[0, 0].numel()
        weights = layer.weight
        assert isinstance(weights, Tensor)
        total += weights.shape[1] * places if isinstance(layer, nn.Linear) else weights.numel() * places

    _follow(config, image_shape, num_classes, (nn.Conv2d, nn.Linear), count)
    return total


def activation_sizes(config: Network, image_shape: tuple[int, int, int], num_classes: int) -> list[int]:
    """Numbers that one image becomes behind each layer of one forward pass, the image itself first.

    A layer that changes its input in place, or gives a view of it, makes no numbers and has no entry.
    """
    channels, height, width = image_shape
    sizes = [channels * height * width]

    def measure(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output is not inputs[0] and not output._is_view():
            sizes.append(output.numel())

    _follow(config, image_shape, num_classes, nn.Module, measure)
    return sizes


def needs_two_images(config: Network, image_shape: tuple[int, int, int], num_classes: int) -> bool:
    """True when a batch norm of the network has one value per channel and image, so that it cannot train on a single one.

    Such a value is its own mean, and its variance is nothing: torch refuses it.
    """
    single = False

    def look(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal single
        single |= output.numel() == output.shape[1]

    _follow(config, image_shape, num_classes, (nn.BatchNorm1d, nn.BatchNorm2d), look)
    return single


def _follow(
    config: Network,
    image_shape: tuple[int, int, int],
    num_classes: int,
    kinds: type[nn.Module] | tuple[type[nn.Module], ...],
    hook: Callable[[nn.Module, tuple[Tensor, ...], Tensor], None],
) -> None:
    """Pass one image through a network, with the hook behind every layer of these kinds that holds no other layer."""
    calls: list[tuple[nn.Module, tuple[Tensor, ...], Tensor]] = []
    shape = _pass_one(config, image_shape, num_classes, kinds, calls)
    if shape != (1, num_classes):
        raise ConfigError(
            f"model {config.name}: gives numbers of shape {list(shape)} for one image; expected [1, {num_classes}], one per class"
        )
    for call in calls:
        hook(*call)


def _pass_one(
    config: Network,
    image_shape: tuple[int, int, int],
    num_classes: int,
    kinds: type[nn.Module] | tuple[type[nn.Module], ...],
    calls: list[tuple[nn.Module, tuple[Tensor, ...], Tensor]],
) -> tuple[int, ...]:
    """On the CPU, unless the network is a large one, or cannot work on the meta device, as one that looks at numbers cannot."""

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((layer, inputs, output))

    for device in ("meta", "cpu") if _is_large(config, image_shape, num_classes) else ("cpu",):
        calls.clear()
        try:
            with torch.device(device), torch.random.fork_rng(devices=[]):
                network = build_model(config, image_shape, num_classes).eval()
                for layer in network.modules():
                    if isinstance(layer, kinds) and not list(layer.children()):
                        layer.register_forward_hook(note)
                with torch.no_grad(), own_code.staying():
                    answer = network(torch.zeros(1, *image_shape))
                if not isinstance(answer, Tensor):
                    raise ConfigError(
                        f"model {config.name}: gives a {type(answer).__name__}; expected a tensor of logits"
                    )
                return tuple(answer.shape)
        except Exception as error:  # the network may be a user's
            if device == "cpu" and isinstance(error, ConfigError):
                raise
            if device == "cpu":
                channels, height, width = image_shape
                raise ConfigError(
                    f"model {config.name}: cannot take images of {channels} channels and {height}x{width} pixels: {type(error).__name__}: {error}"
                ) from error
    raise AssertionError("one of the two has returned or raised")


def _is_large(config: Network, image_shape: tuple[int, int, int], num_classes: int) -> bool:
    """Whether a pass of one image may take longer than what the meta device costs: by its weights and the image's pixels."""
    pixels = math.prod(image_shape[1:])
    if pixels > _MANY_PIXELS:
        return True
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            network = build_model(config, image_shape, num_classes)
    except Exception:  # the network may be a user's; what is wrong with it is said where it is used
        return False
    return sum(parameter.numel() for parameter in network.parameters()) > _MANY_WEIGHTS
