"""A network that is not ours, tried before anything is scheduled: does it do what training relies on, and can it be stacked?

    obstacles(model, (3, 32, 32), 10)     # () where K members can be computed as one network, else why not
    check(model, (3, 32, 32), 10)         # raises ConfigError; returns what is worth saying

What a stack computes is compared, in float64 and on a few images, with what the members compute alone: outputs and every gradient. That is
how a layer that means something else inside somebody's network is found, such as a linear layer over an axis of a
sequence.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ensemble.config.network import Network
from ensemble.errors import ConfigError, first_line
from ensemble.models import ImageShape, num_parameters
from ensemble.models.undrawn import undrawn
from ensemble.training.layers import StackedDraws
from ensemble.training.remembered import once_per_network
from ensemble.training.stack import Stack, build_seeded, leave_out_half, unstackable

_Build = Callable[[Network, ImageShape, int, Sequence[int]], Stack]
_ROWS = 4  # two would be 1 and -1 behind a batch norm over maps of one pixel
_LARGEST = 15_000_000  # parameters up to which stacking is tried: larger networks occupy a device alone
_TOLERANCE = 1e-8  # of numbers of the size of 1, in float64


@once_per_network
def obstacles(model: Network, image_shape: ImageShape, num_classes: int) -> tuple[str, ...]:
    """Why members of this network cannot be one network; empty where they can. The same answer on every machine."""
    network = build_seeded(model, image_shape, num_classes, 0)
    found = unstackable(network, any_container=model.foreign)
    if found or not model.foreign:
        return tuple(found)
    if num_parameters(network) > _LARGEST:
        return (f"the network of {num_parameters(network):,} parameters, which occupies a device alone,",)
    difference = _differs(model, image_shape, num_classes, Stack.build)
    return () if difference is None else (difference,)


@once_per_network
def maps(model: Network, image_shape: ImageShape, num_classes: int) -> bool:
    """Whether members of a network that has obstacles can be computed as one by torch.func all the same."""
    if num_parameters(undrawn(model, image_shape, num_classes)) > _LARGEST:
        return False
    return _differs(model, image_shape, num_classes, Stack.build_mapped) is None


def build_stack(model: Network, image_shape: ImageShape, num_classes: int, seeds: Sequence[int]) -> Stack:
    """Members as one network: layer by layer where every layer has a K-fold twin, else by torch.func."""
    layer_by_layer = len(seeds) == 1 or not obstacles(model, image_shape, num_classes)
    build = Stack.build if layer_by_layer else Stack.build_mapped
    return build(model, image_shape, num_classes, seeds)


def check(model: Network, image_shape: ImageShape, num_classes: int) -> list[str]:
    """What is worth saying of a network that can be trained. Raises ConfigError for one that cannot, with the reason."""
    network = build_seeded(model, image_shape, num_classes, 0)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(f"model {model.name}: the network has no weights to train")
    if not _same(_tensors(network), _tensors(build_seeded(model, image_shape, num_classes, 0))):
        raise ConfigError(
            f"model {model.name}: built twice with the same seed it has different weights; expected weights drawn from torch's generator (torch.nn.init, torch.randn) or given, so that a run can be repeated"
        )
    images = _images(image_shape, torch.float32)
    network.eval()
    before = copy.deepcopy(_tensors(network))
    with torch.no_grad():
        first, second = _called(model, network, images), _called(model, network, images)
    if not bool(torch.isfinite(first).all()):
        raise ConfigError(
            f"model {model.name}: gives numbers that are not finite for images in [0, 1]; expected logits"
        )
    if not torch.equal(first, second):
        raise ConfigError(
            f"model {model.name}: answers the same images differently from call to call in eval mode; expected dropout and other draws only where self.training is true"
        )
    if not _same(before, _tensors(network)):
        raise ConfigError(
            f"model {model.name}: changes its parameters or buffers in eval mode; expected that only training does, or votes would depend on the order of images"
        )
    _require_whole_state(model, network, image_shape, num_classes, images)
    notes = []
    if _same(_tensors(network), _tensors(build_seeded(model, image_shape, num_classes, 1).eval())):
        notes.append("all members start from the same weights, since none are drawn")
    if unused := _without_gradient(network, images):
        notes.append(f"weights without a gradient, which stay as they are: {', '.join(unused[:5])}")
    return notes


def _require_whole_state(
    model: Network, network: nn.Module, image_shape: ImageShape, num_classes: int, images: Tensor
) -> None:
    """Raises ConfigError where a network of another seed with the same weights answers otherwise, as it would after a run."""
    other = build_seeded(model, image_shape, num_classes, 1).eval()
    with torch.no_grad():
        expected = network(images)
        other.load_state_dict(network.state_dict())
        if not torch.allclose(other(images), expected, 1e-3, 1e-4):
            raise ConfigError(
                f"model {model.name}: draws tensors that its state_dict does not hold, so no stored member could be used again; expected parameters, or buffers by register_buffer(name, tensor)"
            )


@once_per_network
def draws_itself(model: Network, image_shape: ImageShape, num_classes: int) -> bool:
    """True for a network that draws random numbers in training by other means than nn.Dropout layers, as F.dropout does."""
    images, answers = _images(image_shape, torch.float32), []
    for seed in (1, 2):
        stack = Stack.build(model, image_shape, num_classes, [0]).train()
        _without_dropout(stack)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            answers.append(stack(images))
    return not torch.equal(*answers)


def _without_dropout(stack: Stack) -> None:
    for layer in stack.modules():
        if isinstance(layer, StackedDraws):
            layer.p = 0.0


def _differs(model: Network, image_shape: ImageShape, num_classes: int, build: _Build) -> str | None:
    """What is wrong with two members as one network, in words; None where outputs and gradients are those of each alone."""
    if draws_itself(model, image_shape, num_classes):
        return "the network, which draws random numbers by itself,"
    for key in (None, 1, 2):  # in evaluation, and in training with different draws
        if difference := _differs_with(key, model, image_shape, num_classes, build):
            return difference
    return None


def _differs_with(
    key: int | None, model: Network, image_shape: ImageShape, num_classes: int, build: _Build
) -> str | None:
    try:
        stack = build(model, image_shape, num_classes, [0, 1]).double()
        _set_mode(stack, key, [0, 1])
    except Exception as error:  # the network is a user's
        return f"the network as two ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    images = _images(image_shape, torch.float64)
    factors = torch.linspace(-1, 1, _ROWS * num_classes, dtype=torch.float64).view(_ROWS, num_classes)
    try:
        # In training every member has images of its own.
        together_BKC = stack(images if key is None else images.expand(2, *images.shape))
        (together_BKC * factors.unsqueeze(1)).sum().backward()
    except Exception as error:  # the network is a user's
        return f"the network as two ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    for member in range(2):
        alone = Stack.build(model, image_shape, num_classes, [member]).double()
        _set_mode(alone, key, [member])
        answer_BKC = alone(images)
        (answer_BKC * factors.unsqueeze(1)).sum().backward()
        if not _close(answer_BKC[:, 0], together_BKC[:, member]):
            return "the network as two, which computes something else,"
        of_stack = dict(_weights(stack))
        for name, weight in _weights(alone):
            mine, theirs = weight.grad, of_stack[name].grad
            if (mine is None) != (theirs is None):
                return "the network as two, which has other gradients,"
            if mine is not None and theirs is not None and not _close(mine.flatten(), theirs.reshape(2, -1)[member]):
                return "the network as two, which has other gradients,"
        after = stack.member_state(member)
        if not all(_close(tensor, after[name]) for name, tensor in alone.member_state(0).items()):
            return "the network as two, which keeps other statistics,"
    return None


def _set_mode(stack: Stack, key: int | None, members: Sequence[int]) -> None:
    """Evaluation without a key, else training in which layers that draw leave out half, by draws of the key."""
    stack.train(key is not None)
    if key is not None:
        leave_out_half(stack, [1000 * key + member for member in members], _ROWS)


def _weights(stack: Stack) -> list[tuple[str, nn.Parameter]]:
    return [
        (f"{name}.{key}", weight)
        for name, layer in stack.network.named_modules()
        for key, weight in layer.named_parameters(recurse=False)
    ]


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not a.is_floating_point():
        return torch.equal(a, b)
    return bool(((a == b) | ((a - b).abs() <= _TOLERANCE * (1 + b.abs()))).all())  # a mask may hold -inf


def _images(image_shape: ImageShape, dtype: torch.dtype) -> Tensor:
    """A few images with values in [0, 1], the same on every machine."""
    return torch.rand((_ROWS, *image_shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(
        torch.equal(tensor.nan_to_num(), others[name].nan_to_num()) for name, tensor in some.items()
    )


def _called(model: Network, network: Callable[[Tensor], object], images: Tensor) -> Tensor:
    answer = network(images)
    if not isinstance(answer, Tensor):
        raise ConfigError(f"model {model.name}: gives {type(answer).__name__}; expected a tensor of logits")
    return answer


def _without_gradient(network: nn.Module, images: Tensor) -> list[str]:
    """Names of the weights that are to be trained and get no gradient. The network is in eval mode."""
    network.zero_grad()
    answer: Tensor = network(images)
    if not answer.requires_grad:
        return [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    try:
        answer.square().sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ConfigError(
            f"the network has no way back from its answer to its weights, which training needs (detach, no_grad and in-place changes cut it off): {first_line(error)}"
        ) from error
    return [
        name for name, parameter in network.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
