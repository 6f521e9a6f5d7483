"""Learning rates as a function of progress, so that a resumed member needs no scheduler state.

`rate(recipe, step, steps_per_epoch)` is the learning rate of a step, `factor(schedule, step, steps_per_epoch, total)` what the
schedule alone makes of it. The plateau schedule alone depends on what was seen; `Plateau` keeps it, one state per member.
"""

from __future__ import annotations

import math
from typing import Any

from ensemble.config.recipe import (
    ConstantConfig,
    CosineConfig,
    ExponentialConfig,
    OneCycleConfig,
    PlateauConfig,
    ScheduleConfig,
    StepConfig,
    TrainingConfig,
    TriangularConfig,
)


def rate(recipe: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of batch `step` (from 0, counted over all epochs), before any member's own factor.

    In the warm-up it rises in equal steps, from the first one above zero; the schedule begins after it.
    """
    rising, total = round(recipe.warmup_epochs * steps_per_epoch), recipe.epochs * steps_per_epoch
    if step < rising:
        return recipe.lr * (step + 1) / (rising + 1)
    return recipe.lr * factor(recipe.schedule, step - rising, steps_per_epoch, total - rising)


def factor(schedule: ScheduleConfig, step: int, steps_per_epoch: int, total: int) -> float:
    """Rate of batch `step` (from 0) of so many in all, as a multiple of the configured lr."""
    epochs_done = step // steps_per_epoch
    match schedule:
        case ConstantConfig() | PlateauConfig():
            return 1.0
        case StepConfig():
            return schedule.gamma ** (epochs_done // schedule.every)
        case ExponentialConfig():
            return schedule.gamma**epochs_done
        case CosineConfig():
            warmup = schedule.warmup_fraction * total
            if step < warmup:
                return (step + 1) / (warmup + 1)
            return _cosine(1.0, schedule.final_fraction, (step - warmup) / max(1.0, total - warmup))
        case OneCycleConfig():
            # Smith and Topin 2017 with cosine arcs: the rates of torch's OneCycleLR (momentum is left alone).
            peak = max(schedule.warmup_fraction * total - 1, 1e-9)
            start, end = 1 / schedule.start_divisor, 1 / (schedule.start_divisor * schedule.final_divisor)
            if step <= peak:
                return _cosine(start, 1.0, step / peak)
            return _cosine(1.0, end, (step - peak) / (total - 1 - peak)) if total - 1 > peak else end
        case TriangularConfig():
            low = schedule.low_fraction
            height = 1 - abs(2 * (step + 1) / total - 1)  # 0 after the last step, 1 in the middle
            return low + (1 - low) * height
    raise AssertionError(schedule)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


class Plateau:
    """Per-member factors that shrink when a member's validation loss stops falling (relative threshold)."""

    def __init__(self, config: PlateauConfig, num_members: int) -> None:
        self.config = config
        self.factors = [1.0] * num_members
        self._best = [math.inf] * num_members
        self._waited = [0] * num_members

    def state(self) -> dict[str, Any]:
        """All it remembers, as plain values."""
        return {"factors": self.factors, "best": self._best, "waited": self._waited}

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.factors, self._best, self._waited = list(state["factors"]), list(state["best"]), list(state["waited"])

    def update(self, validation_losses: list[float]) -> None:
        """Take in one epoch's validation loss of every member."""
        for member, loss in enumerate(validation_losses):
            if loss < self._best[member] * (1 - self.config.threshold):
                self._best[member], self._waited[member] = loss, 0
            else:
                self._waited[member] += 1
            if self._waited[member] > self.config.patience:
                self.factors[member] *= self.config.gamma
                self._waited[member] = 0
