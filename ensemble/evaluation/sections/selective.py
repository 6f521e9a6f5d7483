"""Answering only the most certain test images: the curve with its band, thresholds promised on other rows, and the single model beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ensemble.evaluation.calibration import confidence_of
from ensemble.evaluation.paper_table import PaperTable, records_csv
from ensemble.evaluation.promise import Promise, choose_empirical_threshold, choose_guaranteed_threshold, kept
from ensemble.evaluation.record_base import NAN, Number, Record
from ensemble.evaluation.section import About, EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.selective import (
    augrc,
    aurc,
    coverage_at_risk,
    excess_aurc,
    paired_aurc_difference,
    risk_band,
)
from ensemble.evaluation.set_votes import HowToVote, wrong_of
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.written import loss, percent, percent_interval, points
from ensemble.types import DoubleArray

RISKS = (0.01, 0.001)  # errors among the answered that are promised
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))


@dataclass(frozen=True)
class PromiseResult(Record):
    """A threshold of the vote's confidence, chosen on other rows, and what came of it on test.

    kind: guaranteed holds with probability 1 - delta, empirical is what was seen there. outcome: kept, broken, cannot be told, or
    nothing promised. rows: how many chose it. risk: error
    promised among the answered. promised_coverage, seen_risk: on the rows that chose. threshold: NaN where nothing can be promised.
    coverage, test_risk: on test, with Wilson's intervals.
    """

    kind: str
    chosen_on: str
    rows: int
    risk: float
    delta: Number
    threshold: Number
    promised_coverage: float
    seen_risk: Number
    answered: int
    coverage: float
    coverage_lower: float
    coverage_upper: float
    test_risk: Number
    test_risk_lower: Number
    test_risk_upper: Number
    outcome: str


@dataclass(frozen=True)
class Selective(Record):
    """Answering only the most certain test images. difference = aurc - member_aurc, with a paired bootstrap interval.

    coverage_at_1: the largest share answered with an error of at most 1 %. coverage, error, band_lower, band_upper: points of the
    curve with a pointwise bootstrap band.
    """

    aurc: float
    excess_aurc: float
    augrc: float
    coverage_at_1: float
    member_aurc: float
    member_augrc: float
    member_coverage_at_1: float
    difference: float
    difference_lower: float
    difference_upper: float
    p_value: float
    coverage: tuple[float, ...]
    error: tuple[float, ...]
    band_lower: tuple[float, ...]
    band_upper: tuple[float, ...]
    promises: tuple[PromiseResult, ...]


@register_section
class SelectiveSection(EvaluationSection[Selective]):
    name, title, record = "selective", "When to be silent", Selective
    chooses_on = "calibration"
    beside = True

    def choose(self, choosing: SplitVotes) -> SplitVotes:
        """The rows themselves: a threshold is one of the vote, which only `compute` is handed."""
        return choosing

    def compute(self, votes: JudgedVotes, chosen: SplitVotes) -> Selective:
        return selective(chosen, votes.test, votes.how, votes.seed)

    def lines(self, found: Selective, about: About) -> Iterable[str]:
        several = about.members > 1
        beside = (
            f", the single model {loss(100 * found.member_aurc)} % (difference {points(found.difference)} points, 95 % bootstrap interval "
            f"{points(found.difference_lower)} to {points(found.difference_upper)})"
            if several
            else ""
        )
        yield (
            f"Selective prediction: mean error over all coverages (AURC) {loss(100 * found.aurc)} %{beside}; with at most 1 % of error "
            f"{percent(found.coverage_at_1)} % of the test images are answered"
            + (f", {percent(found.member_coverage_at_1)} % by the single model." if several else ".")
        )
        yield from self.limits(found)

    def limits(self, found: Selective) -> Iterable[str]:
        return [promise_sentence(one) for one in found.promises if one.kind == "guaranteed"]

    def paper_tables(self, found: Selective) -> Iterable[PaperTable]:
        rows = [
            (
                one.kind, percent(one.risk), loss(one.threshold), percent(one.coverage),
                percent(one.test_risk), percent_interval(one.test_risk_lower, one.test_risk_upper), one.outcome,
            )
            for one in found.promises
        ]  # fmt: skip
        yield PaperTable(
            "promises", "Thresholds of confidence chosen on other images, and the error among the answered test images.",
            ("threshold", "promised %", "confidence", "answered %", "wrong of these %", "95 % int.", "promise"), tuple(rows),
            records_csv(PromiseResult, found.promises),
        )  # fmt: skip


def selective(choosing: SplitVotes, test: SplitVotes, how: HowToVote, seed: int = 0) -> Selective:
    """The vote's confidence as a reason to answer or not.

    choosing: the rows that thresholds are chosen on, calibration or validation. Raises PeekingError for test votes there.
    """
    vote, member = how.vote(test.probs_MNK), how.member(test.probs_MNK)
    confidence_N, wrong_N = confidence_of(vote.probs_NK, vote.classes_N), wrong_of(vote, test.labels_N)
    own_N, own_wrong_N = confidence_of(member.probs_NK, member.classes_N), wrong_of(member, test.labels_N)
    band = risk_band(confidence_N, wrong_N, COVERAGES, seed)
    paired = paired_aurc_difference(confidence_N, wrong_N, own_N, own_wrong_N, seed)
    return Selective(
        aurc=aurc(confidence_N, wrong_N),
        excess_aurc=excess_aurc(confidence_N, wrong_N),
        augrc=augrc(confidence_N, wrong_N),
        coverage_at_1=coverage_at_risk(confidence_N, wrong_N, 0.01),
        member_aurc=aurc(own_N, own_wrong_N),
        member_augrc=augrc(own_N, own_wrong_N),
        member_coverage_at_1=coverage_at_risk(own_N, own_wrong_N, 0.01),
        difference=paired.difference,
        difference_lower=paired.lower,
        difference_upper=paired.upper,
        p_value=paired.p_value,
        coverage=tuple(band.coverage_C.tolist()),
        error=tuple(band.risk_C.tolist()),
        band_lower=tuple(band.lower_C.tolist()),
        band_upper=tuple(band.upper_C.tolist()),
        promises=promises(choosing, how, confidence_N, wrong_N),
    )


def promises(
    choosing: SplitVotes, how: HowToVote, confidence_N: DoubleArray, wrong_N: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> tuple[PromiseResult, ...]:
    """For every risk the guaranteed threshold and the empirical one. confidence_N, wrong_N: of the vote on test."""
    vote = how.vote(choosing.probs_MNK)
    given = choosing, vote.classes_N, confidence_of(vote.probs_NK, vote.classes_N)
    found = []
    for risk in RISKS:
        for promise in (choose_guaranteed_threshold(*given, risk), choose_empirical_threshold(*given, risk)):
            found.append(_result(promise, choosing, confidence_N, wrong_N))
    return tuple(found)


def _result(
    promise: Promise,
    choosing: SplitVotes,
    confidence_N: DoubleArray,
    wrong_N: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> PromiseResult:
    on_test = kept(promise, confidence_N, wrong_N)
    return PromiseResult(
        kind="guaranteed" if promise.guaranteed else "empirical",
        chosen_on=choosing.split,
        rows=choosing.num_rows,
        risk=promise.risk,
        delta=promise.delta,
        threshold=promise.threshold if math.isfinite(promise.threshold) else NAN,
        promised_coverage=promise.coverage,
        seen_risk=promise.observed,
        answered=on_test.answered,
        coverage=on_test.coverage,
        coverage_lower=on_test.coverage_interval.lower,
        coverage_upper=on_test.coverage_interval.upper,
        test_risk=on_test.risk,
        test_risk_lower=on_test.risk_interval.lower,
        test_risk_upper=on_test.risk_interval.upper,
        outcome=on_test.outcome if math.isfinite(promise.threshold) else "nothing promised",
    )


def promise_sentence(promise: PromiseResult) -> str:
    """What was promised of a threshold, and what came of it on test."""
    risk = percent(promise.risk, 1)
    where = f"{promise.rows:,} {promise.chosen_on} images"
    if math.isnan(promise.threshold):
        return (
            f"An error of at most {risk} % cannot be promised from {where}: more images are needed, or a better vote."
        )
    how = f"with probability {percent(1 - promise.delta, 0)} %, " if promise.kind == "guaranteed" else "as seen there, "
    if promise.outcome == "cannot be told":
        outcome = "the test images cannot tell whether it is kept"
    else:
        outcome = f"the promise is {promise.outcome}"
    return (
        f"Promised from {where} ({how}answered from a confidence of {promise.threshold:.4f} on): an error of at most {risk} %. On test "
        f"{percent(promise.coverage)} % are answered with an error of {percent(promise.test_risk)} % "
        f"({percent_interval(promise.test_risk_lower, promise.test_risk_upper)}); {outcome}."
    )
