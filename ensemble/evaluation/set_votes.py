"""Votes on a further set, as the judgement takes them: nothing is ever chosen by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from ensemble.config.schema import Aggregator
from ensemble.evaluation.aggregation import Decision, decide
from ensemble.evaluation.splits import AnyFloatArray
from ensemble.types import DoubleArray, IntArray

Beside = Literal["baseline", "longer", "wider"]  # networks of a run that do not vote
BESIDE: tuple[Beside, ...] = get_args(Beside)


@dataclass(frozen=True, eq=False)
class PartVotes:
    """What M members said about the N images of one part of a set. beside: [N, K] of each network that does not vote.

    energy_MN: log sum exp of the members' logits, where it is stored.
    """

    label: str
    probs_MNK: AnyFloatArray
    beside: Mapping[Beside, AnyFloatArray] = field(default_factory=dict)
    energy_MN: AnyFloatArray | None = None


@dataclass(frozen=True, eq=False)
class HowToVote:
    """What validation decided: the headline's rule, its weights, and the position of the member that validation picks."""

    aggregator: Aggregator
    weights_M: DoubleArray | None
    reference: int

    def vote(self, probs_MNK: AnyFloatArray) -> Decision:
        """The headline vote."""
        return decide(self.aggregator, probs_MNK, self.weights_M)

    def member(self, probs_MNK: AnyFloatArray) -> Decision:
        """The member that validation picks, by itself."""
        return decide("soft", probs_MNK[[self.reference]])


def wrong_of(decision: Decision, labels_N: IntArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows a decision gets wrong."""
    wrong_N: np.ndarray[tuple[int], np.dtype[np.bool_]] = decision.classes_N != labels_N
    return wrong_N
