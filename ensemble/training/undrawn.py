"""Networks built without drawing their weights, which is nearly all that building a large one takes.

shapes = shapes_of(model, (3, 224, 224), 10)       # of the state_dict's tensors, by name
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ensemble.config.network import Network
from ensemble.models import ImageShape
from ensemble.training.stack import build_seeded


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


def undrawn(model: Network, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """The network without weights that mean anything. Raises ConfigError where it cannot be built."""
    try:
        with DrawnAlone():
            return build_seeded(model, image_shape, num_classes, 0)
    except Exception:  # it looks at its weights while it is built, or cannot be built, which the next line tells
        return build_seeded(model, image_shape, num_classes, 0)
