"""The leaderboard: every vote and every member on one scale, with its interval and its test against the single model.

The reference of all tests is the member that validation picks, because that is the single model anybody could have
had without an ensemble. The member that happens to be best on test is shown too, but as what it is: an oracle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ensemble.evaluation.aggregation import Decision, decide_scores
from ensemble.evaluation.balance import balanced_error
from ensemble.evaluation.calibration import confidence_of, equal_width_bins, expected_calibration_error
from ensemble.evaluation.label_review import ReviewedLabels
from ensemble.evaluation.metrics import brier_score, error_rate, vote_log_loss
from ensemble.evaluation.record_base import parameters_of
from ensemble.evaluation.records import Kind, LeaderboardRow, MemberFacts
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.statistics import holm, mcnemar_exact, mean_interval, wilson_interval
from ensemble.types import IntArray

NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Judge:
    """What all lines are judged by: the labels, and what the reference member gets wrong on test."""

    validation_labels: IntArray
    test_labels: IntArray
    reference_wrong_N: npt.NDArray[np.bool_]
    review: ReviewedLabels | None

    def row(
        self,
        kind: Kind,
        name: str,
        validation: Decision,
        test: Decision,
        members: Sequence[MemberFacts],
        *,
        tested: bool = True,
        seconds: float | None = None,
        note: str = "",
    ) -> LeaderboardRow:
        """One line. members: those that must predict. tested: whether a p-value makes sense.

        seconds: what was spent on it, where that is more than the training of `members`.
        """
        labels = self.test_labels
        wrong_N = test.classes_N != labels
        wrong = int(wrong_N.sum())
        interval = wilson_interval(wrong, len(labels))
        only_this = int((wrong_N & ~self.reference_wrong_N).sum())
        only_best = int((~wrong_N & self.reference_wrong_N).sum())
        bins = equal_width_bins(confidence_of(test.probs_NK, test.classes_N), ~wrong_N)
        single = kind in ("best_member", "member", "oracle")
        return LeaderboardRow(
            kind=kind,
            name=name,
            headline=False,
            member=members[0].index if single else None,
            test_error=wrong / len(labels),
            wrong=wrong,
            lower=interval.lower,
            upper=interval.upper,
            validation_error=error_rate(validation.classes_N, self.validation_labels),
            nll=vote_log_loss(test, labels),
            brier=brier_score(test.probs_NK, labels),
            ece=expected_calibration_error(bins),
            num_parameters=parameters_of(members),
            train_seconds=float(sum(member.train_seconds for member in members) if seconds is None else seconds),
            p_value=mcnemar_exact(only_this, only_best) if tested else NAN,
            p_holm=NAN,
            only_this_wrong=only_this,
            only_best_wrong=only_best,
            ties=test.ties,
            reviewed_error=NAN if self.review is None else self.review.error(test.classes_N),
            note=note,
            balanced_error=balanced_error(test.classes_N, labels),
        )


def member_rows(
    judge: Judge, validation: SplitVotes, test: SplitVotes, members: Sequence[MemberFacts], reference: int
) -> list[LeaderboardRow]:
    """The best member by validation, the mean member, every member, and the oracle, in this order."""
    rows = []
    for m, facts in enumerate(members):
        before, after = (decide_scores(split.probs_MNK[m].astype(np.float64)) for split in (validation, test))
        name = f"member {facts.index} ({facts.recipe})"
        rows.append(judge.row("member", name, before, after, [facts], tested=m != reference))
    index = members[reference].index
    best = replace(
        rows[reference], kind="best_member", name=f"best member by validation (member {index})", note="the reference"
    )
    luckiest = min(rows, key=lambda row: (row.test_error, row.nll))
    oracle = replace(
        luckiest,
        kind="oracle",
        name=f"oracle (picked on test): member {luckiest.member}",
        p_value=NAN,
        note="picked by its test labels: nobody could have chosen it beforehand",
    )
    return [best, mean_row(rows), *rows, oracle]


def mean_row(rows: Sequence[LeaderboardRow]) -> LeaderboardRow:
    """The mean member; its interval is Student's t over at least three members, so it is about members like these."""

    def mean(column: str) -> float:
        return float(np.mean([getattr(row, column) for row in rows]))

    interval = mean_interval([row.test_error for row in rows])
    return LeaderboardRow(
        kind="mean_member",
        name="mean member",
        headline=False,
        member=None,
        test_error=mean("test_error"),
        wrong=mean("wrong"),
        lower=interval.lower,
        upper=interval.upper,
        validation_error=mean("validation_error"),
        nll=mean("nll"),
        brier=mean("brier"),
        ece=mean("ece"),
        num_parameters=mean("num_parameters"),
        train_seconds=mean("train_seconds"),
        p_value=NAN,
        p_holm=NAN,
        only_this_wrong=None,
        only_best_wrong=None,
        ties=None,
        reviewed_error=mean("reviewed_error"),
        note="no interval: it takes three members whose errors differ"
        if math.isnan(interval.lower)
        else "interval: Student's t over the members",
        balanced_error=mean("balanced_error"),
    )


def adjust_p_values(rows: Sequence[LeaderboardRow]) -> tuple[LeaderboardRow, ...]:
    """Fill in p_holm: one family of all tested lines but the headline, whose single test was planned."""
    adjusted = holm([NAN if row.headline else row.p_value for row in rows])
    return tuple(
        replace(row, p_holm=row.p_value if row.headline else float(p)) for row, p in zip(rows, adjusted, strict=True)
    )
