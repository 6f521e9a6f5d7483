"""Selective prediction as a part of the judgement: the curve with its band, promises made on other rows, and the single model beside it."""

from __future__ import annotations

import math

import numpy as np

from ensemble.evaluation.calibration import confidence_of
from ensemble.evaluation.promise import Promise, choose_empirical_threshold, choose_guaranteed_threshold, kept
from ensemble.evaluation.record_base import NAN
from ensemble.evaluation.selective import (
    augrc,
    aurc,
    coverage_at_risk,
    excess_aurc,
    paired_aurc_difference,
    risk_band,
)
from ensemble.evaluation.set_records import PromiseResult, Selective
from ensemble.evaluation.set_votes import HowToVote, wrong_of
from ensemble.evaluation.splits import SplitVotes
from ensemble.types import DoubleArray

RISKS = (0.01, 0.001)  # errors among the answered that are promised
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))


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
