"""The headline vote by true class: its confusions, its error on each class, and the mean over classes of unequal size (`balance`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble.evaluation.balance import balanced_error, difference_interval
from ensemble.evaluation.metrics import class_errors
from ensemble.evaluation.paper_table import PaperTable, records_csv
from ensemble.evaluation.record_base import Number, Record
from ensemble.evaluation.section import EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.statistics import wilson_interval
from ensemble.evaluation.written import percent, percent_interval
from ensemble.outside.names import shown
from ensemble.types import IntArray

Confusion = tuple[tuple[int, ...], ...]  # test rows by true class and vote


@dataclass(frozen=True)
class ClassResult(Record):
    """The headline vote on the test rows of one true class."""

    name: str
    rows: int
    wrong: int
    error: Number
    lower: Number
    upper: Number


@dataclass(frozen=True)
class Balance(Record):
    """Balanced errors (means over the classes) on test of the headline vote and of the member that validation picks.

    difference = vote - member, its interval by a bootstrap within each class (NaN where the two err alike). classes: those with rows; largest and smallest:
    rows of those; worst: the class with the highest error of the vote.
    """

    vote_error: float
    member_error: float
    difference: float
    difference_lower: Number
    difference_upper: Number
    classes: int
    largest: int
    smallest: int
    worst: str


@register_section
class ConfusionSection(EvaluationSection[Confusion]):
    name, title, record = "confusion", "Confusion", Confusion

    def compute(self, votes: JudgedVotes, _chosen: Any) -> Confusion:
        return tuple(tuple(row) for row in votes.confusion_KK.tolist())


@register_section
class ClassesSection(EvaluationSection[tuple[ClassResult, ...]]):
    name, title, record = "classes", "Classes", tuple[ClassResult, ...]

    def compute(self, votes: JudgedVotes, _chosen: Any) -> tuple[ClassResult, ...]:
        return class_results(votes.confusion_KK, votes.class_names)

    def limits(self, found: tuple[ClassResult, ...]) -> Iterable[str]:
        worst = max((one for one in found if one.rows), key=lambda one: (one.error, -one.rows))
        yield f"Weakest class: {shown(worst.name)}, {percent(worst.error)} % wrong of {worst.rows:,} test images."

    def paper_tables(self, found: tuple[ClassResult, ...]) -> Iterable[PaperTable]:
        rows = [
            (one.name, f"{one.rows:,}", f"{one.wrong:,}", percent(one.error), percent_interval(one.lower, one.upper))
            for one in found
        ]
        yield PaperTable(
            "classes", "Test error of the vote by class.", ("class", "images", "wrong", "error %", "95 % int."),
            tuple(rows), records_csv(ClassResult, found),
        )  # fmt: skip


@register_section
class BalanceSection(EvaluationSection[Balance]):
    name, title, record = "balance", "Classes of unequal size", Balance

    def compute(self, votes: JudgedVotes, _chosen: Any) -> Balance:
        classes = class_results(votes.confusion_KK, votes.class_names)
        member = votes.how.member(votes.test.probs_MNK)
        return balance_of(votes.vote.classes_N, member.classes_N, votes.test.labels_N, classes, votes.seed)


def class_results(confusion_KK: IntArray, class_names: Sequence[str]) -> tuple[ClassResult, ...]:
    """Error and interval per true class."""
    results = []
    for k, (name, error) in enumerate(zip(class_names, class_errors(confusion_KK), strict=True)):
        rows = int(confusion_KK[k].sum())
        wrong = rows - int(confusion_KK[k, k])
        results.append(ClassResult(name, rows, wrong, float(error), *wilson_interval(wrong, rows)))
    return tuple(results)


def balance_of(
    classes_N: IntArray, reference_N: IntArray, labels_N: IntArray, classes: Sequence[ClassResult], seed: int
) -> Balance:
    """The headline's classes and the reference member's on the test rows; classes: the headline's results per class."""
    vote, member = balanced_error(classes_N, labels_N), balanced_error(reference_N, labels_N)
    present = [result for result in classes if result.rows]
    worst = max(present, key=lambda result: (result.error, result.wrong))
    return Balance(
        vote, member, vote - member, *difference_interval(classes_N, reference_N, labels_N, seed), len(present),
        max(result.rows for result in present), min(result.rows for result in present), worst.name,
    )  # fmt: skip
