"""When the vote should be silent: rules that are made from rows nobody trained on, and what they promise.

    rule = reject_rule(trained.vote, risk=0.01)
    rule.answers(decision)                        # which images are answered, [N]
    sets = sets_rule(trained.vote, alpha=0.05)
    sets.shown(decision)                          # which classes each image may be of, [N, K]

The rows are those of calibration (data.calibration_fraction) where the run has some. Thresholds may come from validation rows else,
which members or weights may have been chosen by; prediction sets may not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ensemble.errors import ConfigError
from ensemble.evaluation.aggregation import Decision
from ensemble.evaluation.conformal import Method, Rule, never_empty
from ensemble.evaluation.conformal_sets import promised_band
from ensemble.evaluation.prediction_sets import rule_of
from ensemble.evaluation.promise import Kept, Promise, choose_guaranteed_threshold, kept
from ensemble.evaluation.written import percent, percent_interval
from ensemble.inference.stored import StoredVote

Mask = npt.NDArray[np.bool_]
ROUNDING = 1e-6  # of probabilities, between a stored vote and the same one now


@dataclass(frozen=True, eq=False)
class RejectRule:
    """Answer from a confidence on. chosen_on: calibration or validation; rows: how many chose the threshold; tested: on test."""

    promise: Promise
    chosen_on: str
    rows: int
    tested: Kept | None = None

    def answers(self, decision: Decision) -> Mask:
        """Which images are answered, [N]; none where nothing can be promised."""
        return decision.confidences_N >= self.promise.threshold - ROUNDING

    @property
    def sentence(self) -> str:
        """What is promised."""
        found, tested = self.promise, ""
        if self.tested is not None:
            lower, upper = self.tested.risk_interval
            tested = (
                f"; of the test images {percent(self.tested.coverage)} %, {percent(self.tested.risk)} % of them wrong "
                f"({percent_interval(lower, upper)})"
            )
        return (
            f"answers are given from a confidence of {found.threshold:.4f} on: of those, with probability {percent(1 - found.delta, 0)} %, "
            f"at most {percent(found.risk)} % are wrong on images like the {self.rows:,} {self.chosen_on} images, of which "
            f"{percent(found.coverage)} % are answered, {percent(found.observed)} % of them wrong{tested}"
        )


def reject_rule(vote: StoredVote, risk: float) -> RejectRule:
    """The rule that answers as many images as it can with at most this error among the answered (a fraction).

    Raises ConfigError where the run's rows cannot promise it.
    """
    _require_share("risk", risk)
    known = vote.known
    if known is None:
        raise ConfigError(
            f"{vote.folder}: this run has no validation or calibration images, from which a risk could be promised"
        )
    promise = choose_guaranteed_threshold(known.votes, known.decision.classes_N, known.decision.confidences_N, risk)
    if not math.isfinite(promise.threshold):
        raise ConfigError(
            f"risk={risk:g} cannot be promised from {known.votes.num_rows:,} {known.votes.split} images; give a larger risk, or train "
            "with more of them (data.calibration_fraction)"
        )
    tried = None
    if (tested := vote.tested) is not None:
        wrong_N = tested.decision.classes_N != tested.votes.labels_N
        tried = kept(promise, tested.decision.confidences_N, wrong_N)
    return RejectRule(promise, known.votes.split, known.votes.num_rows, tried)


@dataclass(frozen=True, eq=False)
class SetsRule:
    """Which classes an image may be of."""

    rule: Rule

    def shown(self, decision: Decision) -> Mask:
        """The classes of each image's set, [N, K]; an empty set holds the vote's class."""
        lenient = replace(self.rule, threshold=self.rule.threshold + ROUNDING)
        return never_empty(lenient.sets(decision.probs_NK), decision.classes_N)

    @property
    def sentence(self) -> str:
        """What is promised."""
        band = promised_band(self.rule.rows, self.rule.alpha)
        return (
            f"the set of each image holds its true class with probability {percent(1 - self.rule.alpha, 0)} %, for images like the "
            f"{self.rule.rows:,} calibration images ({self.rule.method.upper()}; so few images mean {percent(band.lower)} to {percent(band.upper)} %)"
        )


@dataclass(frozen=True, eq=False)
class Rules:
    """Those that were asked for."""

    reject: RejectRule | None = None
    sets: SetsRule | None = None


def sets_rule(vote: StoredVote, alpha: float, method: Method = "lac") -> SetsRule:
    """The rule of prediction sets that hold the true class in at least 1 - alpha of cases.

    Raises ConfigError for a run without calibration rows.
    """
    _require_share("alpha", alpha)
    known = vote.known
    if known is None or known.votes.split != "calibration":
        raise ConfigError(
            f"prediction sets: {vote.folder} has no calibration images, which they need and nothing else may have seen; train with data.calibration_fraction=0.1"
        )
    return SetsRule(rule_of(method, known.votes, alpha))


def _require_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value!r}; expected a share between 0 and 1, such as 0.05")
