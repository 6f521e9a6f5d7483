"""Members asked one after the other until they are sure (`cascade`), beside the soft vote of all."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ensemble.evaluation.cascade import ask, choose_threshold, stages
from ensemble.evaluation.record_base import NAN, Number, Record
from ensemble.evaluation.section import About, EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.statistics import wilson_interval
from ensemble.evaluation.written import percent, percent_interval, plural


@dataclass(frozen=True)
class CascadeResult(Record):
    """Members asked in turn until they are sure (see `cascade`), beside the soft vote of all.

    threshold: of the mean probability, chosen on validation; NaN where no image may stop early. mean_members: asked
    per test image. stopped_first: share of test images that only the first member sees.
    """

    threshold: Number
    validation_error: float
    test_error: float
    lower: float
    upper: float
    mean_members: float
    stopped_first: float
    full_test_error: float


@dataclass(frozen=True)
class Chosen:
    """The threshold, and the error on the validation rows that chose it."""

    threshold: float
    validation_error: float


@register_section
class CascadeSection(EvaluationSection[CascadeResult]):
    name, title, record = "cascade", "Cascade", CascadeResult
    beside = True

    def choose(self, validation: SplitVotes) -> Chosen | None:
        """None for a single member, which nobody is asked after."""
        if validation.num_members == 1:
            return None
        threshold = choose_threshold(validation)
        asked = ask(stages(validation.probs_MNK), threshold)
        return Chosen(threshold, float((asked.classes_N != validation.labels_N).mean()))

    def compute(self, votes: JudgedVotes, chosen: Chosen | None) -> CascadeResult | None:
        if chosen is None:
            return None
        test, found = votes.test, stages(votes.test.probs_MNK)
        on_test = ask(found, chosen.threshold)
        wrong = int((on_test.classes_N != test.labels_N).sum())
        interval = wilson_interval(wrong, test.num_rows)
        return CascadeResult(
            threshold=chosen.threshold if np.isfinite(chosen.threshold) else NAN,
            validation_error=chosen.validation_error,
            test_error=wrong / test.num_rows,
            lower=interval.lower,
            upper=interval.upper,
            mean_members=float(on_test.members_N.mean()),
            stopped_first=float((on_test.members_N == 1).mean()),
            full_test_error=float((found.classes_MN[-1] != test.labels_N).mean()),
        )

    def lines(self, found: CascadeResult, about: About) -> Iterable[str]:
        if not math.isnan(found.threshold):
            yield (
                f"Cascade: asked in turn until {percent(found.threshold, 1)} % sure, {found.mean_members:.2f} of "
                f"{plural(about.members, 'member')} per image give {percent(found.test_error)} % "
                f"({percent_interval(found.lower, found.upper)}); all of them {percent(found.full_test_error)} %."
            )
