"""Prediction sets: calibrated on rows that nothing else was chosen by, and looked at on test (`conformal`, `conformal_sets`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.errors import PeekingError
from ensemble.evaluation.conformal import Method, Rule, calibrate
from ensemble.evaluation.conformal_sets import caution, describe, promised_band
from ensemble.evaluation.paper_table import PaperTable, records_csv
from ensemble.evaluation.record_base import NAN, Number, Record
from ensemble.evaluation.section import About, EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.set_votes import HowToVote
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.statistics import wilson_interval
from ensemble.evaluation.written import count, percent, percent_interval
from ensemble.outside.names import shown

ALPHAS = (0.1, 0.05, 0.01)
METHODS: tuple[Method, ...] = ("lac", "aps", "raps")
SHOWN_ALPHA = 0.05  # of the sets that the short answer names


@dataclass(frozen=True)
class SetRule(Record):
    """Conformal prediction sets of one method at one level, on test (see `conformal`, `conformal_sets`).

    promised = 1 - alpha. raw_coverage: share of the sets that hold the true class, which is what is promised; in 99 of 100
    calibrations with so many rows it lies within band_lower to band_upper. The rest is of the sets as they are shown, where an empty
    one (empty: their share) holds the vote's class: coverage with Wilson's interval, sizes, shares of sets of a single class and of
    all. class_gap: mean distance of the classes' coverages from the promised one; worst_class: the lowest of them; size_violation:
    largest distance among sets of like size.
    """

    method: str
    alpha: float
    promised: float
    threshold: Number
    coverage: float
    lower: float
    upper: float
    raw_coverage: float
    band_lower: float
    band_upper: float
    mean_size: float
    median_size: float
    empty: float
    single: float
    whole: float
    class_gap: float
    worst_class: float
    size_violation: float


@dataclass(frozen=True)
class ClassCoverage(Record):
    """Prediction sets of one rule on the test images of one true class: how many of them hold it, with Wilson's interval, and their size.

    The promise is over all classes together: nothing is promised of a single one. images: of the class, at least one.
    """

    method: str
    promised: float
    name: str
    images: int
    coverage: float
    lower: float
    upper: float
    mean_size: float


@dataclass(frozen=True)
class Conformal(Record):
    """Prediction sets by split conformal prediction. rows: of calibration, which nothing else was chosen by. cautions: in words.

    classes: every rule on every class that has test images; empty in judgements of earlier versions.
    """

    rows: int
    rules: tuple[SetRule, ...]
    cautions: tuple[str, ...]
    classes: tuple[ClassCoverage, ...] = ()


@register_section
class ConformalSection(EvaluationSection[Conformal]):
    name, title, record = "conformal", "Prediction sets", Conformal
    chooses_on = "calibration"

    def choose(self, choosing: SplitVotes) -> SplitVotes | None:
        """The rows themselves, of which the vote is taken later; None where the run keeps no rows for it."""
        return None if choosing.split == "validation" else choosing

    def compute(self, votes: JudgedVotes, chosen: SplitVotes | None) -> Conformal | None:
        return None if chosen is None else prediction_sets(chosen, votes.test, votes.how, votes.class_names)

    def short_lines(self, found: Conformal, _about: About) -> Iterable[str]:
        rule = best_rule(found.rules, SHOWN_ALPHA)
        if math.isnan(rule.threshold):
            yield f"Prediction sets: {found.rows:,} calibration images are too few to promise {percent(rule.promised, 0)} %: every set would hold all classes."
            return
        yield (
            f"Prediction sets ({rule.method}, promised to hold the true class in {percent(rule.promised, 0)} % of cases, calibrated on "
            f"{found.rows:,} images): {percent(rule.coverage)} % do ({percent_interval(rule.lower, rule.upper)}), "
            f"{rule.mean_size:.2f} classes each."
        )

    def lines(self, found: Conformal, about: About) -> Iterable[str]:
        return [*self.short_lines(found, about), *found.cautions]

    def paper_tables(self, found: Conformal) -> Iterable[PaperTable]:
        rows = [
            (
                one.method, percent(one.promised), percent(one.coverage),
                percent_interval(one.lower, one.upper), f"{one.mean_size:.3f}", percent(one.single),
            )
            for one in found.rules
        ]  # fmt: skip
        yield PaperTable(
            "prediction_sets", f"Prediction sets, calibrated on {found.rows:,} images.",
            ("method", "promised %", "coverage %", "95 % int.", "classes", "single %"), tuple(rows),
            records_csv(SetRule, found.rules),
        )  # fmt: skip
        by_class = [
            (
                shown(one.name), percent(one.promised), percent(one.coverage),
                percent_interval(one.lower, one.upper), f"{one.mean_size:.3f}", count(one.images),
            )
            for one in found.classes
            if one.method == "LAC"
        ]  # fmt: skip
        if by_class:
            yield PaperTable(
                "prediction_sets_by_class", "Prediction sets (LAC) on the test images of each class; what is promised is promised of all classes together.",
                ("class", "promised %", "coverage %", "95 % int.", "classes", "images"), tuple(by_class),
                records_csv(ClassCoverage, found.classes),
            )  # fmt: skip


def best_rule(rules: tuple[SetRule, ...], alpha: float) -> SetRule:
    """The method with the smallest sets at a level."""
    return min((rule for rule in rules if rule.alpha == alpha), key=lambda rule: rule.mean_size)


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
