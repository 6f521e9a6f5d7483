"""What a run folder says about predicting with it: who votes, how loud, on which images. No torch.

vote = read_vote(Path("runs/quickstart"))
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ensemble.config import Experiment
from ensemble.config.controls import WIDTH, control_group
from ensemble.config.loading import parse_stored
from ensemble.config.probabilities_file import without_network
from ensemble.config.schema import Aggregator, aggregator_problem
from ensemble.data.pixel_rule import PixelRule
from ensemble.errors import ConfigError, StorageError
from ensemble.evaluation.aggregation import Decision, decide
from ensemble.evaluation.splits import SplitVotes
from ensemble.results.voters import Voters, load_voters
from ensemble.storage import RunFolder
from ensemble.storage.descriptions import DatasetFacts
from ensemble.storage.member_files import MEMBER, WEIGHTS
from ensemble.storage.names import BESIDE, CONFIG, DATASET, PLAN, member_folder
from ensemble.storage.remedies import unfit
from ensemble.types import DoubleArray, FloatArray, MemberResult


@dataclass(frozen=True, eq=False)
class StoredMember:
    """A member that votes. weights: as in its network's state_dict. file: where they lie."""

    index: int
    recipe: str
    weights: dict[str, npt.NDArray[np.generic]]
    file: Path


@dataclass(frozen=True, eq=False)
class Known:
    """The vote on rows that no member was trained on, of calibration or else of validation.

    votes: the vote's probabilities as those of a single member, [1, N, K]. members: those of each member, [M, N, K].
    """

    votes: SplitVotes
    decision: Decision
    members: SplitVotes


@dataclass(frozen=True, eq=False)
class StoredVote:
    """The headline vote of a run.

    folder: where the run lies. image_shape: (C, H, W). mean_C, std_C: of the training rows on the scale [0, 1]; see `scale`.
    weights_M: how loud each member votes, None where all count the same. stack_size: members per network, by recipe.
    pixels: how pictures become bytes; None in a run of an earlier version, which did not keep it. confidences_N: of the vote on
    every validation image, the probability of the class that it names, ascending."""

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
    pixels: PixelRule | None = None
    confidences_N: DoubleArray = field(default_factory=lambda: np.empty(0))

    @cached_property
    def known(self) -> Known | None:
        """Rows that rules of silence are made from, of calibration or else of validation; read when they are first asked for."""
        voters = self._voters()
        return _known(voters.calibration or voters.validation, self.aggregator, self.weights_M)

    @cached_property
    def tested(self) -> Known | None:
        """The test images, on which such rules are tried; None without any."""
        voters = self._voters()
        return _known(voters.test, self.aggregator, self.weights_M) if len(voters.labels.test_labels_N) else None

    def _voters(self) -> Voters:
        return load_voters(RunFolder.read(self.folder)).finite()

    def scale(self, recipe: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation, per channel, by which the networks of a recipe have their images standardised."""
        own = self.experiment.group(recipe).model.scale(self.image_shape[0])
        if own is not None:
            return own
        return tuple(self.mean_C.tolist()), tuple(self.std_C.tolist())


def read_vote(path: Path, aggregator: Aggregator | None = None, trust_code: bool = False) -> StoredVote:
    """Everything needed to vote as the run does. `aggregator` replaces the configured vote.

    Members whose stored votes are not finite have none, as in the judgement. Raises StorageError where there is no
    run or a file is damaged, QuorumError when fewer members finished than failures.min_members, ConfigError for a vote that
    there is not or that the run's method does not have, for members without a network, and for a run that holds code where `trust_code` does not allow to execute it.
    """
    return vote_of(RunFolder.read(path), aggregator, trust_code)


def require_networks(experiment: Experiment, run: Path, wanted: str, trust_code: bool) -> None:
    """Raises ConfigError where a member has no network, or building one would execute what the run's folder holds, unasked.

    wanted: what the vote could not do, such as "be cast on new images".
    """
    if experiment.given_votes:
        raise ConfigError(without_network([one.name for one in experiment.given_votes], run, wanted))
    if not trust_code and any(group.model.stored_code for group in experiment.groups):
        raise ConfigError(
            f"{run}: the network of this run is Python code that its folder holds (model.code and model.built in {CONFIG}), and using it would execute that; read it, then give --trust-code (in Python trust_code=True)"
        )


def vote_of(folder: RunFolder, aggregator: Aggregator | None = None, trust_code: bool = False) -> StoredVote:
    """The same of a run that is open already, such as one that has just been trained."""
    path = folder.path
    experiment = parse_stored(folder.config(), str(path / CONFIG))
    require_networks(experiment, path, "be cast on new images", trust_code)
    described = _described(folder)
    voters = load_voters(folder, calibration=False).finite()
    chosen: Aggregator = aggregator or experiment.aggregator
    if problem := aggregator_problem(chosen, experiment.method.name):
        raise ConfigError(problem)
    assert described.image_shape is not None, "looked for before"
    channels, height, width = described.image_shape
    weights_M = voters.vote_weights(chosen)
    shared: dict[str, dict[str, Any]] = {}
    return StoredVote(
        folder=path,
        experiment=experiment,
        dataset=described.name,
        class_names=tuple(described.class_names),
        image_shape=(channels, height, width),
        mean_C=np.asarray(described.mean, np.float32),
        std_C=np.asarray(described.std, np.float32),
        members=tuple(_member(folder, member, experiment, shared) for member in voters.members),
        aggregator=chosen,
        weights_M=weights_M,
        stack_sizes=_stack_sizes(folder, experiment),
        pixels=_pixels(folder, described),
        confidences_N=np.sort(decide(chosen, voters.validation.probs_MNK, weights_M).confidences_N),
    )


def alone(vote: StoredVote, member: StoredMember) -> StoredVote:
    """One network of a run by itself: its own probabilities are the vote."""
    return replace(vote, members=(member,), weights_M=None, aggregator="soft")


def beside(vote: StoredVote, which: Literal["baseline", "longer", "wider"]) -> StoredVote | None:
    """A network that was trained beside the members and does not vote, by itself; None in a run without it."""
    folder = RunFolder.read(vote.folder)
    found = folder.load_beside(which, weights=True)
    if found is None:
        return None
    network = StoredMember(found.index, found.recipe, dict(found.weights), folder.path / BESIDE[which] / WEIGHTS)
    experiment = vote.experiment
    if which == "wider":
        wide = control_group(experiment, which, found.facts.get(WIDTH, 1.0)).model
        # As a run of its own, since its network is not that of the members.
        experiment = experiment.model_copy(update={"model": wide})
    return alone(replace(vote, experiment=experiment), network)


def _known(votes: SplitVotes, aggregator: Aggregator, weights_M: DoubleArray | None) -> Known:
    decision = decide(aggregator, votes.probs_MNK, weights_M)
    return Known(SplitVotes(votes.split, decision.probs_NK[None], votes.labels_N), decision, votes)


def _pixels(folder: RunFolder, described: DatasetFacts) -> PixelRule | None:
    if described.pixels is None:
        return None
    try:
        return PixelRule.from_json(described.pixels)
    except ValueError as error:
        raise unfit(folder.path / DATASET, f"pixels: {error}") from error


def _described(folder: RunFolder) -> DatasetFacts:
    """dataset.json, which older runs wrote without the statistics that standardise an image."""
    described = folder.dataset()
    needed = ("image_shape", "mean", "std")
    if missing := [name for name in needed if getattr(described, name) is None]:
        raise StorageError(
            f"{folder.path / DATASET}: does not say {', '.join(sorted(missing))}; an earlier version wrote it; start "
            "the run's `ensemble train` again: it retrains nothing that is finished and writes the file anew"
        )
    return described


def _member(
    folder: RunFolder, member: MemberResult, experiment: Experiment, shared: dict[str, dict[str, Any]] | None = None
) -> StoredMember:
    place = folder.path / member_folder(member.index)
    if member.recipe not in [group.name for group in experiment.groups]:
        raise unfit(place / MEMBER, f"of the recipe {member.recipe!r}, which {CONFIG} does not have")
    return StoredMember(member.index, member.recipe, folder.load_weights(member.index, shared), place / WEIGHTS)


def _stack_sizes(folder: RunFolder, experiment: Experiment) -> dict[str, int]:
    sizes: dict[str, int] = folder.plan()["stack_sizes"]
    if missing := [group.name for group in experiment.groups if group.name not in sizes]:
        raise unfit(folder.path / PLAN, f"stack_sizes says nothing of {missing[0]}")
    return sizes
