"""What a run folder says about predicting with it: who votes, how loud, on which images. No torch.

vote = read_vote(Path("runs/quickstart"))
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.config import Experiment
from ensemble.config.loading import parse_stored
from ensemble.config.schema import WEIGHING, Aggregator, aggregator_problem
from ensemble.errors import ConfigError, QuorumError, StorageError
from ensemble.evaluation.choosing import choose_all
from ensemble.evaluation.splits import SplitVotes
from ensemble.judging import DATASET, method_weights, voting_members
from ensemble.storage import RunFolder
from ensemble.types import DoubleArray, FloatArray, MemberResult


@dataclass(frozen=True, eq=False)
class StoredMember:
    """A member that votes. weights: as in its network's state_dict."""

    index: int
    recipe: str
    weights: dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, eq=False)
class StoredVote:
    """The headline vote of a run.

    folder: where the run lies. image_shape: (C, H, W). mean_C, std_C: of the training rows on the scale [0, 1]. weights_M: how loud each member
    votes, None where all count the same. stack_size: members per network, by recipe.
    """

    folder: Path
    experiment: Experiment
    dataset: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean_C: FloatArray
    std_C: FloatArray
    members: tuple[StoredMember, ...]
    aggregator: Aggregator
    weights_M: DoubleArray | None
    stack_sizes: dict[str, int]


def read_vote(path: Path, aggregator: Aggregator | None = None) -> StoredVote:
    """Everything needed to vote as the run does. `aggregator` replaces the configured vote.

    Members whose stored votes are not finite have none, as in the judgement. Raises StorageError where there is no
    run or a file is damaged, QuorumError when fewer members finished than failures.min_members, ConfigError for a vote that
    there is not or that the run's method does not have.
    """
    folder = RunFolder.read(path)
    experiment = parse_stored(folder.config(), str(path / "config.yaml"))
    described = _description(folder)
    voters = _voters(folder, experiment)
    chosen: Aggregator = aggregator or experiment.aggregator
    if problem := aggregator_problem(chosen, experiment.method.name):
        raise ConfigError(problem)
    return StoredVote(
        folder=path,
        experiment=experiment,
        dataset=str(described["name"]),
        class_names=tuple(described["class_names"]),
        image_shape=(described["image_shape"][0], described["image_shape"][1], described["image_shape"][2]),
        mean_C=np.asarray(described["mean"], np.float32),
        std_C=np.asarray(described["std"], np.float32),
        members=tuple(StoredMember(m.index, m.recipe, folder.load_weights(m.index)) for m in voters),
        aggregator=chosen,
        weights_M=_weights(folder, voters, chosen) if chosen in WEIGHING else None,
        stack_sizes={name: int(size) for name, size in folder.plan()["stack_sizes"].items()},
    )


def _description(folder: RunFolder) -> dict[str, Any]:
    """dataset.json, which older runs wrote without the statistics that standardise an image."""
    if not folder.has(DATASET):
        raise StorageError(f"{folder.path}: nothing has been trained here yet; start its `ensemble train` first")
    described: dict[str, Any] = json.loads(folder.read_bytes(DATASET))
    if missing := {"name", "class_names", "image_shape", "mean", "std"} - described.keys():
        raise StorageError(
            f"{folder.path / DATASET}: does not say {', '.join(sorted(missing))}; an earlier version wrote it. Start "
            "the run's `ensemble train` again: it retrains nothing that is finished and writes the file anew"
        )
    return described


def _voters(folder: RunFolder, experiment: Experiment) -> list[MemberResult]:
    kept = [folder.load_member(index) for index in voting_members(folder)]
    voters = [m for m in kept if np.isfinite(m.votes.validation_NK).all() and np.isfinite(m.votes.test_NK).all()]
    needed = max(1, experiment.failures.min_members)
    if len(kept) < needed or not voters:
        raise QuorumError(
            f"{folder.path}: {len(kept)} of {experiment.total_members} members finished, {len(voters)} of them with "
            f"finite votes; {needed} are needed (failures.min_members); start the run again to train the missing ones"
        )
    return voters


def _weights(folder: RunFolder, voters: list[MemberResult], aggregator: Aggregator) -> DoubleArray:
    """The weights of the weighted or additive vote, from the method or from validation, as the judgement has them."""
    labels = folder.load_labels()
    validation = SplitVotes(
        "validation",
        np.stack([member.votes.validation_NK for member in voters]),
        labels.train_labels_N[labels.validation_rows],
    )
    return choose_all(validation, aggregator, method_weights(folder, voters), choose=False, seed=0).weights_M
