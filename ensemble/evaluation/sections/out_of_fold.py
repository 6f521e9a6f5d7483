"""The error on training rows, each judged by exactly the members whose fold it is in (`methods/cross_validation.py`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.evaluation.aggregation import decide_scores
from ensemble.evaluation.out_of_bag import OutOfBag, out_of_bag_vote
from ensemble.evaluation.record_base import NAN, Number, Record
from ensemble.evaluation.section import About, EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.statistics import wilson_interval
from ensemble.evaluation.views import Cell, Note, SectionTable
from ensemble.evaluation.written import percent, percent_interval, plural


@dataclass(frozen=True)
class FoldError(Record):
    """One member's error on the fold that it left out."""

    member: int
    rows: int
    wrong: int
    error: Number
    lower: Number
    upper: Number


@dataclass(frozen=True)
class OutOfFoldResult(Record):
    """Error of the out-of-fold vote on training rows, and of every member on its own fold.

    without_vote: rows whose members did not finish; they count neither as right nor as wrong. mean_error, lowest, highest: over the
    members' own errors. chose: the epochs of the members were chosen by the same rows.
    """

    error: Number
    wrong: int
    rows: int
    without_vote: int
    lower: Number
    upper: Number
    mean_voters: Number
    mean_error: Number
    lowest: Number
    highest: Number
    chose: bool
    members: tuple[FoldError, ...]


@register_section
class OutOfFoldSection(EvaluationSection[OutOfFoldResult]):
    name, title, record = "out_of_fold", "Out of fold", OutOfFoldResult

    def compute(self, votes: JudgedVotes, _chosen: Any) -> OutOfFoldResult | None:
        if votes.out_of_bag is None or not votes.out_of_bag.folds:
            return None
        return out_of_fold_result(votes.out_of_bag, [m.index for m in votes.members], votes.test.num_classes)

    def lines(self, found: OutOfFoldResult, _about: About) -> Iterable[str]:
        voters = "member" if found.mean_voters == 1 else f"{found.mean_voters:.1f} members".replace(".0 ", " ")
        yield (
            f"Out of fold: error {percent(found.error)} % (95 % interval {percent_interval(found.lower, found.upper)}), "
            f"{found.wrong:,} wrong of {found.rows:,} training rows, each judged by the {voters} that did not train on it; "
            f"single folds from {percent(found.lowest)} to {percent(found.highest)} %, mean {percent(found.mean_error)} %."
        )
        if found.without_vote:
            yield f"{plural(found.without_vote, 'training row')} have no out-of-fold vote, since the members of their fold did not finish."
        if found.chose:
            yield "Out-of-fold errors are a little too small: validation by the same rows had a part in training (training.keep, or the schedule plateau)."

    def numbers(self, found: OutOfFoldResult) -> Mapping[str, float]:
        return {
            "error": found.error, "lower": found.lower, "upper": found.upper, "lowest": found.lowest, "highest": found.highest,
        }  # fmt: skip

    def note(self, _found: OutOfFoldResult) -> Note:
        return (
            "Out of fold: ", Cell("error", "percent"), " % (95 % interval ", Cell("lower", "percent"), " to ", Cell("upper", "percent"),
            " %), ", Cell("wrong", "count"), " wrong of ", Cell("rows", "count"), " training images, each judged by exactly the members that did not "
            "train on it (", Cell("mean_voters", "one_digit"), " on average).",
        )  # fmt: skip

    def table(self, found: OutOfFoldResult) -> SectionTable:
        rows = tuple(
            (
                str(one.member), Cell(f"members.{i}.rows", "count"), Cell(f"members.{i}.wrong", "count"),
                Cell(f"members.{i}.error", "percent"), Cell(f"members.{i}.lower", "percent"), Cell(f"members.{i}.upper", "percent"),
            )
            for i, one in enumerate(found.members)
        )  # fmt: skip
        columns = ("member", "rows of its fold", "wrong", "error %", "from %", "to %")
        return SectionTable(columns, rows, "Each member on the fold that it left out", "Wilson intervals of 95 %.")

    def card_rows(self, found: OutOfFoldResult) -> Iterable[tuple[str, str]]:
        yield "out-of-fold error %", f"{percent(found.error)} ({percent_interval(found.lower, found.upper)})"


def out_of_fold_result(folds: OutOfBag, members: list[int], num_classes: int) -> OutOfFoldResult:
    """Error of the out-of-fold vote, on the rows that have one. members: indices, in the order of the votes."""
    vote = out_of_bag_vote(folds, num_classes)
    wrong, rows = int((vote.classes_R != folds.labels[vote.rows]).sum()), len(vote.rows)
    interval = wilson_interval(wrong, rows)
    each = tuple(_of_member(folds, m, index) for m, index in enumerate(members))
    errors = [one.error for one in each if not math.isnan(one.error)]
    return OutOfFoldResult(
        error=wrong / rows if rows else NAN,
        wrong=wrong,
        rows=rows,
        without_vote=vote.never_out,
        lower=interval.lower,
        upper=interval.upper,
        mean_voters=float(vote.voters_R.mean()) if rows else NAN,
        mean_error=float(np.mean(errors)) if errors else NAN,
        lowest=min(errors, default=NAN),
        highest=max(errors, default=NAN),
        chose=folds.chose,
        members=each,
    )


def _of_member(folds: OutOfBag, m: int, index: int) -> FoldError:
    """NaN for a member with votes that are no numbers, which does not vote."""
    rows, probs_RK = folds.rows[m], folds.probs[m]
    if not len(rows) or not np.isfinite(probs_RK).all():
        return FoldError(index, len(rows), 0, NAN, NAN, NAN)
    wrong = int((decide_scores(probs_RK.astype(np.float64)).classes_N != folds.labels[rows]).sum())
    interval = wilson_interval(wrong, len(rows))
    return FoldError(index, len(rows), wrong, wrong / len(rows), interval.lower, interval.upper)
