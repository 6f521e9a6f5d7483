"""The state of a stack in mid-training, as bytes: whoever goes on from it ends with the same bits.

content = capture(state)            # safetensors; plain values as JSON in a tensor of bytes
restore(new_state, content)         # a fresh state of the same task
"""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from ensemble.errors import StorageError
from ensemble.training.host_copy import on_host
from ensemble.training.state import TrainingState
from ensemble.types import Task

# How augmentations and dropout masks were drawn. 1 (then not written): by generators, whose states were stored too.
# 2: by counters, see ensemble/data/counter_random.py. 3: stochastic depth of libraries, too.
_DRAWS = 3
_STATE = "state"  # the name under which the plain values stand


@torch.no_grad()
def capture(state: TrainingState) -> bytes:
    """The state between two steps."""
    values = state.state_dict()
    tensors: dict[str, Tensor] = values.pop("tensors")
    plain = json.dumps({"draws": _DRAWS, **values})
    tensors[_STATE] = torch.frombuffer(bytearray(plain.encode()), dtype=torch.uint8)
    content: bytes = save(dict(zip(tensors, on_host(list(tensors.values())), strict=True)))
    return content


def fits(content: bytes | None, task: Task) -> bool:
    """Whether a checkpoint is of exactly this task's members."""
    return content is not None and _plain(load(content))["members"] == [member.index for member in task.members]


def of_one(content: bytes, task: Task) -> bool:
    """Whether a checkpoint is of one of a task's several members, which were trained one by one before."""
    found = _plain(load(content))["members"]
    return len(task.members) > 1 and len(found) == 1 and found[0] in [member.index for member in task.members]


def outdated(content: bytes, depth_of_library: bool = False) -> bool:
    """Whether a checkpoint is of a version that drew augmentations and dropout masks otherwise than this one.

    depth_of_library: the network is not ours and has stochastic depth.
    """
    return int(_plain(load(content)).get("draws", 1)) < (_DRAWS if depth_of_library else 2)


def restore(state: TrainingState, content: bytes, task_id: str, ranks: int = 1) -> None:
    """Put a fresh state into the captured one. Raises StorageError when it is that of other members.

    ranks: processes that share each batch, all of which are given the same content.
    """
    tensors = load(content)
    values = _plain(tensors)
    if values["members"] != [member.index for member in state.members]:
        raise StorageError(
            f"{task_id}: its checkpoint is of members {values['members']}; remove the run's checkpoints folder and start again"
        )
    state.load_state_dict({**values, "tensors": tensors}, ranks)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(bytes(tensors[_STATE].numpy()))
    return values
