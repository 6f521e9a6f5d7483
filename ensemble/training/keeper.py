"""Which weights vote: the last ones or the best on validation, plain or averaged over steps (EMA).

"Best" is the lowest validation loss, or the lowest validation error (among equal errors the lower loss).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ensemble.config.recipe import TrainingConfig
from ensemble.training.stack import Stack, per_member


class Keeper:
    """Holds the averaged weights and, per member, the weights of its best epoch."""

    def __init__(self, stack: Stack, recipe: TrainingConfig) -> None:
        self._stack, self._decay = stack, recipe.ema_decay
        self._best_wanted = recipe.keep != "last"
        self._by_error = recipe.keep == "best_validation_error"
        self._average = [p.detach().clone() for p in stack.parameters()] if self._decay is not None else []
        self._best: list[Tensor] = []
        self._best_score = [(math.inf, math.inf)] * stack.num_members
        self._kept_epoch = [0] * stack.num_members

    def share(self, step: int) -> float:
        """The share of the new weights in the average after a step (from 0, counted over all epochs); 0 without one.

        The decay warms up as (1 + t) / (10 + t), so that early averages forget the start.
        """
        return 0.0 if self._decay is None else 1 - min(self._decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def after_step(self, share: float | Tensor) -> None:
        """Move the average by this share of its distance to the weights; a tensor of no axes inside a CUDA graph."""
        if self._decay is None:
            return
        weights = [p.detach() for p in self._stack.parameters()]
        if isinstance(share, Tensor):
            distances = torch._foreach_sub(weights, self._average)
            torch._foreach_mul_(distances, share)
            torch._foreach_add_(self._average, distances)
        else:
            torch._foreach_lerp_(self._average, weights, share)

    @contextmanager
    def voting_weights(self) -> Iterator[None]:
        """Inside, the stack holds the weights that would vote now."""
        if self._decay is None:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def after_epoch(self, epoch: int, losses: list[float], errors: list[float], alive: list[bool]) -> None:
        """Remember the members that are better than ever (or, keeping the last, all that live).

        losses and errors: on validation, per member.
        """
        if not self._best_wanted:
            self._kept_epoch = [
                epoch + 1 if living else kept for kept, living in zip(self._kept_epoch, alive, strict=True)
            ]
            return
        scores = list(zip(errors, losses, strict=True)) if self._by_error else [(loss, 0.0) for loss in losses]
        better = [k for k, score in enumerate(scores) if alive[k] and (score < self._best_score[k] or not self._best)]
        with self.voting_weights():
            if not self._best:
                self._best = [tensor.clone() for tensor in self._stack.member_tensors()]
            elif better:
                self._keep(better)
        for k in better:
            self._best_score[k], self._kept_epoch[k] = scores[k], epoch + 1

    def _keep(self, members: list[int]) -> None:
        """Copy the weights of these members to the best ones: one masked copy per tensor, however many members."""
        now = list(self._stack.member_tensors())
        mask_K = torch.zeros(self._stack.num_members, dtype=torch.bool)
        mask_K[members] = True
        mask_K = mask_K.to(now[0].device)
        for best, tensor in zip(self._best, now, strict=True):
            torch.where(mask_K.view(-1, *[1] * (tensor.dim() - 1)), tensor, best, out=best)

    def tensors(self) -> dict[str, list[Tensor]]:
        """The averaged and the best weights, for a checkpoint; empty lists where there are none (yet)."""
        return {"average": self._average, "best": self._best}

    def state(self) -> dict[str, Any]:
        """The rest of what it remembers, as plain values."""
        return {"best_score": self._best_score, "kept_epoch": self._kept_epoch}

    @torch.no_grad()
    def load(self, tensors: dict[str, list[Tensor]], state: dict[str, Any]) -> None:
        """The inverse of `tensors` and `state`."""
        for mine, stored in zip(self._average, tensors["average"], strict=True):
            mine.copy_(stored)
        if tensors["best"]:
            self._best = [tensor.clone() for tensor in self._stack.member_tensors()]
            for mine, stored in zip(self._best, tensors["best"], strict=True):
                mine.copy_(stored)
        self._kept_epoch = list(state["kept_epoch"])
        self._best_score = [(float(first), float(second)) for first, second in state["best_score"]]

    @torch.no_grad()
    def restore_kept(self) -> None:
        """Put the weights that vote into the stack for good."""
        if self._best:
            for best, now in zip(self._best, self._stack.member_tensors(), strict=True):
                now.copy_(best)
        elif self._decay is not None:
            self._swap()

    def kept_epoch(self, member: int) -> int:
        """The epoch (from 1) whose weights the member votes with."""
        return self._kept_epoch[member]

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._stack.parameters(), self._average, strict=True):
            held = per_member(parameter.detach(), 1).clone()
            parameter.copy_(average)
            average.copy_(held.view_as(average))
