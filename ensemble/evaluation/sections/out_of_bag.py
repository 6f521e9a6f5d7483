"""The vote's error on training rows, each judged only by members that were not fitted to it (`out_of_bag`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ensemble.evaluation.out_of_bag import OutOfBag, out_of_bag_vote
from ensemble.evaluation.record_base import NAN, Number, Record
from ensemble.evaluation.section import About, EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.statistics import wilson_interval
from ensemble.evaluation.views import Cell, Note
from ensemble.evaluation.written import percent, percent_interval, plural


@dataclass(frozen=True)
class OutOfBagResult(Record):
    """Error on training rows, each judged only by members that did not train on it.

    never_out: rows in every bag; they have no such vote and count neither as right nor as wrong.
    """

    error: Number
    wrong: int
    rows: int
    never_out: int
    coverage: Number
    lower: Number
    upper: Number
    mean_voters: Number


@register_section
class OutOfBagSection(EvaluationSection[OutOfBagResult]):
    name, title, record = "out_of_bag", "Out of bag", OutOfBagResult

    def compute(self, votes: JudgedVotes, _chosen: Any) -> OutOfBagResult | None:
        if votes.out_of_bag is None or votes.out_of_bag.folds:  # which have a section of their own
            return None
        return out_of_bag_result(votes.out_of_bag, votes.test.num_classes)

    def lines(self, found: OutOfBagResult, _about: About) -> Iterable[str]:
        never = f", {plural(found.never_out, 'row')} never out of bag left out" if found.never_out else ""
        yield (
            f"Out of bag: error {percent(found.error)} % (95 % interval {percent_interval(found.lower, found.upper)}), "
            f"{found.wrong:,} wrong of {found.rows:,} training rows, {found.mean_voters:.1f} voters each{never}."
        )

    def note(self, _found: OutOfBagResult) -> Note:
        return (
            "Out of bag: ", Cell("wrong", "count"), " wrong of ", Cell("rows", "count"),
            " training images, each judged only by members that did not train on it (", Cell("mean_voters", "one_digit"),
            " on average); ", Cell("never_out", "count"), " images were in every bag and count neither way.",
        )  # fmt: skip

    def card_rows(self, found: OutOfBagResult) -> Iterable[tuple[str, str]]:
        yield "out-of-bag error %", percent(found.error)


def out_of_bag_result(bags: OutOfBag, num_classes: int) -> OutOfBagResult:
    """Error of the out-of-bag vote, on the rows that have one."""
    vote = out_of_bag_vote(bags, num_classes)
    rows = len(vote.rows)
    wrong = int((vote.classes_R != bags.labels[vote.rows]).sum())
    return OutOfBagResult(
        error=wrong / rows if rows else NAN,
        wrong=wrong,
        rows=rows,
        never_out=vote.never_out,
        coverage=rows / len(bags.pool) if len(bags.pool) else NAN,
        lower=wilson_interval(wrong, rows).lower,
        upper=wilson_interval(wrong, rows).upper,
        mean_voters=float(vote.voters_R.mean()) if rows else NAN,
    )
