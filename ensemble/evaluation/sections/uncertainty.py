"""How much the vote doubts, and whether because each member does or because they differ (`decomposition`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ensemble.evaluation.record_base import NAN, Number, Record
from ensemble.evaluation.section import EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.views import Cell, SectionTable

PARTS = {
    "total": "total", "aleatoric": "aleatoric: the members doubt", "epistemic": "epistemic: the members differ",
    "epistemic_right": "epistemic where the vote is right", "epistemic_wrong": "epistemic where it is wrong",
}  # fmt: skip


@dataclass(frozen=True)
class Uncertainty(Record):
    """Mean doubt per test row in nats: total = aleatoric + epistemic; and the epistemic part of right and wrong rows."""

    total: float
    aleatoric: float
    epistemic: float
    epistemic_right: Number
    epistemic_wrong: Number


@register_section
class UncertaintySection(EvaluationSection[Uncertainty]):
    name, title, record = "uncertainty", "Doubt per image, nats", Uncertainty

    def compute(self, votes: JudgedVotes, _chosen: Any) -> Uncertainty:
        """Means over the rows, and the epistemic part where the vote is right and where it is wrong."""
        terms, right_N = votes.doubt, votes.vote.classes_N == votes.test.labels_N
        return Uncertainty(
            total=float(terms.total_N.mean()),
            aleatoric=float(terms.aleatoric_N.mean()),
            epistemic=float(terms.epistemic_N.mean()),
            epistemic_right=float(terms.epistemic_N[right_N].mean()) if right_N.any() else NAN,
            epistemic_wrong=float(terms.epistemic_N[~right_N].mean()) if not right_N.all() else NAN,
        )

    def table(self, _found: Uncertainty) -> SectionTable:
        return SectionTable((), tuple((words, Cell(key)) for key, words in PARTS.items()), self.title)
