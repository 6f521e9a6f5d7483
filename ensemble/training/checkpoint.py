"""The whole state of a stack in mid-training, as bytes: whoever goes on from it ends with the same bits.

    content = capture(run)              # safetensors; plain values as JSON in its metadata
    restore(new_run, content)           # a fresh run of the same task

What is in it: weights and buffers, the optimiser's state, averaged and best weights, schedule state, histories, and the
place in the epoch with its sums. What is not: anything that is a function of its address (orders, resamplings,
augmentations, dropout masks, filtered sets), which is made again.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor

from ensemble.config.recipe import TrainingConfig
from ensemble.errors import StorageError
from ensemble.training.host_copy import on_host
from ensemble.training.keeper import Keeper
from ensemble.training.schedules import Plateau
from ensemble.training.stack import Stack
from ensemble.types import EpochRecord, Failure, MemberSpec, Task

# How augmentations and dropout masks were drawn. 1 (then not written): by generators, whose states were stored too.
# 2: by counters, see ensemble/data/counter_random.py.
_DRAWS = 2
_STATE = "state"  # the name under which the plain values stand, as JSON in a tensor of bytes


class Resumable(Protocol):
    """What a training must have to be written down and taken up again; a `stack_run.StackRun` has it."""

    task: Task
    members: tuple[MemberSpec, ...]
    recipe: TrainingConfig
    stack: Stack
    optimizer: torch.optim.Optimizer
    keeper: Keeper
    plateau: Plateau | None
    sums_2K: Tensor
    epoch: int
    step: int
    spent: float
    seconds: float
    alive: list[bool]
    histories: list[list[EpochRecord]]
    failures: dict[int, Failure]


@torch.no_grad()
def capture(run: Resumable) -> bytes:
    """The state of a run between two steps."""
    tensors = {f"network.{name}": tensor for name, tensor in run.stack.state_dict().items()}
    plain: dict[str, Any] = {}
    for i, parameter in enumerate(run.stack.parameters()):
        for key, value in run.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{i}.{key}"] = value
            else:
                plain[f"{i}.{key}"] = value
    for kind, kept in run.keeper.tensors().items():
        tensors.update({f"keeper.{kind}.{i:04d}": tensor for i, tensor in enumerate(kept)})
    tensors["sums"] = run.sums_2K
    state = {
        "draws": _DRAWS,
        "members": [member.index for member in run.members],
        "epoch": run.epoch, "step": run.step, "spent": run.spent, "seconds": run.seconds, "alive": run.alive,
        "histories": [[asdict(record) for record in history] for history in run.histories],
        "failures": {position: asdict(failure) for position, failure in run.failures.items()},
        "optimizer": plain, "keeper": run.keeper.state(), "plateau": run.plateau.state() if run.plateau else None,
    }  # fmt: skip
    tensors[_STATE] = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)
    content: bytes = save(dict(zip(tensors, on_host(list(tensors.values())), strict=True)))
    return content


def fits(content: bytes | None, task: Task) -> bool:
    """Whether a checkpoint is of exactly this task's members."""
    return content is not None and _state(load(content))["members"] == [member.index for member in task.members]


def outdated(content: bytes, run: Resumable) -> bool:
    """Whether a checkpoint is of a training that would go on with other augmentations or dropout masks than it began with."""
    draws = run.recipe.augmentation.active or run.stack.dropout
    return bool(draws) and _state(load(content)).get("draws", 1) != _DRAWS


@torch.no_grad()
def restore(run: Resumable, content: bytes) -> None:
    """Put a fresh run into the captured state. Raises StorageError when it is the state of other members."""
    tensors = load(content)
    state = _state(tensors)
    if state["members"] != [member.index for member in run.members]:
        raise StorageError(
            f"{run.task.id}: its checkpoint is of members {state['members']}; remove the run's checkpoints folder and start again"
        )
    for name, mine in run.stack.state_dict().items():
        mine.copy_(tensors[f"network.{name}"])
    _restore_optimizer(run, tensors, state["optimizer"])
    kept = {kind: _numbered(tensors, f"keeper.{kind}.") for kind in ("average", "best")}
    run.keeper.load(kept, state["keeper"])
    if run.plateau:
        run.plateau.load(state["plateau"])
    run.epoch, run.step, run.spent, run.seconds = state["epoch"], state["step"], state["spent"], state["seconds"]
    run.sums_2K.copy_(tensors["sums"])
    run.alive = list(state["alive"])
    run.histories = [[EpochRecord(**record) for record in history] for history in state["histories"]]
    run.failures = {int(position): Failure(**failure) for position, failure in state["failures"].items()}


def _restore_optimizer(run: Resumable, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    for i, parameter in enumerate(run.stack.parameters()):
        stored = {key: value for key, value in plain.items() if key.startswith(f"{i}.")}
        for name, tensor in tensors.items():
            if not name.startswith(f"optimizer.{i}."):
                continue
            if tensor.shape == parameter.shape:  # beside each weight, in the weight's own memory layout
                stored[name.partition(".")[2]] = torch.zeros_like(parameter, dtype=tensor.dtype).copy_(tensor)
            else:  # the count of steps, which fused optimisers keep beside the weights
                fused = run.optimizer.defaults.get("fused")
                stored[name.partition(".")[2]] = tensor.to(parameter.device) if fused else tensor
        if stored:
            run.optimizer.state[parameter] = {key.partition(".")[2]: value for key, value in stored.items()}


def _numbered(tensors: dict[str, Tensor], prefix: str) -> list[Tensor]:
    return [tensors[name] for name in sorted(tensors) if name.startswith(prefix)]


def _state(tensors: dict[str, Tensor]) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(bytes(tensors[_STATE].numpy()))
    return state
