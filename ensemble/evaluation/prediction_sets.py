"""Prediction sets as a part of the judgement: calibrated on rows that nothing else was chosen by, and looked at on test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ensemble.errors import PeekingError
from ensemble.evaluation.conformal import Method, Rule, calibrate
from ensemble.evaluation.conformal_sets import caution, describe, promised_band
from ensemble.evaluation.record_base import NAN
from ensemble.evaluation.set_records import ClassCoverage, Conformal, SetRule
from ensemble.evaluation.set_votes import HowToVote
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.statistics import wilson_interval
from ensemble.evaluation.written import percent

ALPHAS = (0.1, 0.05, 0.01)
METHODS: tuple[Method, ...] = ("lac", "aps", "raps")


def rule_of(method: Method, calibration: SplitVotes, alpha: float) -> Rule:
    """The rule of one method, the adaptive ones in their randomised form. calibration: the combined vote as a single member.

    Raises PeekingError for rows that have been used for anything else: validation rows have chosen members, weights or epochs.
    """
    if calibration.split != "calibration":
        raise PeekingError(
            f"{calibration.split} votes were handed to conformal calibration, whose promise holds for rows that nothing else was "
            "chosen by; expected calibration votes (data.calibration_fraction)"
        )
    return calibrate(method, calibration, alpha, randomised=method != "lac")


def prediction_sets(calibration: SplitVotes, test: SplitVotes, how: HowToVote, class_names: Sequence[str]) -> Conformal:
    """Every method at every level. Raises PeekingError for rows that are not of calibration."""
    vote, known = how.vote(test.probs_MNK), how.vote(calibration.probs_MNK)
    combined = SplitVotes(calibration.split, known.probs_NK[None], calibration.labels_N)
    images_K = np.bincount(test.labels_N, minlength=len(class_names))
    of_classes: list[ClassCoverage] = []

    def judged(method: Method, alpha: float) -> SetRule:
        rule = rule_of(method, combined, alpha)
        raw_NK = rule.sets(vote.probs_NK)
        found = describe(raw_NK, test.labels_N, vote.classes_N, alpha)
        band = promised_band(rule.rows, alpha, test.num_rows)
        for k in np.flatnonzero(images_K).tolist():
            images, coverage = int(images_K[k]), float(found.class_coverage_K[k])
            interval = wilson_interval(round(coverage * images), images)
            of_classes.append(
                ClassCoverage(
                    method.upper(), 1 - alpha, class_names[k], images, coverage, *interval, float(found.class_size_K[k])
                )
            )
        return SetRule(
            method=method.upper(),
            alpha=alpha,
            promised=1 - alpha,
            threshold=rule.threshold if math.isfinite(rule.threshold) else NAN,
            coverage=found.coverage,
            lower=found.interval.lower,
            upper=found.interval.upper,
            raw_coverage=found.raw_coverage,
            band_lower=band.lower,
            band_upper=band.upper,
            mean_size=found.mean_size,
            median_size=found.median_size,
            empty=found.empty,
            single=found.single,
            whole=found.all_classes,
            class_gap=found.class_gap,
            worst_class=float(np.nanmin(found.class_coverage_K)),
            size_violation=found.size_violation,
        )

    right = float((known.classes_N == calibration.labels_N).mean())
    rules = tuple(judged(method, alpha) for alpha in ALPHAS for method in METHODS)
    return Conformal(
        rows=calibration.num_rows,
        rules=rules,
        cautions=_cautions(right, calibration.num_rows),
        classes=tuple(of_classes),
    )


def _cautions(right: float, rows: int) -> tuple[str, ...]:
    """Where sets say less than they seem to. right: accuracy of the vote on calibration rows."""
    exceeded = [alpha for alpha in ALPHAS if right > 1 - alpha]
    found = [sentence for alpha in exceeded[-1:] if (sentence := caution(right, alpha)) is not None]
    if few := [alpha for alpha in ALPHAS if (rows + 1) * alpha < 1]:
        levels = " and ".join(f"{percent(1 - alpha, 0)} %" for alpha in few)
        found.append(f"{rows:,} calibration images are too few to promise {levels}: those sets hold every class.")
    return tuple(found)
