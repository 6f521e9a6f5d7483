"""Where the training of a stack stands: all that its steps and epochs change, apart from the loop that changes it.

    state = TrainingState(members, stack, optimizer, keeper, plateau, device)
    stored = state.state_dict()             # tensors where they are, and plain values
    fresh.load_state_dict(stored)           # of the same members: goes on to the bit

What is a function of its address (orders, resamplings, augmentations, dropout masks, filtered sets) is no state; it is
made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ensemble.training.keeper import Keeper
from ensemble.training.schedules import Plateau
from ensemble.training.stack import Stack
from ensemble.types import EpochRecord, Failure, MemberSpec


class TrainingState:
    """A stack in training, its optimiser, what it remembers, and its place in the epoch.

    sums_2K: summed losses and misses of the steps done in this epoch, per member; of several ranks that share each batch,
    this one's since the last `share`. total_2K: those of all ranks before it; 0 where there is one. step: steps done. spent: seconds they
    took. seconds: those of the epochs before. alive: False for a member whose loss is no longer finite. histories and
    failures: per member, by position in the stack.
    """

    def __init__(
        self,
        members: Sequence[MemberSpec],
        stack: Stack,
        optimizer: torch.optim.Optimizer,
        keeper: Keeper,
        plateau: Plateau | None,
        device: torch.device,
    ) -> None:
        count = len(members)
        self.members, self.stack, self.optimizer = tuple(members), stack, optimizer
        self.keeper, self.plateau = keeper, plateau
        self.sums_2K = torch.zeros((2, count), device=device)
        self.total_2K = torch.zeros_like(self.sums_2K)
        self.epoch = self.step = 0
        self.spent = self.seconds = 0.0
        self.alive = [True] * count
        self.histories: list[list[EpochRecord]] = [[] for _ in members]
        self.failures: dict[int, Failure] = {}

    def begin(self, epoch: int) -> None:
        """Go to the start of an epoch, unless it is the one that was begun."""
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0
            self.sums_2K.zero_()
            self.total_2K.zero_()

    def share(self, total: Callable[[Tensor], Tensor]) -> None:
        """Add up the sums of all ranks. total: gives each rank the sum over them, see `Placement.total`."""
        self.total_2K += total(self.sums_2K)
        self.sums_2K.zero_()

    def changed_by_steps(self) -> list[Tensor]:
        """Every tensor that a step changes, in its place."""
        kept = self.optimizer.state.values()
        of_optimizer = [value for values in kept for value in values.values() if isinstance(value, Tensor)]
        average = self.keeper.tensors()["average"]
        return [*self.stack.state_dict().values(), *of_optimizer, *average, self.sums_2K]

    def state_dict(self) -> dict[str, Any]:
        """Tensors by name under "tensors", not copied; the rest as values that JSON can hold. Of several ranks, after `share`."""
        tensors = {f"network.{name}": tensor for name, tensor in self.stack.state_dict().items()}
        plain: dict[str, Any] = {}
        for i, parameter in enumerate(self.stack.parameters()):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{i}.{key}"] = value
                else:
                    plain[f"{i}.{key}"] = value
        for kind, kept in self.keeper.tensors().items():
            tensors.update({f"keeper.{kind}.{i:04d}": tensor for i, tensor in enumerate(kept)})
        tensors["sums"] = self.total_2K + self.sums_2K
        return {
            "tensors": tensors,
            "members": [member.index for member in self.members],
            "epoch": self.epoch, "step": self.step, "spent": self.spent, "seconds": self.seconds, "alive": self.alive,
            "histories": [[asdict(record) for record in history] for history in self.histories],
            "failures": {position: asdict(failure) for position, failure in self.failures.items()},
            "optimizer": plain, "keeper": self.keeper.state(), "plateau": self.plateau.state() if self.plateau else None,
        }  # fmt: skip

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any], ranks: int = 1) -> None:
        """The inverse of `state_dict`, in a fresh state of the same members; also of one that came through JSON."""
        tensors: dict[str, Tensor] = state["tensors"]
        for name, mine in self.stack.state_dict().items():
            mine.copy_(tensors[f"network.{name}"])
        self._load_optimizer(tensors, state["optimizer"])
        self.keeper.load({kind: _numbered(tensors, f"keeper.{kind}.") for kind in ("average", "best")}, state["keeper"])
        if self.plateau:
            self.plateau.load(state["plateau"])
        (self.sums_2K if ranks == 1 else self.total_2K).copy_(tensors["sums"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.spent, self.seconds = state["spent"], state["seconds"]
        self.alive = list(state["alive"])
        self.histories = [[EpochRecord(**record) for record in history] for history in state["histories"]]
        self.failures = {int(position): Failure(**failure) for position, failure in state["failures"].items()}

    def _load_optimizer(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        for i, parameter in enumerate(self.stack.parameters()):
            stored = {key: value for key, value in plain.items() if key.startswith(f"{i}.")}
            for name, tensor in tensors.items():
                if not name.startswith(f"optimizer.{i}."):
                    continue
                if tensor.shape == parameter.shape:  # beside each weight, in the weight's own memory layout
                    stored[name.partition(".")[2]] = torch.zeros_like(parameter, dtype=tensor.dtype).copy_(tensor)
                else:  # the count of steps, which fused optimisers keep beside the weights
                    fused = self.optimizer.defaults.get("fused")
                    stored[name.partition(".")[2]] = tensor.to(parameter.device) if fused else tensor
            if stored:
                self.optimizer.state[parameter] = {key.partition(".")[2]: value for key, value in stored.items()}


def _numbered(tensors: dict[str, Tensor], prefix: str) -> list[Tensor]:
    return [tensors[name] for name in sorted(tensors) if name.startswith(prefix)]
