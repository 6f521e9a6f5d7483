"""Optimisers on stacked parameters.

torch's own optimisers work element by element, so on stacked tensors each member gets exactly its own update. What
they cannot do per member is added here: gradient clipping by each member's own norm, and rates that differ between
members. The latter uses that every optimiser offered moves a weight by lr times something that does not depend on lr:
after a step with the largest rate, each member is put at its own share of the way.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
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
FACTOR = "lr_factor"  # of a group of parameters, beside its "lr"
FUSED = frozenset({"sgd", "adam", "adamw"})  # one kernel for all weights
# Whose steps a CUDA graph can hold: the rate is a tensor, and the count of steps lies on the GPU. (Adagrad's are not among
# them: its fused form can be captured with the newest torch, but the oldest that is supported has none for GPUs.)
CAPTURABLE = frozenset({"sgd", "adam", "adamw", "adamax", "adadelta", "rmsprop"})


def _without_compiler(cls: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The same optimiser without the hooks by which it would import torch's compiler (5 s) only to say it is unused.

    And without those that look in every step for somebody who profiles it, which a small network's step is long enough to notice.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        inner = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if inner is not None and not hasattr(inner, "__dynamo_disable"):
            inner.__dynamo_disable = inner
    step = torch.no_grad()(inspect.unwrap(cls.step))
    step.hooked = True
    return type(cls.__name__, (cls,), {"step": step})


def build_optimizer(
    config: TrainingConfig, stack: Stack, captured: bool = False, head: Collection[str] = ()
) -> torch.optim.Optimizer:
    """The configured optimiser over all stacked parameters that are trained, in its fused form where torch has one.

    captured: for steps that a CUDA graph holds; only those of CAPTURABLE. head: names of the last layer's parameters, as in
    the unstacked network; the others learn at lr times config.lr_backbone_factor, which their group has under FACTOR.
    """
    options: dict[str, Any] = {key: getattr(config, key) for key in OPTIMIZER_KEYS[config.optimizer]}
    options = {key: value for key, value in options.items() if value is not None}
    if config.optimizer in FUSED:
        options["fused"] = True
    if captured and config.optimizer != "sgd":  # which keeps no count of steps
        options["capturable"] = True
    axes = {name: tensor.dim() for name, tensor in Stack.member_state(stack, 0).items()}
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in stack.network.named_parameters():
        if parameter.requires_grad:
            factor = 1.0 if name in head else config.lr_backbone_factor
            spared = config.weight_decay_on == "weights" and axes[name] <= 1
            decay = 0.0 if spared else config.weight_decay
            groups.setdefault((factor, decay), []).append(parameter)
    described = [
        {"params": parameters, "lr": config.lr * factor, FACTOR: factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
    optimizer = _without_compiler(_CLASSES[config.optimizer])
    return optimizer(described, lr=config.lr, **options)  # type: ignore[call-arg]


def forget_gradients(optimizer: torch.optim.Optimizer) -> None:
    """What its `zero_grad` does, in a tenth of the time."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


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
    """Applies a factor in [0, 1] per member to the step of an optimiser.

    captured: the steps are held by a CUDA graph, so the factors always apply, from one place in memory. Otherwise nothing
    is done while all factors agree.
    """

    def __init__(self, stack: Stack, captured: bool = False) -> None:
        self._stack, self._captured = stack, captured and stack.num_members > 1
        self._factors_K = torch.ones(stack.num_members, device=next(stack.parameters()).device)
        self._apart = self._captured  # whether the factors apply
        self._before: list[Tensor] = []

    def set(self, factors: Sequence[float]) -> float:
        """Set the factors; returns the largest, by which the optimiser's own rate is to be multiplied."""
        largest = max(factors)
        agree = largest == 0 or min(factors) == largest
        shares = [1.0 if agree else factor / largest for factor in factors]
        self._factors_K.copy_(torch.tensor(shares))
        self._apart = self._captured or not agree
        return largest

    @torch.no_grad()
    def before_step(self) -> None:
        """Remember the weights."""
        if self._apart:
            self._before = [parameter.detach().clone() for parameter in self._stack.parameters()]

    @torch.no_grad()
    def after_step(self) -> None:
        """Move each member back to its share of the step; a factor of 1 leaves it exactly where it is."""
        if not self._apart:
            return
        for parameter, before in zip(self._stack.parameters(), self._before, strict=True):
            moved = per_member(parameter.detach(), self._stack.num_members)
            origin = per_member(before, self._stack.num_members)
            moved.copy_(torch.lerp(origin, moved, _as_factor(self._factors_K, moved)))
        self._before = []


def _as_factor(values_K: Tensor, like: Tensor) -> Tensor:
    return values_K.view(-1, *[1] * (like.dim() - 1))
