"""What members start from where weights are given, and what of a network is trained.

    tensors, notes = starting_tensors(model, (3, 32, 32), 10)     # in the driver: what every member begins with
    parts = trained(group, (3, 32, 32), 10)                       # which parameters are the head, which are frozen

The last layer (the head) is told by its shapes: it is what grows with the number of classes. Where a network is for one number of
classes alone, it is the layer that is called last.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ensemble.config.groups import Group
from ensemble.config.network import Network
from ensemble.errors import ConfigError
from ensemble.models import ImageShape
from ensemble.models.stored_weights import read_weights
from ensemble.models.undrawn import undrawn
from ensemble.training.remembered import once_per_network
from ensemble.training.stack import build_seeded

_SHOWN = 6  # names in a message


@dataclass(frozen=True)
class Trained:
    """Names as in the network's state_dict: those of the head, and those of parameters and statistics that stay as they are.

    head_alone: nothing but the head is trained. Its first weights are then drawn from a stream of their own.
    """

    head: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset()
    head_alone: bool = False


@once_per_network
def head_of(model: Network, image_shape: ImageShape, num_classes: int) -> frozenset[str]:
    """Names of the tensors whose shapes depend on the number of classes; empty where there is no such layer.

    A network that is built for this number of classes alone has as its last layer the one that is called last, where that has as
    many outputs.
    """
    shapes = _shapes(undrawn(model, image_shape, num_classes))
    try:
        wider = _shapes(undrawn(model, image_shape, num_classes + 1))
    except ConfigError:
        wider = shapes
    if wider == shapes:
        return _called_last(model, image_shape, num_classes)
    return frozenset(name for name, shape in shapes.items() if wider.get(name) != shape)


def _called_last(model: Network, image_shape: ImageShape, num_classes: int) -> frozenset[str]:
    network = build_seeded(model, image_shape, num_classes, 0).eval()
    called: list[str] = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(lambda _layer, _given, _answer, name=name: called.append(name))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            network(torch.zeros(2, *image_shape))
    except Exception:  # the network is a user's
        return frozenset()
    if not called or not called[-1]:
        return frozenset()
    own = {id(tensor): tensor for tensor in network.get_submodule(called[-1]).parameters()}
    if any(tensor.shape[:1] != (num_classes,) for tensor in own.values()):
        return frozenset()
    everywhere = network.named_parameters(remove_duplicate=False)  # the layer may have a second name
    return frozenset(name for name, tensor in everywhere if id(tensor) in own)


def told_of_frozen(group: Group, image_shape: ImageShape, num_classes: int) -> str | None:
    """How many parameters are not trained, in words; None where all are."""
    if not (frozen := trained(group, image_shape, num_classes).frozen):
        return None
    network = undrawn(group.model, image_shape, num_classes)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    still = sum(size for name, size in sizes.items() if name in frozen)
    said = f"{still:,} of {sum(sizes.values()):,} parameters stay as they are (model.freeze)"
    if group.model.has_weights:
        return said
    mine, other = (build_seeded(group.model, image_shape, num_classes, seed).state_dict() for seed in range(2))
    drawn = any(not torch.equal(mine[name], other[name]) for name in frozen)
    return f"{said}, which each member has drawn at random: the network loads none of them" if drawn else said


def trained(group: Group, image_shape: ImageShape, num_classes: int) -> Trained:
    """What of a group's networks is trained, and how fast: nothing is found out where all is trained alike.

    Raises ConfigError where there is no head, a pattern of model.freeze fits nothing, or nothing is left to train.
    """
    model = group.model
    if model.freeze == "none" and group.training.lr_backbone_factor == 1:
        return Trained()
    head = head_of(model, image_shape, num_classes)
    if not head and (model.freeze == "backbone" or group.training.lr_backbone_factor != 1):
        key = "model.freeze" if model.freeze == "backbone" else "training.lr_backbone_factor"
        raise ConfigError(
            f"{key}: {group.name} has no last layer that backbone would leave out: none depends on the number of classes, and the one that is called last has other outputs than {num_classes} classes; give model.freeze the names of layers, such as [conv1, layer1.*]"
        )
    return Trained(head, _frozen(model, image_shape, num_classes), _head_alone(model, image_shape, num_classes))


@once_per_network
def _frozen(model: Network, image_shape: ImageShape, num_classes: int) -> frozenset[str]:
    network = undrawn(model, image_shape, num_classes)
    names = list(network.state_dict())
    if model.freeze == "none":
        return frozenset()
    if model.freeze == "backbone":
        return frozenset(names) - head_of(model, image_shape, num_classes)
    frozen = frozenset(name for pattern in model.freeze for name in _fitting(pattern, names))
    if frozen.issuperset(name for name, _ in network.named_parameters()):
        raise ConfigError(
            f"model.freeze: {', '.join(model.freeze)} fits every weight; nothing would be trained: leave out the patterns of what is to be trained, or use freeze: backbone"
        )
    return frozen


@once_per_network
def _head_alone(model: Network, image_shape: ImageShape, num_classes: int) -> bool:
    head, frozen = head_of(model, image_shape, num_classes), _frozen(model, image_shape, num_classes)
    names = undrawn(model, image_shape, num_classes).state_dict()
    return bool(head) and bool(frozen) and frozen.issuperset(names.keys() - head)


def _fitting(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that a pattern stands for: a layer's name stands for all that is in it. Raises ConfigError for none."""
    found = [name for name in names if fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]
    if not found:
        layers = {name.rpartition(".")[0] for name in names} | {name.partition(".")[0] for name in names}
        near = difflib.get_close_matches(pattern, sorted({*names, *layers} - {""}), _SHOWN, 0.4) or sorted(layers)
        raise ConfigError(
            f"model.freeze: {pattern!r} fits no weights of the network; there are {', '.join(near[:_SHOWN])}"
        )
    return found


def starting_tensors(
    model: Network, image_shape: ImageShape, num_classes: int, finished: bool = False
) -> tuple[dict[str, Tensor], list[str]] | None:
    """What every member begins with, by name and in the network's shapes, and what is worth saying of it; None without weights.

    The head is drawn anew where that of the file is for other classes (or model.new_head says so). A first convolution over
    another number of channels takes the weights as timm does: summed for grey images, else repeated and scaled. finished: the
    network is to be as the weights have it, so neither is done. Raises ConfigError where the weights are not those of this network.
    """
    given = model.named_weights()
    if given is None and model.weights is not None:
        given = read_weights(Path(model.weights), model.weights_sha256)
    if given is None:
        return None
    network = undrawn(model, image_shape, num_classes)
    expected, head = network.state_dict(), head_of(model, image_shape, num_classes)
    what, notes, taken = f"model.weights: {model.weights}", [], {}
    first = _first_convolution(network, image_shape[0])
    fits = all(name in given and given[name].shape == expected[name].shape for name in head)
    new = [name for name in expected if name in head] if model.new_head or not fits else []
    for name, mine in expected.items():
        found = given.get(name)
        if finished and (found is None or found.shape != mine.shape) and not name.endswith("num_batches_tracked"):
            raise ConfigError(f"{_misfit(what, name, expected, given)}, since it votes as it is (finished)")
        if name in new:
            continue
        if found is not None and found.is_floating_point() != mine.is_floating_point():
            raise ConfigError(
                f"{what}: {name} is {found.dtype}; expected {mine.dtype}, or a type that it can be made of"
            )
        if found is not None and found.shape == mine.shape:
            taken[name] = found
        elif found is not None and name == first and _other_channels(found, mine):
            taken[name] = _for_channels(found, mine.shape[1])
            notes.append(
                f"the first convolution takes {mine.shape[1]} channels, the weights are for {found.shape[1]}: "
                + ("summed" if mine.shape[1] == 1 else "repeated and scaled")
            )
        elif not name.endswith("num_batches_tracked"):
            raise ConfigError(_misfit(what, name, expected, given))
    for name, tensor in taken.items():
        taken[name] = tensor.detach().to(expected[name].dtype).contiguous()
        if not bool(torch.isfinite(taken[name]).all()):
            raise ConfigError(
                f"{what}: {name} holds numbers that are not finite in {expected[name].dtype}; expected the weights of a finished training"
            )
    if new:
        notes.append(f"drawn anew for every member: {_listed(new)}")
    elif not model.new_head and not finished:
        notes.append("all members start from the same weights, the last layer's too; model.new_head draws that anew")
    if unused := sorted(given.keys() - expected.keys()):
        notes.append(f"not used, since the network has nothing of that name: {_listed(unused)}")
    return taken, notes


def _misfit(what: str, name: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    mine = list(expected[name].shape)
    if name in given:
        return f"{what}: {name} is {list(given[name].shape)}, but {mine} in this network; expected the weights of the same network"
    missing = [other for other in expected if other not in given]
    return (
        f"{what}: has nothing for {_listed(missing)} of this network; it holds {_listed(sorted(given))}; "
        "expected the state_dict of the same network"
    )


def _first_convolution(network: nn.Module, channels: int) -> str | None:
    """The name of the weight of the first convolution over the images' channels."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == channels and layer.groups == 1:
            return f"{name}.weight" if name else "weight"
    return None


def _other_channels(found: Tensor, mine: Tensor) -> bool:
    return found.dim() == 4 and (found.shape[0], *found.shape[2:]) == (mine.shape[0], *mine.shape[2:])


def _for_channels(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight for another number of channels, so that grey images answer as they would in colour."""
    have = weight.shape[1]
    if channels == 1:
        return weight.float().sum(1, keepdim=True)
    repeated = weight.float().repeat(1, -(-channels // have), 1, 1)[:, :channels]
    return repeated * (have / channels)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
