"""K networks of one architecture as one wide network.

    stack = Stack.build(model_config, image_shape, num_classes, init_seeds)     # K = len(init_seeds)
    logits_BKC = stack(images)            # images [B, C, H, W] shared, or [K, B, C, H, W] one batch per member
    state = stack.member_state(2)         # tensors of member 2, named as in the unstacked network

Every layer with weights is swapped for its K-fold twin from `layers`; the forward pass stays the architecture's own.
K = 1 takes the same way. Idea: Wang et al. 2021, HFTA, "Horizontally Fused Training Array".
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ensemble.config.network import Network
from ensemble.data.counter_random import random_bits
from ensemble.models import ImageShape, build_model
from ensemble.models.stochastic_depth import by_image
from ensemble.native.kernels import Kernels, load
from ensemble.training import batch_last
from ensemble.training.layers import (
    BatchPlace,
    StackedBatchNorm,
    StackedConv2d,
    StackedDraws,
    StackedDropout,
    StackedLayer,
    StackedLinear,
    StackedStochasticDepth,
    channels_last,
)
from ensemble.training.mapped import map_modules, through
from ensemble.training.plain import is_chain, oddity
from ensemble.training.remembered import once_per_network

_TWINS: dict[type[nn.Module], Callable[[Any], StackedLayer]] = {
    nn.Conv2d: StackedConv2d,
    nn.Linear: StackedLinear,
    nn.BatchNorm1d: StackedBatchNorm,
    nn.BatchNorm2d: StackedBatchNorm,
    nn.Dropout: StackedDropout,
}
# Layers that treat every channel or element alike: for them K members are just more channels.
_CHANNELWISE = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Identity, nn.Flatten,
    nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Mish, nn.Softplus, nn.CELU, nn.SELU,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d, nn.ReflectionPad2d,
)  # fmt: skip
# Containers whose forward only chains, adds and flattens, so that it works for K members unchanged; torchvision's by their
# names, since importing it is slow. Anybody else's forward may do what mixes members, such as a mean over channels.
_CONTAINERS = (
    "torchvision.ResNet",
    "torchvision.BasicBlock",
    "torchvision.Bottleneck",
    "ensemble.DroppingBlock",
    "ensemble.ScaledResNet",
)


class Stack(nn.Module):
    """The wide network of K members.

    batch_last: compute by the kernels of that name (see `batch_last.suits`), where this machine has them.
    evaluation_rows: images to evaluate at a time, see the function of that name in `prediction`.
    one_vs_all: votes are its sigmoids divided by their sum instead of its softmax, see `losses.voting_logits`.
    draws_itself: a single member whose network draws random numbers by other means than dropout layers (`trial`); torch's
    generators then start from the member, the epoch and the batch, and are left as they were.
    shared_parameters: how many numbers of each member are the same ones, kept once.
    mapped: the network's layers are plain ones whose tensors are [K, ...], see `mapped`, with the names that a member alone has.
    """

    shared_parameters = 0
    of_images = True  # False: of features, which are no bytes

    def __init__(self, network: nn.Module, num_members: int, mapped: frozenset[str] | None = None) -> None:
        super().__init__()
        self.network, self.num_members, self.mapped = network, num_members, mapped
        self.batch_last = False
        self.evaluation_rows: int | None = None
        self.one_vs_all = False
        self.draws_itself = False
        self._drawing: tuple[Tensor, BatchPlace] | None = None
        self._keys_K: Tensor | None = None
        self._seeded: list[StackedDraws] = []
        self._chain: batch_last.Chain | None = None
        self._still: list[nn.Module] = []

    def freeze(self, names: Collection[str]) -> None:
        """Keep the parameters of these names (as in the unstacked network), and the buffers of layers among them.

        Such buffers are statistics of batches, as of a batch norm, or the vectors of a spectral norm.
        """
        for place, layer in self._places():
            tensors = {
                key: tensor for key, tensor in {**layer._parameters, **layer._buffers}.items() if tensor is not None
            }
            named = {key: f"{place}.{key}" if place else key for key in tensors}
            own = {
                key: name
                for key, name in named.items()
                if key not in layer._non_persistent_buffers_set and self._has(name)
            }
            for key, name in own.items():
                if name in names and isinstance(tensors[key], nn.Parameter):
                    tensors[key].requires_grad_(False)
            buffers = any(tensor is not None for tensor in layer._buffers.values())
            if buffers and own and all(name in names for name in own.values()):
                self._still.append(layer)
        self.train(self.training)

    def train(self, mode: bool = True) -> Stack:
        """As of every module, but that frozen layers with buffers, such as batch norms, go by them."""
        super().train(mode)
        for layer in self._still:
            layer.training = False  # of itself alone, not of what it holds
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Stack:  # `to`, `double` and the like
        self._chain = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @classmethod
    def build(cls, config: Network, image_shape: ImageShape, num_classes: int, init_seeds: Sequence[int]) -> Stack:
        """One member per seed, each with exactly the initial weights it would have alone."""
        members = [build_seeded(config, image_shape, num_classes, seed) for seed in init_seeds]
        if len(members) == 1 and config.foreign and not _twins_suit(config, image_shape, num_classes):
            return cls(members[0], 1)
        return cls(stack_modules(members), len(members))

    @classmethod
    def build_mapped(
        cls, config: Network, image_shape: ImageShape, num_classes: int, init_seeds: Sequence[int]
    ) -> Stack:
        """The same of networks of any make, see `mapped`."""
        members = [build_seeded(config, image_shape, num_classes, seed) for seed in init_seeds]
        alone = cls.build(config, image_shape, num_classes, init_seeds[:1])
        return cls(map_modules(members), len(members), frozenset(alone.member_state(0)))

    @property
    def kernels(self) -> Kernels | None:
        """Those that compute this stack; None where PyTorch does."""
        return load() if self.batch_last else None

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """Logits [B, K, classes] of images [B, C, H, W] (shared by the members) or [K, B, C, H, W].

        rows: the images are x [K, C, H, W, filled], as the kernels have them (see `batch_last`), the first so many.
        """
        count = x.shape[-4] if rows is None else rows
        if self.mapped is not None:
            return through(self.network, x)
        kernels = self.kernels if self.batch_last and batch_last.worthwhile(count) else None
        if kernels is not None:
            x = batch_last.turned(x, self.num_members, kernels) if rows is None else x
            self._chain = self._chain or batch_last.Chain(self.network)
            return self._chain(x, count, kernels)
        x = channels_last(x.transpose(0, 1).flatten(1, 2) if x.dim() == 5 else x)
        with self._own_draws(x):
            logits: Tensor = torch.unflatten(self.network(x), 1, (self.num_members, -1))
        return logits

    @contextmanager
    def _own_draws(self, x: Tensor) -> Iterator[None]:
        """Inside, what the network draws in training by itself is a function of the member, the epoch and the batch."""
        if not (self.draws_itself and self.training and self._drawing):
            yield
            return
        keys_K, place = self._drawing
        first = int(place.first) * 2**16 + (place.part.start or 0)
        seed = random_bits(keys_K[:1], torch.tensor([first], device=keys_K.device), 1)
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(int(seed))
            yield

    def member_state(self, member: int) -> dict[str, Tensor]:
        """One member's parameters and buffers, named as in the state_dict of the unstacked network."""
        state = {
            f"{name}.{key}" if name else key: tensor.detach()
            for name, layer in self._places()
            if isinstance(layer, StackedLayer)
            for key, tensor in layer.member_state(member).items()
        }
        lone = {name: tensor[member] for name, tensor in self._lone_tensors() if self._has(name)}
        return {**state, **lone}

    def own_state(self, member: int) -> dict[str, Tensor]:
        """The same without what all members of the group have alike, where that is kept once."""
        return self.member_state(member)

    @torch.no_grad()
    def load_member_state(self, member: int, state: dict[str, Tensor]) -> None:
        """Overwrite one member's tensors with those of `state`. Raises KeyError for a missing name."""
        for name, tensor in self.own_state(member).items():
            tensor.copy_(state[name])

    @property
    def parameters_per_member(self) -> int:
        """How many numbers a member has learnt or was given to predict with, without statistics."""
        return sum(parameter.numel() for parameter in self.parameters()) // self.num_members

    def stacked_layers(self) -> Iterator[tuple[str, StackedLayer]]:
        """The layers that hold something per member, with their names."""
        for name, module in self.network.named_modules():
            if isinstance(module, StackedLayer):
                yield name, module

    def _places(self) -> Iterator[tuple[str, nn.Module]]:
        """Every layer under every name that it has: state_dict names a layer in two places twice."""
        yield from self.network.named_modules(remove_duplicate=False)

    def _has(self, name: str) -> bool:
        return self.mapped is None or name in self.mapped

    def _lone_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Tensors of layers without a K-fold twin as [K, ...]: of mapped networks, or where one member is trained alone."""
        for name, module in self._places():
            if not isinstance(module, StackedLayer):
                for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                    own = tensor.detach()
                    yield f"{name}.{key}" if name else key, own.unsqueeze(0) if self.mapped is None else own

    def member_tensors(self) -> Iterator[Tensor]:
        """Every parameter and buffer as [K, ...]: a view whose first axis is the member."""
        for _, layer in self.stacked_layers():
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                yield per_member(tensor.detach(), self.num_members)
        for _, tensor in self._lone_tensors():
            yield tensor

    @property
    def dropout(self) -> list[StackedDraws]:
        """The layers that draw masks, in their order."""
        return [layer for _, layer in self.stacked_layers() if isinstance(layer, StackedDraws) and layer.p > 0]

    def seed_dropout(self, keys_K: Tensor) -> None:
        """Give every dropout layer its keys for the coming epoch, made of the members' keys (int64 [K])."""
        self._seeded, self._keys_K = self.dropout, keys_K
        layers = self._seeded
        if not layers:
            return
        keys_LK = random_bits(keys_K, torch.arange(len(layers), device=keys_K.device), 1)[..., 0]
        for layer, keys in zip(layers, keys_LK, strict=True):
            if layer.keys_K is None:
                layer.keys_K = keys
            else:
                layer.keys_K.copy_(keys.view_as(layer.keys_K))  # in its place, where a CUDA graph reads it

    def place_dropout(self, place: BatchPlace) -> None:
        """Tell every dropout layer where the coming batch lies in the epoch."""
        for layer in self._seeded:
            layer.place, layer.calls = place, 0
        if self._keys_K is not None:
            self._drawing = (self._keys_K, place)


def per_member(tensor: Tensor, num_members: int) -> Tensor:
    """A stacked tensor ([K, ...] or [K*C, ...]) as a view [K, rest ...]."""
    whole = tensor if tensor.dim() else tensor.unsqueeze(0)  # a scale, of a member alone
    view: Tensor = torch.unflatten(whole, 0, (num_members, -1))
    return view


def _twin_of(layer: nn.Module) -> Callable[[Any], StackedLayer] | None:
    """What makes the K-fold form of layers such as this one; None where there is none."""
    if (make := _TWINS.get(type(layer))) is not None:
        return make
    depth = by_image(layer)
    return None if depth is None else lambda layers: StackedStochasticDepth([depth] * len(layers))


def unstackable(module: nn.Module, any_container: bool = False) -> list[str]:
    """Names and types of the layers that have no K-fold form; empty when the network can be stacked.

    any_container: take modules that hold known layers and no tensors of their own for such, whatever their forward does;
    whoever asks so must try what comes of it (`trial`).
    """
    found, tied, seen = [], _tied(module), set()
    for name, child in module.named_modules(remove_duplicate=False):
        what = type(child).__name__
        if id(child) in seen:
            continue
        seen.add(id(child))
        if reason := oddity(child):
            found.append(f"{name or 'the network itself'} ({what} {reason})")
        elif any(id(parameter) in tied for parameter in child.parameters(recurse=False)):
            found.append(f"{name} ({what} with weights of another layer)")
        elif _twin_of(child) is None and type(child) not in _CHANNELWISE:
            holds_layers = any(True for _ in child.children()) and not [*child.buffers(recurse=False)]
            known = _is_container(child) or (any_container and holds_layers)
            if not known or list(child.parameters(recurse=False)):
                found.append(f"{name or 'the network itself'} ({what})")
    return found


def _tied(module: nn.Module) -> set[int]:
    """Identities of the parameters that several different layers hold."""
    holders: dict[int, set[int]] = {}
    for layer in module.modules():
        for parameter in layer.parameters(recurse=False):
            holders.setdefault(id(parameter), set()).add(id(layer))
    return {parameter for parameter, layers in holders.items() if len(layers) > 1}


def _is_container(module: nn.Module) -> bool:
    kind = type(module)
    return is_chain(module) or f"{kind.__module__.partition('.')[0]}.{kind.__name__}" in _CONTAINERS


def stack_modules(members: Sequence[nn.Module]) -> nn.Module:
    """One network whose layers are the K-fold twins of the members' layers; a layer in several places stays one layer.

    Several members must be stackable, and are left as they are. A single one may hold other layers, which stay; it becomes
    the network itself, since not everything that somebody wrote can be copied.
    """
    assert len(members) == 1 or not unstackable(members[0], True), unstackable(members[0], True)
    network, tied = members[0] if len(members) == 1 else copy.deepcopy(members[0]), _tied(members[0])
    twins: dict[int, StackedLayer] = {}
    for name, module in list(members[0].named_modules(remove_duplicate=False)):
        make = _twin_of(module)
        if make is None or oddity(module) or any(id(p) in tied for p in module.parameters(recurse=False)):
            continue
        if id(module) not in twins:
            alike = [module] if len(members) == 1 else [member.get_submodule(name) for member in members]
            twins[id(module)] = make(alike)
        if not name:
            return twins[id(module)]
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, twins[id(module)])
    return network


@once_per_network
def _twins_suit(config: Network, image_shape: ImageShape, num_classes: int) -> bool:
    """False for a network that reads its layers' weights itself, or else answers otherwise with their twins in it."""
    plain, twins = (build_seeded(config, image_shape, num_classes, 0) for _ in range(2))
    images = torch.rand((2, *image_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = plain.eval()(images)
        try:
            stack = Stack(stack_modules([twins]), 1).eval()
            found = stack.network(images)
            if stack.dropout:  # which want a row for every image: somebody may lay windows side by side
                leave_out_half(stack.train(), [0], len(images))
                stack.network(images)
            return found.shape == expected.shape and bool(torch.allclose(found, expected, 1e-3, 1e-4))
        except Exception:  # the network is a user's
            return False


def leave_out_half(stack: Stack, keys: Sequence[int], rows: int) -> None:
    """For a trial: layers that draw leave out half of what they see, by draws of the members' keys, for batches of so many images."""
    for layer in stack.dropout:
        layer.leave_out(0.5)
    stack.seed_dropout(torch.tensor(keys))
    stack.place_dropout(BatchPlace(0, rows))


def build_seeded(config: Network, image_shape: ImageShape, num_classes: int, seed: int) -> nn.Module:
    """The network with the initial weights that this seed gives; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(config, image_shape, num_classes)
