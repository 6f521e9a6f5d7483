"""What answering only the surest images saves (`risk`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ensemble.evaluation.calibration import confidence_of
from ensemble.evaluation.record_base import Record
from ensemble.evaluation.risk import risk_coverage
from ensemble.evaluation.section import EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.views import Cell, Note
from ensemble.evaluation.written import percent

ANSWERED = 0.9  # the coverage that the model card speaks of


@dataclass(frozen=True)
class RiskCoverage(Record):
    """Test error of the headline among its most certain rows, at growing coverage; `area` is the mean over all rows."""

    coverage: tuple[float, ...]
    error: tuple[float, ...]
    area: float


@register_section
class RiskCoverageSection(EvaluationSection[RiskCoverage]):
    name, title, record = "risk_coverage", "Selective prediction", RiskCoverage

    def compute(self, votes: JudgedVotes, _chosen: Any) -> RiskCoverage:
        """The risk-coverage curve by the vote's own confidence."""
        vote = votes.vote
        curve = risk_coverage(confidence_of(vote.probs_NK, vote.classes_N), votes.wrong_N)
        return RiskCoverage(tuple(curve.coverage.tolist()), tuple(curve.error.tolist()), curve.area)

    def note(self, _found: RiskCoverage) -> Note:
        return "Mean error over all coverages (AURC) ", Cell("area", "percent"), " %."

    def limits(self, found: RiskCoverage) -> Iterable[str]:
        nearest = min(range(len(found.coverage)), key=lambda i: abs(found.coverage[i] - ANSWERED))
        yield (
            f"Without the {percent(1 - found.coverage[nearest], 0)} % of the test images it is least certain of, the error is "
            f"{percent(found.error[nearest])} %."
        )
