"""Everything that validation decides about a run, before any test vote is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.config.schema import WEIGHING, Aggregator
from ensemble.evaluation.chosen_votes import ChosenVote, choose_votes, no_better_than_guessing, without_members
from ensemble.evaluation.records import Choice, MemberFacts
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.evaluation.weights import best_member, log_odds_weights
from ensemble.types import DoubleArray


@dataclass(frozen=True, eq=False)
class Choices:
    """reference: position of the best member. weights_M: of the weighted vote. flagged: no better than guessing."""

    reference: int
    weights_M: DoubleArray
    weights_from: str
    equal_because_zero: bool
    flagged: list[int]
    votes: list[ChosenVote]

    def warnings(self, members: Sequence[MemberFacts]) -> list[str]:
        """What a person should know about these choices."""
        warnings = [
            f"member {members[m].index} ({members[m].recipe}) is no better than guessing on validation; it still votes"
            for m in self.flagged
        ]
        if self.equal_because_zero:
            warnings.append(f"the weights {self.weights_from} are all zero, so the weighted vote has equal ones")
        return warnings

    def records(self, members: Sequence[MemberFacts]) -> tuple[Choice, ...]:
        """The same as plain records, member indices instead of positions."""
        own = (
            Choice("best member by validation", (float(members[self.reference].index),)),
            Choice(f"weights of the weighted vote, {self.weights_from}", tuple(self.weights_M.tolist())),
        )
        return own + tuple(Choice(vote.name, tuple(vote.values.tolist())) for vote in self.votes)


def choose_all(
    validation: SplitVotes, aggregator: Aggregator, method_weights_M: AnyFloatArray | None, choose: bool, seed: int
) -> Choices:
    """Everything that is learned from validation votes. Raises PeekingError for test votes."""
    require_choosable(validation)
    if method_weights_M is not None:
        weights_M, source = method_weights_M.astype(np.float64), "from the method"
    else:
        weights_M, source = log_odds_weights(validation), "from the log-odds of the validation error"
    all_zero = not weights_M.any()
    if all_zero:
        weights_M = np.ones(validation.num_members)
    headline_weights = weights_M if aggregator in WEIGHING else None
    votes = choose_votes(validation, aggregator, headline_weights, seed) if choose else []
    flagged = no_better_than_guessing(validation)
    if 0 < len(flagged) < validation.num_members and np.delete(weights_M, flagged).any():
        votes = [*votes, without_members(validation, flagged, aggregator, headline_weights)]
    return Choices(best_member(validation), weights_M, source, all_zero, flagged.tolist(), votes)
