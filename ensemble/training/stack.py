"""K networks of one architecture as one wide network.

    stack = Stack.build(model_config, image_shape, num_classes, init_seeds)     # K = len(init_seeds)
    logits_BKC = stack(images)            # images [B, C, H, W] shared, or [K, B, C, H, W] one batch per member
    state = stack.member_state(2)         # tensors of member 2, named as in the unstacked network

Every layer with weights is swapped for its K-fold twin from `layers`; the forward pass stays the architecture's own.
K = 1 takes the same way. Idea: Wang et al. 2021, HFTA, "Horizontally Fused Training Array".
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ensemble.config.network import Network
from ensemble.data.counter_random import random_bits
from ensemble.models import ImageShape, build_model
from ensemble.native.kernels import Kernels, load
from ensemble.training import batch_last
from ensemble.training.layers import (
    BatchPlace,
    StackedBatchNorm,
    StackedConv2d,
    StackedDropout,
    StackedLayer,
    StackedLinear,
    channels_last,
)

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
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
# Containers whose forward only chains, adds and flattens, so that it works for K members unchanged; torchvision's by their
# names, since importing it is slow. Anybody else's forward may do what mixes members, such as a mean over channels.
_CONTAINERS = ("torchvision.ResNet", "torchvision.BasicBlock", "torchvision.Bottleneck")


class Stack(nn.Module):
    """The wide network of K members.

    batch_last: compute by the kernels of that name (see `batch_last.suits`), where this machine has them.
    evaluation_rows: images to evaluate at a time on a GPU, see `prediction.rows_on_gpu`.
    """

    def __init__(self, network: nn.Module, num_members: int) -> None:
        super().__init__()
        self.network, self.num_members = network, num_members
        self.batch_last = False
        self.evaluation_rows: int | None = None
        self._chain: batch_last.Chain | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Stack:  # `to`, `double` and the like
        self._chain = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @classmethod
    def build(cls, config: Network, image_shape: ImageShape, num_classes: int, init_seeds: Sequence[int]) -> Stack:
        """One member per seed, each with exactly the initial weights it would have alone."""
        members = [_build_seeded(config, image_shape, num_classes, seed) for seed in init_seeds]
        return cls(stack_modules(members), len(members))

    @property
    def kernels(self) -> Kernels | None:
        """Those that compute this stack; None where PyTorch does."""
        return load() if self.batch_last else None

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """Logits [B, K, classes] of images [B, C, H, W] (shared by the members) or [K, B, C, H, W].

        rows: the images are x [K, C, H, W, filled], as the kernels have them (see `batch_last`), the first so many.
        """
        count = x.shape[-4] if rows is None else rows
        kernels = self.kernels if self.batch_last and batch_last.worthwhile(count) else None
        if kernels is not None:
            x = batch_last.turned(x, self.num_members, kernels) if rows is None else x
            self._chain = self._chain or batch_last.Chain(self.network)
            return self._chain(x, count, kernels)
        x = channels_last(x.transpose(0, 1).flatten(1, 2) if x.dim() == 5 else x)
        logits: Tensor = torch.unflatten(self.network(x), 1, (self.num_members, -1))
        return logits

    def member_state(self, member: int) -> dict[str, Tensor]:
        """One member's parameters and buffers, named as in the state_dict of the unstacked network."""
        state = {
            f"{name}.{key}" if name else key: tensor.detach()
            for name, layer in self.stacked_layers()
            for key, tensor in layer.member_state(member).items()
        }
        return {**state, **dict(self._lone_tensors())}

    @torch.no_grad()
    def load_member_state(self, member: int, state: dict[str, Tensor]) -> None:
        """Overwrite one member's tensors with those of `state`. Raises KeyError for a missing name."""
        for name, tensor in self.member_state(member).items():
            tensor.copy_(state[name])

    def stacked_layers(self) -> Iterator[tuple[str, StackedLayer]]:
        """The layers that hold something per member, with their names."""
        for name, module in self.network.named_modules():
            if isinstance(module, StackedLayer):
                yield name, module

    def _lone_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Tensors of layers without a K-fold twin: they exist only where one member is trained alone."""
        for name, module in self.network.named_modules():
            if not isinstance(module, StackedLayer):
                for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                    yield f"{name}.{key}" if name else key, tensor.detach()

    def member_tensors(self) -> Iterator[Tensor]:
        """Every parameter and buffer as [K, ...]: a view whose first axis is the member."""
        for _, layer in self.stacked_layers():
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                yield per_member(tensor.detach(), self.num_members)
        for _, tensor in self._lone_tensors():
            yield tensor.unsqueeze(0)

    @property
    def dropout(self) -> list[StackedDropout]:
        """The layers that draw masks, in their order."""
        return [layer for _, layer in self.stacked_layers() if isinstance(layer, StackedDropout) and layer.p > 0]

    def seed_dropout(self, keys_K: Tensor) -> None:
        """Give every dropout layer its keys for the coming epoch, made of the members' keys (int64 [K])."""
        layers = self.dropout
        keys_LK = random_bits(keys_K, torch.arange(len(layers), device=keys_K.device), 1)[..., 0]
        for layer, keys in zip(layers, keys_LK, strict=True):
            if layer.keys_K is None:
                layer.keys_K = keys
            else:
                layer.keys_K.copy_(keys)  # in its place, where a CUDA graph reads it

    def place_dropout(self, place: BatchPlace) -> None:
        """Tell every dropout layer where the coming batch lies in the epoch."""
        for layer in self.dropout:
            layer.place = place


def per_member(tensor: Tensor, num_members: int) -> Tensor:
    """A stacked tensor ([K, ...] or [K*C, ...]) as a view [K, rest ...]."""
    view: Tensor = torch.unflatten(tensor, 0, (num_members, -1))
    return view


def unstackable(module: nn.Module) -> list[str]:
    """Names and types of the layers that have no K-fold form; empty when the network can be stacked."""
    found = []
    for name, child in module.named_modules():
        if type(child) in _TWINS or isinstance(child, _CHANNELWISE):
            if isinstance(child, nn.Flatten) and child.start_dim != 1:
                found.append(f"{name} (Flatten from axis {child.start_dim})")
        elif not _is_container(child) or list(child.parameters(recurse=False)):
            found.append(f"{name or 'the network itself'} ({type(child).__name__})")
    return found


def _is_container(module: nn.Module) -> bool:
    kind = type(module)
    return kind is nn.Sequential or f"{kind.__module__.partition('.')[0]}.{kind.__name__}" in _CONTAINERS


def stack_modules(members: Sequence[nn.Module]) -> nn.Module:
    """One network whose layers are the K-fold twins of the members' layers.

    Several members must be stackable; a single one may hold other layers, which stay as they are.
    """
    assert len(members) == 1 or not unstackable(members[0]), unstackable(members[0])
    network = copy.deepcopy(members[0])
    twin = _TWINS.get(type(network))
    if twin is not None:
        return twin(members)
    for name, module in members[0].named_modules():
        twin = _TWINS.get(type(module))
        if twin is not None:
            layers = [member.get_submodule(name) for member in members]
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, twin(layers))
    return network


def _build_seeded(config: Network, image_shape: ImageShape, num_classes: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(config, image_shape, num_classes)
