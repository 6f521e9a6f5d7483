"""When the vote should be silent: rules that are made from rows nobody trained on, and what they promise.

    rule = reject_rule(trained.vote, risk=0.01)
    rule.answers(decision)                        # which images are answered, [N]
    sets = sets_rule(trained.vote, alpha=0.05)
    sets.shown(decision)                          # which classes each image may be of, [N, K]

The rows are those of calibration (data.calibration_fraction) where the run has some. Thresholds may come from validation rows else,
which members or weights may have been chosen by; prediction sets may not.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.errors import ConfigError
from ensemble.evaluation.aggregation import Decision
from ensemble.evaluation.conformal import Method, Rule, never_empty
from ensemble.evaluation.conformal_sets import promised_band
from ensemble.evaluation.promise import Kept, Promise, choose_guaranteed_threshold, kept
from ensemble.evaluation.sections.conformal import ALPHAS, rule_of
from ensemble.evaluation.sections.selective import RISKS
from ensemble.evaluation.set_records import UnknownSet
from ensemble.evaluation.set_votes import HowToVote
from ensemble.evaluation.unknown_images import MAX_PROBABILITY, Chosen, scores_of
from ensemble.evaluation.written import percent, percent_interval
from ensemble.inference.stored import StoredVote
from ensemble.outside.names import shown
from ensemble.results.judging import stored_evaluation
from ensemble.storage import RunFolder
from ensemble.storage.listed_folder import is_file
from ensemble.storage.manifest import MANIFEST
from ensemble.storage.names import EVALUATION
from ensemble.types import FloatArray

Mask = npt.NDArray[np.bool_]
UNKNOWN_SHARE = 0.05  # of the known images that may be called unknown
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
            f"the set of each image holds its true class with probability {100 * (1 - self.rule.alpha):.4g} %, for images like the "
            f"{self.rule.rows:,} calibration images ({self.rule.method.upper()}; so few images mean {percent(band.lower)} to {percent(band.upper)} %)"
        )


@dataclass(frozen=True, eq=False)
class UnknownRule:
    """Images that are called unknown: their score is below that of all but a share of the rows that no member was trained on.

    score: the vote's largest probability, fixed before, or the one that the run has chosen on a set of unknown images (`Chosen`).
    caught: by set of unknown images that the run voted on, the share that is called so where as many of the test images are.
    """

    share: float
    threshold: float
    rows: int
    rows_of: str
    how: HowToVote
    score: Chosen = field(default_factory=Chosen)
    caught: tuple[tuple[str, float], ...] = ()

    def unknown(self, probs_MNK: FloatArray) -> Mask:
        """Which images are of none of the classes, as far as the score tells, [N]. probs_MNK: what each member says."""
        found_N: Mask = scores_of(probs_MNK, self.how)[self.score.score] < self.threshold - ROUNDING
        return found_N

    @property
    def sentence(self) -> str:
        """What is called unknown, and how often that is right, as far as the run knows."""
        found = ", ".join(f"{percent(share, 0)} % of {name}" for name, share in self.caught)
        measured = f"; measured, with as many test images called so: {found}" if found else ""
        sure = "the vote is less sure than of"
        if self.score.on:
            sure = f"by the score that the run chose on {shown(self.score.on)}, {self.score.score}, the members know them less well than"
        return (
            f"unknown: {sure} {percent(1 - self.share, 0)} % of {self.rows:,} {self.rows_of} images, so about "
            f"{percent(self.share, 0)} % of images of the classes are called so too{measured}"
        )


@dataclass(frozen=True, eq=False)
class Rules:
    """Those that were asked for."""

    reject: RejectRule | None = None
    sets: SetsRule | None = None
    unknown: UnknownRule | None = None


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
    rule = rule_of(method, known.votes, alpha)
    if not math.isfinite(rule.threshold):
        raise ConfigError(
            f"alpha={alpha:g} needs at least {math.ceil(1 / alpha - 1e-9) - 1:,} calibration images, and {vote.folder} has {rule.rows:,}: every set would hold all classes; give a larger alpha, or train with more (data.calibration_fraction)"
        )
    return SetsRule(rule)


def unknown_rule(vote: StoredVote, share: float = UNKNOWN_SHARE) -> UnknownRule:
    """The rule that calls unknown what has a lower score than all but a share of the rows that the vote knows.

    The score is the vote's largest probability, or the one that the run's judgement has chosen (evaluation.sets: chooses_score).

    Raises ConfigError where the run has no such rows.
    """
    _require_share("unknown", share)
    known = vote.known
    if known is None:
        raise ConfigError(
            f"{vote.folder}: this run has no validation or calibration images, which tell how sure the vote usually is"
        )
    judged, how = _judged_unknown(vote), HowToVote(vote.aggregator, vote.weights_M, 0)
    chosen = next((Chosen(found.chosen, found.chosen_on) for found in judged), Chosen())
    score_N = scores_of(known.members.probs_MNK, how)[chosen.score]
    threshold = float(np.quantile(score_N, share, method="lower"))
    caught = tuple(
        (found.name, 1 - score.fpr95_known)
        for found in judged
        for score in found.scores
        if score.score == chosen.score and found.name != chosen.on and share == UNKNOWN_SHARE
    )
    return UnknownRule(share, threshold, known.votes.num_rows, known.votes.split, how, chosen, caught)


def _judged_unknown(vote: StoredVote) -> tuple[UnknownSet, ...]:
    """As the run's judgement has them; none where it is of another vote, or there is none, as of a classifier whose folder was temporary."""
    if not is_file(vote.folder / MANIFEST):
        return ()
    folder = RunFolder.read(vote.folder)
    if not folder.has(EVALUATION):
        return ()
    _, evaluation = stored_evaluation(folder)
    return evaluation.unknown if evaluation.aggregator == vote.aggregator else ()


def silence(vote: StoredVote) -> dict[str, Any]:
    """The rules as plain JSON values, for whoever uses the vote without this package; what the run's rows cannot promise is left out.

    answer: by risk, the confidence (largest probability; of a hard vote the share of votes) from which answers are given. unknown: the
    confidence below which images are called so; where the run has chosen the entropy of the vote as its score, under `entropy` the nats
    above which they are, too. Scores that need each member's probabilities, which the file does not give, are left out. prediction_sets: by alpha, the probability from which a class is in the set; an
    empty set holds the vote's class. rows, chosen_on: what each promise rests on.
    """
    found: dict[str, Any] = {"answer": [], "prediction_sets": []}
    for risk in RISKS:
        with contextlib.suppress(ConfigError):
            rule = reject_rule(vote, risk)
            found["answer"].append(
                {"risk": risk, "probability": 0.95, "confidence": rule.promise.threshold, **_basis(rule)}
            )
    for alpha in ALPHAS:
        with contextlib.suppress(ConfigError):
            made = sets_rule(vote, alpha).rule
            basis = {"rows": made.rows, "chosen_on": "calibration"}
            found["prediction_sets"].append(
                {"alpha": alpha, "method": "lac", "probability": 1 - made.threshold, **basis}
            )
    with contextlib.suppress(ConfigError):
        unknown = unknown_rule(vote)
        basis = {"rows": unknown.rows, "chosen_on": unknown.rows_of}
        largest = unknown.threshold
        if unknown.score.score != MAX_PROBABILITY:
            assert vote.known is not None, "the rule is made of them"
            largest = float(np.quantile(vote.known.decision.confidences_N, unknown.share, method="lower"))
        found["unknown"] = {"share": unknown.share, "confidence": largest, **basis}
        if unknown.score.score == "entropy":
            found["unknown"] |= {"entropy": -unknown.threshold, "score_chosen_on": unknown.score.on}
    return found


def _basis(rule: RejectRule) -> dict[str, Any]:
    return {"rows": rule.rows, "chosen_on": rule.chosen_on}


def _require_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value!r}; expected a share between 0 and 1, such as 0.05")
