"""The headline vote against labels that people looked at again (`label_review`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ensemble.evaluation.label_review import RULE, reviewed_labels
from ensemble.evaluation.record_base import Record
from ensemble.evaluation.section import About, EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.statistics import wilson_interval
from ensemble.evaluation.views import Cell, Note
from ensemble.evaluation.written import percent, percent_interval


@dataclass(frozen=True)
class LabelReview(Record):
    """The headline against labels that people checked again. The rule says what was counted; the source who checked."""

    source: str
    rule: str
    corrected: int
    left_out: int
    rows: int
    wrong: int
    error: float
    lower: float
    upper: float
    wrong_on_doubted: int


@register_section
class LabelReviewSection(EvaluationSection[LabelReview]):
    name, title, record = "label_review", "Reviewed labels", LabelReview

    def compute(self, votes: JudgedVotes, _chosen: Any) -> LabelReview | None:
        """The vote against the reviewed labels, and how many doubted images it gets "wrong" by the given ones."""
        review = reviewed_labels(votes.dataset, votes.test.labels_N)
        if review is None:
            return None
        wrong, rows = review.wrong(votes.vote.classes_N), int(review.counted_N.sum())
        return LabelReview(
            source=review.source,
            rule=RULE,
            corrected=review.corrected,
            left_out=review.left_out,
            rows=rows,
            wrong=wrong,
            error=wrong / rows,
            lower=wilson_interval(wrong, rows).lower,
            upper=wilson_interval(wrong, rows).upper,
            wrong_on_doubted=int(votes.wrong_N[review.doubted].sum()),
        )

    def lines(self, found: LabelReview, _about: About) -> Iterable[str]:
        yield (
            f"Reviewed labels: error {percent(found.error)} % "
            f"(95 % interval {percent_interval(found.lower, found.upper)}), {found.wrong:,} wrong of {found.rows:,}; "
            f"{found.corrected} labels corrected, {found.left_out} images left out as unclear, "
            f"{found.wrong_on_doubted} of the errors by the given labels are on doubted ones."
        )

    def note(self, found: LabelReview) -> Note:
        return (
            "Reviewed labels: ", Cell("wrong", "count"), " wrong of ", Cell("rows", "count"), "; ",
            Cell("wrong_on_doubted", "count"),
            f" of the errors by the given labels are on doubted ones. Rule: {found.rule}. Source: {found.source}.",
        )  # fmt: skip

    def card_rows(self, found: LabelReview) -> Iterable[tuple[str, str]]:
        yield "test error % on reviewed labels", percent(found.error)
