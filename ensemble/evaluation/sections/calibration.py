"""Does the headline vote's confidence come true? Two binned errors, one without bins, one over the classes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ensemble.evaluation.calibration import (
    Bins,
    confidence_of,
    equal_mass_bins,
    equal_width_bins,
    expected_calibration_error,
)
from ensemble.evaluation.record_base import NAN, Number, Record
from ensemble.evaluation.section import About, EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.smooth_calibration import class_wise_ece, smooth_ece, smooth_ece_interval
from ensemble.evaluation.views import Cell, Curve, Note, SectionFigure
from ensemble.evaluation.written import loss, percent, percent_interval


@dataclass(frozen=True)
class ReliabilityBin(Record):
    lower: float
    upper: float
    count: int
    confidence: Number
    accuracy: Number


@dataclass(frozen=True)
class Calibration(Record):
    """The headline's top-label calibration on test. Bins are (lower, upper]; equal_mass ones have quantiles as edges.

    smooth_ece: the error that needs no bins (`smooth_calibration`), with a bootstrap interval; class_wise_ece: the mean over the
    classes of the error of each class's probability. NaN in judgements of earlier versions.
    """

    ece_equal_width: float
    ece_equal_mass: float
    equal_width: tuple[ReliabilityBin, ...]
    equal_mass: tuple[ReliabilityBin, ...]
    smooth_ece: Number = NAN
    smooth_lower: Number = NAN
    smooth_upper: Number = NAN
    class_wise_ece: Number = NAN


@register_section
class CalibrationSection(EvaluationSection[Calibration]):
    name, title, record = "calibration", "Calibration", Calibration
    beside = True

    def compute(self, votes: JudgedVotes, _chosen: Any) -> Calibration:
        vote, labels_N = votes.vote, votes.test.labels_N
        confidence_N, right_N = confidence_of(vote.probs_NK, vote.classes_N), vote.classes_N == labels_N
        width, mass = equal_width_bins(confidence_N, right_N), equal_mass_bins(confidence_N, right_N)
        interval = smooth_ece_interval(confidence_N, right_N, votes.seed)
        return Calibration(
            expected_calibration_error(width), expected_calibration_error(mass), _records(width), _records(mass),
            smooth_ece(confidence_N, right_N), interval.lower, interval.upper, class_wise_ece(vote.probs_NK, labels_N),
        )  # fmt: skip

    def lines(self, found: Calibration, _about: About) -> Iterable[str]:
        if not math.isnan(found.smooth_ece):
            above = "; the estimate keeps that noise and lies above" if found.smooth_ece > found.smooth_upper else ""
            yield (
                f"Calibration: smooth ECE {percent(found.smooth_ece)} % (95 % bootstrap interval, noise taken off, "
                f"{percent_interval(found.smooth_lower, found.smooth_upper)}{above}), class-wise {percent(found.class_wise_ece)} %."
            )

    def note(self, found: Calibration) -> Note:
        binned = (
            "Expected calibration error ", Cell("ece_equal_width", "percent"), " % with bins of equal width, ",
            Cell("ece_equal_mass", "percent"), " % with bins of equal mass",
        )  # fmt: skip
        if math.isnan(found.smooth_ece):
            return (*binned, ".")
        ends = (Cell("smooth_lower", "percent"), " to ", Cell("smooth_upper", "percent"))
        return (
            *binned, ", ", Cell("smooth_ece", "percent"),
            " % without bins (smooth ECE; 95 % bootstrap interval, the noise of finitely many images taken off, ",
            *(("-",) if math.isnan(found.smooth_lower) else ends), "); class-wise ", Cell("class_wise_ece", "percent"), " %.",
        )  # fmt: skip

    def figure(self, found: Calibration) -> SectionFigure:
        """The area of a dot is its share of the test images."""
        bins = [one for one in found.equal_width if one.count]
        total = sum(one.count for one in bins)
        x, y = tuple(100 * one.confidence for one in bins), tuple(100 * one.accuracy for one in bins)
        return SectionFigure(
            "Calibration", "confidence, %", "accuracy, %",
            (
                Curve((0, 100), (0, 100), "perfectly calibrated", "guide"), Curve(x, y, width=1),
                Curve(x, y, "vote", "dots", sizes=tuple(12 + 180 * one.count / total for one in bins)),
            ),
            "Below the dotted line the vote is overconfident, above it underconfident. Larger dots hold more images.",
            (0, 102), (0, 104), legend="lower right",
        )  # fmt: skip

    def card_rows(self, found: Calibration) -> Iterable[tuple[str, str]]:
        yield "smooth calibration error", loss(found.smooth_ece)


def _records(bins: Bins) -> tuple[ReliabilityBin, ...]:
    columns = (column.tolist() for column in bins)
    return tuple(ReliabilityBin(*values) for values in zip(*columns, strict=True))
