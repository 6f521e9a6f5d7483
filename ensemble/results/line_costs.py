"""What the lines of a leaderboard take to predict, as far as it was measured for this run.

costs = costs_of(RunFolder.read(path), evaluation)
costs.of(evaluation.headline)       # a StoredCost, or None
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ensemble.evaluation.records import Evaluation, LeaderboardRow
from ensemble.storage import RunFolder
from ensemble.storage.cost_file import CostFile, StoredCost, load_costs
from ensemble.storage.names import BESIDE

NO_COSTS: Final[Mapping[str, float | None]] = {"one_image_ms": None, "image_of_batch_ms": None}  # columns of tables


@dataclass(frozen=True)
class LineCosts:
    """machine: where it was measured. batch: images in a batch. vote, beside (networks that do not vote, by their kind), members: by
    whom; those that were measured."""

    machine: str
    batch: int
    vote: StoredCost | None
    beside: dict[str, StoredCost]
    members: dict[int, StoredCost]

    def of(self, row: LeaderboardRow) -> StoredCost | None:
        """The cost of a line; None for one that was not measured."""
        if row.headline:
            return self.vote
        if row.kind in BESIDE:
            return self.beside.get(row.kind)
        return None if row.member is None else self.members.get(row.member)

    def figures(self, row: LeaderboardRow) -> Mapping[str, float | None]:
        """The same by the names of table columns; None for what was not measured."""
        cost = self.of(row)
        return NO_COSTS if cost is None else dict(zip(NO_COSTS, (cost.one_ms, cost.each_of_batch_ms), strict=True))


def costs_of(folder: RunFolder, evaluation: Evaluation) -> LineCosts | None:
    """What was measured of what is judged here; None where nothing was. Raises StorageError for a damaged file."""
    found = load_costs(folder)
    return None if found is None else line_costs(found, evaluation)


def line_costs(found: CostFile, evaluation: Evaluation) -> LineCosts | None:
    """Of the figures those that are of this vote, of its members and of the networks it is compared with."""
    voting = [member.index for member in evaluation.members]
    votes = [one for one in found.costs if one.kind == "vote" and one.members == voting]
    alone = {
        one.members[0]: one
        for one in found.costs
        if one.kind == "member" and len(one.members) == 1 and one.members[0] in voting
    }
    judged = {row.kind for row in evaluation.leaderboard}
    costs = LineCosts(
        found.machine,
        found.batch,
        votes[0] if votes and found.aggregator == evaluation.aggregator else None,
        {one.kind: one for one in found.costs if one.kind in BESIDE and one.kind in judged},
        alone,
    )
    return costs if costs.vote or costs.beside or costs.members else None
