"""Optimisers on stacked parameters.

torch's own optimisers work element by element, so on stacked tensors each member gets exactly its own update. What
they cannot do per member is added here: gradient clipping by each member's own norm, and rates that differ between
members. The latter uses that every optimiser offered moves a weight by lr times something that does not depend on lr:
after a step with the largest rate, each member is put at its own share of the way.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ensemble.config.recipe import OPTIMIZER_KEYS, TrainingConfig
from ensemble.training.stack import Stack, per_member

_CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}
FUSED = frozenset({"sgd", "adam", "adamw"})  # whose rate may be a tensor, too


def _without_compiler(cls: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The same optimiser without the hooks by which it would import torch's compiler (5 s) only to say it is unused."""
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        inner = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if inner is not None and not hasattr(inner, "__dynamo_disable"):
            inner.__dynamo_disable = inner
    step = torch.no_grad()(inspect.unwrap(cls.step))
    return type(cls.__name__, (cls,), {"step": step})


def build_optimizer(config: TrainingConfig, stack: Stack, recorded: bool = False) -> torch.optim.Optimizer:
    """The configured optimiser over all stacked parameters, in its fused form where torch has one.

    recorded: for steps that a GPU records.
    """
    options: dict[str, Any] = {key: getattr(config, key) for key in OPTIMIZER_KEYS[config.optimizer]}
    options = {key: value for key, value in options.items() if value is not None}
    if config.optimizer in FUSED:
        options["fused"] = True
    if recorded and config.optimizer != "sgd":  # which keeps no count of steps
        options["capturable"] = True
    parameters = list(stack.parameters())
    optimizer = _without_compiler(_CLASSES[config.optimizer])
    return optimizer(parameters, lr=config.lr, weight_decay=config.weight_decay, **options)  # type: ignore[call-arg]


@torch.no_grad()
def clip_gradients(stack: Stack, max_norm: float) -> None:
    """Scale each member's gradient to a norm of at most `max_norm` (torch's clip_grad_norm_, member by member)."""
    gradients = [per_member(p.grad, stack.num_members) for p in stack.parameters() if p.grad is not None]
    squares_K = sum(gradient.flatten(1).square().sum(1) for gradient in gradients)
    assert isinstance(squares_K, Tensor)
    scale_K = (max_norm / (squares_K.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(_as_factor(scale_K, gradient))


class MemberRates:
    """Applies a factor in [0, 1] per member to the step of an optimiser; does nothing while all factors agree."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._factors_K: Tensor | None = None
        self._before: list[Tensor] = []

    def set(self, factors: Sequence[float]) -> float:
        """Set the factors; returns the largest, by which the optimiser's own rate is to be multiplied."""
        largest = max(factors)
        if largest == 0 or min(factors) == largest:
            self._factors_K = None
        else:
            device = next(self._stack.parameters()).device
            self._factors_K = torch.tensor([factor / largest for factor in factors], device=device)
        return largest

    @torch.no_grad()
    def before_step(self) -> None:
        """Remember the weights."""
        if self._factors_K is not None:
            self._before = [parameter.detach().clone() for parameter in self._stack.parameters()]

    @torch.no_grad()
    def after_step(self) -> None:
        """Move each member back to its share of the step."""
        if self._factors_K is None:
            return
        for parameter, before in zip(self._stack.parameters(), self._before, strict=True):
            moved, origin = (
                per_member(parameter.detach(), self._stack.num_members),
                per_member(before, self._stack.num_members),
            )
            moved.sub_(origin).mul_(_as_factor(self._factors_K, moved)).add_(origin)


def _as_factor(values_K: Tensor, like: Tensor) -> Tensor:
    return values_K.view(-1, *[1] * (like.dim() - 1))
