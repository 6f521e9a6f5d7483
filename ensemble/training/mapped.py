"""K networks of any make as one, by torch.func: for those of which a layer has no K-fold twin.

    network = map_modules(members)               # the first member's modules, every tensor in them [K, ...]
    logits_BKC = through(network, images)        # images [B, C, H, W] for all members, or [K, B, C, H, W]

One call computes all members (`torch.func.vmap` over `functional_call`). On a GPU that is as few launches as for one
member. On a CPU it is no quicker than one member after the other (docs/log.md), so it is not done there.
"""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ensemble.models.stochastic_depth import StochasticDepth, by_image
from ensemble.training.layers import StackedDraws
from ensemble.training.plain import oddity

DEVICES = ("cuda",)  # on which it is quicker than one member after the other


class _MappedDraws(StackedDraws):
    """Draws inside of a mapped network: a layer sees one member's values [B, ...] and that member's key.

    keys_K: [K, 1], of which a member has its own row.
    """

    keys_K: Tensor

    def __init__(self, layer: nn.Dropout | StochasticDepth, num_members: int) -> None:
        super().__init__([layer])
        del self.keys_K
        self.register_buffer("keys_K", torch.zeros(num_members, 1, dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of one member."""
        if not self.training or self.p == 0:
            return x
        assert self.place is not None, "dropout was not told where the batch lies"
        self.place = replace(self.place, kernels=None)  # which know tensors of one member, not of all in one
        drawn_for = self._drawn_for(x)
        factors: Tensor = self.factors(drawn_for.unsqueeze(0))[0]
        return x * factors.view(*factors.shape, *[1] * (x.dim() - factors.dim()))

    @abstractmethod
    def _drawn_for(self, x: Tensor) -> Tensor:
        """[B, ...]: for each of its values a number is drawn."""


class MappedDropout(_MappedDraws):
    """A number for every value."""

    def _drawn_for(self, x: Tensor) -> Tensor:
        return x


class MappedStochasticDepth(_MappedDraws):
    """A number for every image."""

    def _drawn_for(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :1]


def map_modules(members: Sequence[nn.Module]) -> nn.Module:
    """One network whose tensors are those of all members, stacked: [K, ...]. The members are left as they are."""
    network = copy.deepcopy(members[0])
    places = dict(members[0].named_modules(remove_duplicate=False))
    of_all = {name: [member.get_submodule(name) for member in members] for name in places}
    stacked: dict[int, nn.Parameter] = {}  # tied weights stay one
    draws: dict[int, _MappedDraws] = {}
    for name, first in places.items():
        if name and not oddity(first) and (twin := _drawing(first, len(members))) is not None:
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, draws.setdefault(id(first), twin))
            continue
        layer = network.get_submodule(name)
        for key, parameter in first._parameters.items():
            if parameter is not None:
                if id(parameter) not in stacked:
                    tensors = [one._parameters[key].detach() for one in of_all[name]]  # type: ignore[union-attr]
                    stacked[id(parameter)] = nn.Parameter(torch.stack(tensors), parameter.requires_grad)
                layer._parameters[key] = stacked[id(parameter)]
        for key, buffer in first._buffers.items():
            if buffer is not None:
                layer._buffers[key] = torch.stack([one._buffers[key] for one in of_all[name]])  # type: ignore[misc]
    return network


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Inside, attention takes the way that has gradients: inside vmap it cannot see that somebody wants them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _drawing(layer: nn.Module, num_members: int) -> _MappedDraws | None:
    if type(layer) is nn.Dropout:
        return MappedDropout(layer, num_members)
    depth = by_image(layer)
    return None if depth is None else MappedStochasticDepth(depth, num_members)


def through(network: nn.Module, images: Tensor) -> Tensor:
    """Logits [B, K, classes] of a mapped network."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}

    def one(own: Mapping[str, Tensor], of_one: Tensor) -> Tensor:
        answer: Tensor = torch.func.functional_call(network, dict(own), (of_one,))
        return answer

    with warnings.catch_warnings(), _without_fast_path():
        warnings.filterwarnings(
            "ignore", "There is a performance drop"
        )  # of what is computed member by member after all
        mapped = torch.func.vmap(one, (0, 0 if images.dim() == 5 else None), 1, randomness="error")
        logits: Tensor = mapped(tensors, images)
    return logits
