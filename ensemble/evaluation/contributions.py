"""What more members bring: the size curve, what each member adds, and that per second of its training."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.config.schema import Aggregator
from ensemble.evaluation.record_base import NAN, MemberFacts
from ensemble.evaluation.records import Contribution, SizePoint
from ensemble.evaluation.size_curve import contested_rows, leave_one_out_gains, size_curve
from ensemble.evaluation.splits import SplitVotes
from ensemble.types import DoubleArray


def subsets(
    test: SplitVotes,
    aggregator: Aggregator,
    weights_M: DoubleArray | None,
    members: Sequence[MemberFacts],
    seed: int,
) -> tuple[tuple[SizePoint, ...], tuple[Contribution, ...]]:
    """The size curve and what each member adds, for the headline vote."""
    contested = contested_rows(aggregator, test, weights_M)
    curve = tuple(SizePoint(*point) for point in size_curve(contested, seed))
    gains = leave_one_out_gains(contested)
    contributions = tuple(
        Contribution(facts.index, float(gain), _per_second(float(gain), facts.train_seconds))
        for facts, gain in zip(members, gains, strict=True)
    )
    return curve, contributions


def ensemble_gain_per_second(vote_error: float, member_error: float, members: Sequence[MemberFacts]) -> float:
    """Error the vote saves against the mean member, per second of training that the other members took."""
    seconds = sum(facts.train_seconds for facts in members)
    return _per_second(member_error - vote_error, seconds * (1 - 1 / len(members)))


def _per_second(gain: float, seconds: float) -> float:
    return gain / seconds if seconds > 0 else NAN
