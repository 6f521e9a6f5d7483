"""How many members are enough, and what each one adds (`ensemble.evaluation.size_curve`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ensemble.evaluation.paper_table import PaperTable, records_csv
from ensemble.evaluation.record_base import Number, Record, per_second
from ensemble.evaluation.section import EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.size_curve import SizePoint, leave_one_out_gains, size_curve
from ensemble.evaluation.written import percent, percent_interval


@dataclass(frozen=True)
class Contribution(Record):
    """By how much the headline's test error would grow without this member, and that per second of its training."""

    member: int
    gain: Number
    gain_per_second: Number


@register_section
class SizeCurveSection(EvaluationSection[tuple[SizePoint, ...]]):
    name, title, record = "size_curve", "How many members are enough", tuple[SizePoint, ...]
    beside = True

    def compute(self, votes: JudgedVotes, _chosen: Any) -> tuple[SizePoint, ...]:
        return size_curve(votes.contested, votes.seed)

    def paper_tables(self, found: tuple[SizePoint, ...]) -> Iterable[PaperTable]:
        rows = [
            (str(one.size), percent(one.mean), percent_interval(one.lower, one.upper), percent(one.best), percent(one.worst))
            for one in found
        ]  # fmt: skip
        yield PaperTable(
            "size_curve", "Test error of the vote by number of members: mean over random orders, 5th to 95th percentile.",
            ("members", "error %", "5 to 95 %", "best", "worst"), tuple(rows), records_csv(SizePoint, found),
        )  # fmt: skip


@register_section
class ContributionsSection(EvaluationSection[tuple[Contribution, ...]]):
    name, title, record = "contributions", "What each member adds", tuple[Contribution, ...]

    def compute(self, votes: JudgedVotes, _chosen: Any) -> tuple[Contribution, ...]:
        gains = leave_one_out_gains(votes.contested).tolist()
        return tuple(
            Contribution(facts.index, gain, per_second(gain, facts.train_seconds))
            for facts, gain in zip(votes.members, gains, strict=True)
        )
