"""Members vote on a changed set on a pretended device: trained there first, then again from their weights.

python tests/gpu/run.py python tests/gpu/vote_on_sets.py '[["1 network"], ["rgb"]]'
"""

from __future__ import annotations

import traceback
import warnings
from typing import Any

import numpy as np
from cases import answer
from gpu_log import faults, not_modelled, recorded
from recipes import RECIPES
from safetensors.numpy import save
from small_training import arrays, experiment, train

from ensemble.data.corruptions import Corruption
from ensemble.events import Notice
from ensemble.training import Trainer
from ensemble.training.set_votes import MEMBER, PartToVote, SetVoter
from ensemble.training.step_timing import free_gpu_memory
from ensemble.types import Failure, MemberResult, MemberSpec, SetVotes, Task

IMAGES = 300  # more than a chunk of random changes


def look_at(name: str) -> dict[str, Any]:
    """Train a recipe, then let its members vote; all that a test wants to know of the voting."""
    recipe = RECIPES[name]
    free_gpu_memory()  # nothing is computed: what another case has left would be results, and may be no numbers
    members = [item for item in train(recipe) if isinstance(item, MemberResult)]
    config, scale = experiment(recipe), arrays(recipe.shape)
    group, (channels, side) = config.groups[0], recipe.shape
    images = np.random.default_rng(1).integers(0, 256, (IMAGES, channels, side, side), np.uint8)
    given = {"images.0": images, "mean": scale["mean"], "std": scale["std"]}
    for member in members:
        given[f"{MEMBER}{member.index}"] = np.frombuffer(save(dict(member.weights)), np.uint8)
    specs = tuple(MemberSpec(member.index, group.name, np.empty(0, np.int64)) for member in members)
    task = Task("set-0000", group.name, specs)
    voter = SetVoter(
        Trainer.create(config, "cuda", 10).jobs,
        {task.id: PartToVote("images.0", Corruption("stripe"), 0, recipe.count)},
    )
    votes, failures, notices, error = [], [], [], ""
    with recorded() as records, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            for item in voter(task, given):
                if isinstance(item, SetVotes):
                    votes.append([item.index, list(item.probs_NK.shape)])
                elif isinstance(item, Failure):
                    failures.append(item.reason)
                elif isinstance(item, Notice):
                    notices.append(item.message)
        except Exception:
            error = traceback.format_exc(limit=-6)
    return {
        "votes": votes, "failures": failures, "notices": notices, "error": error, "members": len(members),
        "warnings": sorted({str(found.message) for found in warned}), "faults": faults(records),
        "not_modelled": not_modelled(records),
    }  # fmt: skip


if __name__ == "__main__":
    answer(look_at)
