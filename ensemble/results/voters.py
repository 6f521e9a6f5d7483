"""The members of a stored run that vote, with all they are judged by: where votes are read.

voters = load_voters(RunFolder.read(Path("runs/my-run")))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from ensemble.config.controls import Control
from ensemble.config.evaluation import CALIBRATION
from ensemble.config.schema import WEIGHING, Aggregator
from ensemble.errors import QuorumError
from ensemble.evaluation.choosing import choose_all
from ensemble.evaluation.records import MemberFacts
from ensemble.evaluation.screening import finite_members
from ensemble.evaluation.set_votes import Beside
from ensemble.evaluation.splits import SplitVotes
from ensemble.results.missing import why_missing
from ensemble.storage import Labels, RunFolder
from ensemble.storage.descriptions import DatasetFacts, JudgedConfig
from ensemble.storage.names import METHOD
from ensemble.storage.remedies import unfit
from ensemble.storage.set_store import SetStore, casts
from ensemble.types import DoubleArray, MemberResult


@dataclass(frozen=True, eq=False)
class Voters:
    """The members of a run that vote, with all they are judged by. weights_M: those of the method, None without."""

    config: JudgedConfig
    dataset: DatasetFacts
    labels: Labels
    members: tuple[MemberResult, ...]
    weights_M: DoubleArray | None
    baseline: MemberResult | None = None  # does not vote
    controls: Mapping[Control, MemberResult] = field(default_factory=dict)  # nor do these
    calibration: SplitVotes | None = None  # on rows that nothing else is chosen by

    @property
    def validation(self) -> SplitVotes:
        labels_N = self.labels.train_labels_N[self.labels.validation_rows]
        return SplitVotes("validation", np.stack([member.votes.validation_NK for member in self.members]), labels_N)

    @property
    def test(self) -> SplitVotes:
        return SplitVotes("test", np.stack([m.votes.test_NK for m in self.members]), self.labels.test_labels_N)

    @property
    def beside(self) -> dict[Beside, MemberResult]:
        """The networks that do not vote, by what they are: the baseline before the controls."""
        found: dict[Beside, MemberResult] = {} if self.baseline is None else {"baseline": self.baseline}
        for control, network in self.controls.items():
            found[control] = network
        return found

    @property
    def facts(self) -> list[MemberFacts]:
        return [facts_of(member) for member in self.members]

    def finite(self) -> Voters:
        """Those whose votes are all finite, which are those that vote. Raises QuorumError where there are none."""
        # Arrays, not SplitVotes, which need a row: a stored classifier has no test images.
        validation_MNK = np.stack([member.votes.validation_NK for member in self.members])
        test_MNK = np.stack([member.votes.test_NK for member in self.members])
        positions, _ = finite_members({"validation": validation_MNK, "test": test_MNK}, self.facts)
        weights_M = None if self.weights_M is None else self.weights_M[positions]
        calibration = None if self.calibration is None else self.calibration.members(positions)
        members = tuple(self.members[m] for m in positions)
        return replace(self, members=members, weights_M=weights_M, calibration=calibration)

    def vote_weights(self, aggregator: Aggregator) -> DoubleArray | None:
        """What each member's vote counts: from the method or from validation; None in a vote that has no weights.

        All votes must be finite. The weights are those of the judgement.
        """
        if aggregator not in WEIGHING:
            return None
        return choose_all(self.validation, aggregator, self.weights_M, choose=False, seed=0).weights_M


def facts_of(member: MemberResult) -> MemberFacts:
    """What is known of a member besides its votes."""
    return MemberFacts(
        member.index, member.recipe, member.num_parameters, member.train_seconds, member.kept_epoch, member.shared_parameters,
    )  # fmt: skip


def load_voters(folder: RunFolder, at_least: int | None = None, calibration: bool = True) -> Voters:
    """The members that vote. at_least: how many are needed, by default failures.min_members, never none. calibration: with their
    votes on calibration rows.

    Raises QuorumError, which says why members are missing and what to do, when there are fewer; StorageError when a file
    is damaged or does not belong to the others.
    """
    config, indices = folder.judged_config(), voting_members(folder)
    needed = max(1, config.failures.min_members if at_least is None else at_least)
    if len(indices) < needed:
        raise QuorumError(
            f"{folder.path}: {len(indices)} of {config.asked_members} members finished, {needed} are needed (failures.min_members); {why_missing(folder)}"
        )
    dataset, labels = folder.dataset(), folder.load_labels()
    members = tuple(folder.load_member(index) for index in indices)
    weights_M, known = method_weights(folder, members), _calibration_votes(folder, indices) if calibration else None
    return Voters(config, dataset, labels, members, weights_M, folder.load_baseline(), load_controls(folder), known)


def load_controls(folder: RunFolder) -> dict[Control, MemberResult]:
    """The stored control networks, longer before wider."""
    found = {control: folder.load_beside(control) for control in get_args(Control)}
    return {control: result for control, result in found.items() if result is not None}


def _calibration_votes(folder: RunFolder, indices: Sequence[int]) -> SplitVotes | None:
    """The members' votes on calibration rows; None where there are none, or somebody has not voted yet or not in finite numbers."""
    store = SetStore(folder)
    if CALIBRATION not in store.names():
        return None
    facts = store.facts(CALIBRATION)
    votes = store.votes(facts, 0)
    if any(not casts(folder, votes, index) or not np.isfinite(votes[index].probs_NK).all() for index in indices):
        return None
    return SplitVotes("calibration", np.stack([votes[index].probs_NK for index in indices]), store.labels(facts))


def voting_members(folder: RunFolder) -> list[int]:
    """The finished members but those the method dropped, ascending."""
    return sorted(folder.finished() - folder.method().dropped)


def method_weights(folder: RunFolder, members: Sequence[MemberResult]) -> DoubleArray | None:
    """The method's weights of these members, in their order; None where it has none."""
    weights = folder.method().vote_weights
    if weights is None:
        return None
    if missing := [member.index for member in members if str(member.index) not in weights]:
        raise unfit(folder.path / METHOD, f"no vote weight for member {missing[0]}")
    return np.array([weights[str(member.index)] for member in members])
