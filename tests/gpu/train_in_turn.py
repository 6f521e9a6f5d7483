"""One process that trains on one device after another, with CUDA graphs or without.

python tests/gpu/run.py --gpus 4 python tests/gpu/train_in_turn.py '[[[0, 1, 0], true]]'
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from cases import answer
from gpu_log import LAUNCHES, faults, recorded
from recipes import Recipe
from small_training import train

from ensemble.events import Notice, TaskStarted
from ensemble.types import MemberResult


def look_at(devices: list[int], graph: bool) -> list[dict[str, Any]]:
    """For each device in turn: what was trained, what was said, and where the work was done."""
    found = []
    for device in devices:
        torch.cuda.set_device(device)
        with recorded() as records:
            items = list(train(Recipe(), cuda_graph=graph))
        work = Counter(record.device for record in records if record.kind in LAUNCHES)
        found.append({
            "device": device, "work": {str(k): n for k, n in work.items()}, "faults": faults(records),
            "trained": sum(isinstance(item, MemberResult) for item in items),
            "notices": [item.message for item in items if isinstance(item, Notice)],
            "said": [item.device for item in items if isinstance(item, TaskStarted)],
            "graphs": sum(record.kind == "graph launch" for record in records),
        })  # fmt: skip
    return found


if __name__ == "__main__":
    answer(look_at)
