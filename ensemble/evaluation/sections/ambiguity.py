"""By how much the vote's losses are below the members' mean ones, and why (`decomposition`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ensemble.evaluation.decomposition import brier_ambiguity, log_ambiguity, mean_log_gain
from ensemble.evaluation.record_base import Record
from ensemble.evaluation.section import EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.views import Cell, SectionTable

LOSSES = {
    "brier": "Brier score, mean probability",
    "log_geometric": "log loss, geometric mean",
    "log_mean": "log loss, mean probability",
}


@dataclass(frozen=True)
class Ambiguity(Record):
    """combined = members - ambiguity, for one loss and one way of combining, on test with equal weights."""

    loss: Literal["brier", "log_geometric", "log_mean"]
    combined: float
    members: float
    ambiguity: float


@register_section
class AmbiguitySection(EvaluationSection[tuple[Ambiguity, ...]]):
    name, title, record = "ambiguity", "What voting gains", tuple[Ambiguity, ...]
    beside = True

    def compute(self, votes: JudgedVotes, _chosen: Any) -> tuple[Ambiguity, ...]:
        """The two identities, and the log loss of the mean for comparison."""
        probs_MNK, labels_N = votes.test.probs_MNK, votes.test.labels_N
        return (
            Ambiguity("brier", *brier_ambiguity(probs_MNK, labels_N)),
            Ambiguity("log_geometric", *log_ambiguity(probs_MNK, labels_N)),
            Ambiguity("log_mean", *mean_log_gain(probs_MNK, labels_N)),
        )

    def table(self, found: tuple[Ambiguity, ...]) -> SectionTable:
        rows: tuple[tuple[str | Cell, ...], ...] = tuple(
            (LOSSES[one.loss], *(Cell(f"{i}.{key}") for key in ("members", "ambiguity", "combined")))
            for i, one in enumerate(found)
        )
        columns = ("loss", "mean member", "ambiguity", "combined")
        return SectionTable(columns, rows, self.title, "Combined = mean member - ambiguity, with equal weights.")
