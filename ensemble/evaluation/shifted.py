"""Does the ensemble's gain survive where images are not like those it was trained on? Errors and losses by part, and over all.

judge = ShiftJudge(how, labels_N, clean)
for part in parts: judge.take(part)          # one at a time: all votes of a set need not be in memory together
record = judge.record("corrupted", "the test images", voters=8)

Networks that do not vote are judged on the same images, each by itself (`ShiftedBeside`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from ensemble.evaluation.aggregation import Decision, decide, floored_log
from ensemble.evaluation.bootstrap import bootstrap_p, percentile_interval
from ensemble.evaluation.calibration import confidence_of, equal_width_bins, expected_calibration_error
from ensemble.evaluation.metrics import brier_score
from ensemble.evaluation.record_base import NAN
from ensemble.evaluation.set_records import ShiftedBeside, ShiftedPart, ShiftedSet
from ensemble.evaluation.set_votes import BESIDE, Beside, HowToVote, PartVotes, wrong_of
from ensemble.evaluation.statistics import Interval, holm, mcnemar_exact, paired_difference_interval, wilson_interval
from ensemble.types import DoubleArray, IntArray

DRAWS = 10_000


@dataclass(eq=False)
class ShiftJudge:
    """Sums what the parts of one shifted set say about each image. clean_gain: 1 - vote error / member error on test."""

    how: HowToVote
    labels_N: IntArray
    clean_gain: float
    parts: list[ShiftedPart] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = len(self.labels_N)
        self._vote_wrong_N, self._member_wrong_N = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self._nll_difference_N = np.zeros(rows)
        self._beside: dict[Beside, _Alone] = {}

    def take(self, part: PartVotes) -> None:
        """Judge one part."""
        labels_N = self.labels_N
        vote, member = self.how.vote(part.probs_MNK), self.how.member(part.probs_MNK)
        vote_wrong_N, member_wrong_N = wrong_of(vote, labels_N), wrong_of(member, labels_N)
        self._vote_wrong_N += vote_wrong_N
        self._member_wrong_N += member_wrong_N
        vote_nll_N, member_nll_N = _losses(vote, labels_N), _losses(member, labels_N)
        self._nll_difference_N += vote_nll_N - member_nll_N
        for which in BESIDE:
            if which in part.beside:
                alone = self._beside.setdefault(which, _Alone(np.zeros(len(labels_N), np.int64)))
                alone.take(decide("soft", part.beside[which][None]), labels_N)
        self.parts.append(self._part(part, vote, member, vote_nll_N, member_nll_N))

    def _part(
        self, part: PartVotes, vote: Decision, member: Decision, vote_nll_N: DoubleArray, member_nll_N: DoubleArray
    ) -> ShiftedPart:
        labels_N, rows = self.labels_N, len(self.labels_N)
        vote_wrong_N, member_wrong_N = wrong_of(vote, labels_N), wrong_of(member, labels_N)
        wrong, b = int(vote_wrong_N.sum()), int((vote_wrong_N & ~member_wrong_N).sum())
        c = int((~vote_wrong_N & member_wrong_N).sum())
        each_M = (part.probs_MNK.argmax(-1) != labels_N).mean(1)
        alone = {which: one.errors[-1] for which, one in self._beside.items() if which in part.beside}
        return ShiftedPart(
            label=part.label,
            vote_error=wrong / rows,
            wrong=wrong,
            **_ends(wilson_interval(wrong, rows)),
            member_error=float(member_wrong_N.mean()),
            mean_member_error=float(each_M.mean()),
            baseline_error=alone.get("baseline", NAN),
            difference=(b - c) / rows,
            **_ends(paired_difference_interval(b, c, rows), "difference_"),
            p_value=mcnemar_exact(b, c),
            p_holm=NAN,
            vote_nll=float(vote_nll_N.mean()),
            member_nll=float(member_nll_N.mean()),
            vote_brier=brier_score(vote.probs_NK, labels_N),
            member_brier=brier_score(member.probs_NK, labels_N),
            vote_ece=_ece(vote, labels_N),
            member_ece=_ece(member, labels_N),
            longer_error=alone.get("longer", NAN),
            wider_error=alone.get("wider", NAN),
        )

    def record(
        self, name: str, source: str, voters: int, called: Mapping[Beside, str] | None = None, seed: int = 0
    ) -> ShiftedSet:
        """The whole set. called: what networks that do not vote are called. seed: of the bootstrap."""
        count, adjusted = len(self.parts), holm([part.p_value for part in self.parts])
        parts = tuple(replace(part, p_holm=float(p)) for part, p in zip(self.parts, adjusted, strict=True))
        drawn = bootstrap_errors(self._vote_wrong_N, self._member_wrong_N, count, seed)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain_D = 1 - drawn.vote_D / drawn.member_D
        vote_error, member_error = _mean(parts, "vote_error"), _mean(parts, "member_error")
        interval, p = _tested(self._vote_wrong_N, self._member_wrong_N, count, drawn)
        nll = _t_interval(self._nll_difference_N / count)
        return ShiftedSet(
            name=name,
            source=source,
            images=len(self.labels_N),
            voters=voters,
            parts=parts,
            vote_error=vote_error,
            member_error=member_error,
            mean_member_error=_mean(parts, "mean_member_error"),
            baseline_error=_mean(parts, "baseline_error"),
            difference=vote_error - member_error,
            **_ends(interval, "difference_"),
            p_value=p,
            relative_gain=relative_gain(vote_error, member_error),
            **_ends(percentile_interval(gain_D) if np.isfinite(gain_D).all() else Interval(NAN, NAN), "relative_gain_"),
            clean_gain=self.clean_gain,
            vote_nll=_mean(parts, "vote_nll"),
            member_nll=_mean(parts, "member_nll"),
            nll_difference=float(np.mean(self._nll_difference_N)) / count,
            **_ends(nll, "nll_difference_"),
            vote_brier=_mean(parts, "vote_brier"),
            member_brier=_mean(parts, "member_brier"),
            vote_ece=_mean(parts, "vote_ece"),
            member_ece=_mean(parts, "member_ece"),
            beside=tuple(
                self._beside_record(which, one, (called or {}).get(which, which), seed)
                for which, one in self._beside.items()
            ),
        )

    def _beside_record(self, which: Beside, alone: _Alone, name: str, seed: int) -> ShiftedBeside:
        count, rows = len(self.parts), len(self.labels_N)
        drawn = bootstrap_errors(self._vote_wrong_N, alone.wrong_N, count, seed)
        interval, p = _tested(self._vote_wrong_N, alone.wrong_N, count, drawn)
        own = percentile_interval(drawn.member_D)
        if count == 1:
            own = wilson_interval(int(alone.wrong_N.sum()), rows)
        elif np.ptp(drawn.member_D) == 0:
            own = Interval(NAN, NAN)
        error = float(np.mean(alone.errors))
        return ShiftedBeside(
            which, name, error, *own, float(np.mean([part.vote_error for part in self.parts])) - error, *interval, p,
            float(np.mean(alone.nll)), float(np.mean(alone.brier)), float(np.mean(alone.ece)),
        )  # fmt: skip


@dataclass(eq=False)
class _Alone:
    """What a network that does not vote says of the parts. wrong_N: how many of each image it gets wrong; the rest by part."""

    wrong_N: IntArray
    errors: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    brier: list[float] = field(default_factory=list)
    ece: list[float] = field(default_factory=list)

    def take(self, decision: Decision, labels_N: IntArray) -> None:
        wrong_N = wrong_of(decision, labels_N)
        self.wrong_N += wrong_N
        self.errors.append(float(wrong_N.mean()))
        self.nll.append(float(_losses(decision, labels_N).mean()))
        self.brier.append(brier_score(decision.probs_NK, labels_N))
        self.ece.append(_ece(decision, labels_N))


@dataclass(frozen=True, eq=False)
class DrawnErrors:
    """Errors over all parts in D draws of the images: of the vote and of the member, on the same images."""

    vote_D: DoubleArray
    member_D: DoubleArray


def bootstrap_errors(
    vote_wrong_N: IntArray, member_wrong_N: IntArray, parts: int, seed: int, draws: int = DRAWS
) -> DrawnErrors:
    """Errors over images drawn again with replacement, each with all its parts (Efron and Tibshirani 1993, chapter 8.3).

    vote_wrong_N, member_wrong_N: how many parts of an image each gets wrong. Images with the same two numbers are alike, so a draw
    is a multinomial over the pairs of numbers.
    """
    pairs_P2, counts_P = np.unique(np.stack([vote_wrong_N, member_wrong_N], axis=1), axis=0, return_counts=True)
    rows = len(vote_wrong_N)
    drawn_DP = np.random.default_rng(seed).multinomial(rows, counts_P / rows, draws)
    vote_D, member_D = (drawn_DP @ pairs_P2 / (rows * parts)).T
    return DrawnErrors(vote_D, member_D)


def _tested(vote_wrong_N: IntArray, other_wrong_N: IntArray, parts: int, drawn: DrawnErrors) -> tuple[Interval, float]:
    """Interval and p-value of the difference between two: exact ones of a single part, else those of the bootstrap."""
    if parts == 1:
        b, c = int((vote_wrong_N > other_wrong_N).sum()), int((vote_wrong_N < other_wrong_N).sum())
        return paired_difference_interval(b, c, len(vote_wrong_N)), mcnemar_exact(b, c)
    difference_D = drawn.vote_D - drawn.member_D
    if np.ptp(difference_D) == 0:  # no image differs from another: nothing to tell chance by
        return Interval(NAN, NAN), 1.0
    return percentile_interval(difference_D), bootstrap_p(difference_D)


def relative_gain(vote_error: float, member_error: float) -> float:
    """1 - vote error / member error; NaN where the member makes no error."""
    return NAN if member_error == 0 else 1 - vote_error / member_error


def _losses(decision: Decision, labels_N: IntArray) -> DoubleArray:
    """The log loss of each image, in nats; NaN for votes that are counted, whose shares are no probabilities."""
    if decision.counted:
        return np.full(len(labels_N), NAN)
    losses_N: DoubleArray = -floored_log(decision.probs_NK[np.arange(len(labels_N)), labels_N])
    return losses_N


def _ece(decision: Decision, labels_N: IntArray) -> float:
    right_N = ~wrong_of(decision, labels_N)
    return expected_calibration_error(equal_width_bins(confidence_of(decision.probs_NK, decision.classes_N), right_N))


def _mean(parts: tuple[ShiftedPart, ...], name: str) -> float:
    return float(np.mean([getattr(part, name) for part in parts]))


def _t_interval(values_N: DoubleArray, confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent values; undefined for fewer than three."""
    count = len(values_N)
    if count < 3 or np.isnan(values_N).any():
        return Interval(NAN, NAN)
    half = float(special.stdtrit(count - 1, 0.5 + confidence / 2)) * float(values_N.std(ddof=1)) / count**0.5
    return Interval(float(values_N.mean()) - half, float(values_N.mean()) + half)


def _ends(interval: Interval, prefix: str = "") -> dict[str, float]:
    return {f"{prefix}lower": interval.lower, f"{prefix}upper": interval.upper}
