"""The first weights of many members' last layers, without building as many networks.

    heads = drawn_heads(model, (3, 224, 224), 10, seeds)       # one {name: tensor} per seed

Where only the last layer is trained, it is all that a member draws. A network is built in which nothing is drawn but tensors of
the last layer's shapes; what is done to these is noted, and done again for every seed, in microseconds. Where that cannot be
done again (weights that are copied, or made of what the network answers), each seed's network is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ensemble.config.network import Network
from ensemble.models import ImageShape
from ensemble.models.undrawn import undrawn
from ensemble.seeding import Purpose, member_seed
from ensemble.training.job import Job
from ensemble.training.remembered import once_per_network
from ensemble.training.stack import Stack, build_seeded
from ensemble.training.start import Trained, head_of
from ensemble.types import MemberSpec


def drawn_heads(
    model: Network, image_shape: ImageShape, num_classes: int, seeds: Sequence[int]
) -> list[dict[str, Tensor]]:
    """The last layer's tensors by their names in the whole network, one dict for every seed."""
    steps = _steps(model, image_shape, num_classes)
    if steps is None:
        return [_built(model, image_shape, num_classes, seed, nullcontext()) for seed in seeds]
    return [steps.done(seed) for seed in seeds]


def draw_heads(stack: Stack, parts: Trained, job: Job, members: Sequence[MemberSpec], image_shape: ImageShape) -> None:
    """Give the members of a stack of whole networks last layers of their own streams, where nothing else is trained."""
    if not parts.head_alone:
        return
    seeds = [member_seed(job.seed, member.index, Purpose.HEAD) for member in members]
    for k, drawn in enumerate(drawn_heads(job.group.model, image_shape, job.num_classes, seeds)):
        stack.load_member_state(k, {**stack.member_state(k), **drawn})


@dataclass(frozen=True)
class _Step:
    """One operation in place: on which of the tensors, and its further arguments, none of which is a tensor."""

    operation: Callable[..., Any]
    place: int
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]


@dataclass(frozen=True)
class _Steps:
    """All operations on tensors of the last layer's shapes, and which of these tensors is which of the layer's."""

    steps: tuple[_Step, ...]
    empty: tuple[Tensor, ...]
    places: Mapping[str, int]

    @torch.no_grad()
    def done(self, seed: int) -> dict[str, Tensor]:
        tensors = [torch.zeros_like(tensor) for tensor in self.empty]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for step in self.steps:
                step.operation(tensors[step.place], *step.arguments, **step.named)
        return {name: tensors[place] for name, place in self.places.items()}


class DrawnAlone(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, random numbers are drawn into tensors of these shapes only; others are 0.

    noted: what was done in place to tensors of these shapes, as (operation, arguments with the tensor first, named arguments).
    """

    def __init__(self, shapes: frozenset[torch.Size] = frozenset()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shapes = shapes
        self.noted: list[tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        first = func._schema.arguments[0] if func._schema.arguments else None
        if first is not None and first.alias_info is not None and first.alias_info.is_write:
            if args[0].shape in self._shapes:
                self.noted.append((func, args, named))  # with the tensor, so that its memory is not another's later
            elif torch.Tag.nondeterministic_seeded in func.tags:
                return torch.ops.aten.zero_.default(args[0])  # a network may look at its weights: always the same ones
        return func(*args, **named)


def _built(
    model: Network, image_shape: ImageShape, num_classes: int, seed: int, mode: AbstractContextManager[object]
) -> dict[str, Tensor]:
    names = head_of(model, image_shape, num_classes)
    with mode:
        network = build_seeded(model, image_shape, num_classes, seed)
    return {name: tensor.detach() for name, tensor in network.state_dict().items() if name in names}


@once_per_network
def _shapes(model: Network, image_shape: ImageShape, num_classes: int) -> frozenset[torch.Size]:
    names = head_of(model, image_shape, num_classes)
    state = undrawn(model, image_shape, num_classes).state_dict()
    return frozenset(tensor.shape for name, tensor in state.items() if name in names)


@once_per_network
def _steps(model: Network, image_shape: ImageShape, num_classes: int) -> _Steps | None:
    """What makes a last layer; None where that does not give, for two seeds, what such a building gives."""
    alone = _shapes(model, image_shape, num_classes)
    try:
        head = _built(model, image_shape, num_classes, 1, noting := DrawnAlone(alone))
        expected = {seed: _built(model, image_shape, num_classes, seed, DrawnAlone(alone)) for seed in (1, 2)}
    except Exception:  # it looks at weights that were not drawn
        return None
    places: dict[int, int] = {}
    steps: list[_Step] = []
    empty: list[Tensor] = []
    for operation, (tensor, *more), named in noting.noted:
        if any(isinstance(value, Tensor | torch.Generator) for value in [*more, *named.values()]):
            return None
        if tensor.data_ptr() not in places:
            places[tensor.data_ptr()] = len(empty)
            empty.append(torch.zeros_like(tensor))
        steps.append(_Step(operation, places[tensor.data_ptr()], tuple(more), named))
    if not all(tensor.data_ptr() in places for tensor in head.values()):
        return None
    found = _Steps(tuple(steps), tuple(empty), {name: places[tensor.data_ptr()] for name, tensor in head.items()})
    agree = all(
        torch.equal(again[name], tensor)
        for seed, tensors in expected.items()
        if (again := found.done(seed))
        for name, tensor in tensors.items()
    )
    return found if agree else None
