"""Does the ensemble know what it does not know? Images of none of its classes beside the test images, told apart by scores.

The score that counts is fixed before anybody looks: the largest probability of the vote (Hendrycks and Gimpel 2017). Or it is chosen
on one set of unknown images that is named for that, beside validation images (`choose_score`), and judged on others. The other scores are
reported beside it. That of the energy (Liu et al. 2020) needs logits, which members keep for these images alone (`Energies`): it is
reported, and cannot be chosen, since predictions and exported files give probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from ensemble.evaluation.aggregation import Decision, decide
from ensemble.evaluation.calibration import confidence_of
from ensemble.evaluation.decomposition import uncertainty
from ensemble.evaluation.delong import delong_interval, paired_delong
from ensemble.evaluation.promise import Promise, kept
from ensemble.evaluation.record_base import NAN
from ensemble.evaluation.roc import aupr, auroc, false_positive_rate, fpr_interval
from ensemble.evaluation.sections.selective import PromiseResult
from ensemble.evaluation.selective import scod_risk_coverage
from ensemble.evaluation.set_records import MixedPromise, UnknownBeside, UnknownScore, UnknownSet
from ensemble.evaluation.set_votes import Beside, HowToVote, wrong_of
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, favourites, require_choosable
from ensemble.evaluation.statistics import holm, wilson_interval
from ensemble.types import DoubleArray

MAX_PROBABILITY, ENERGY = "max probability", "energy"


@dataclass(frozen=True)
class Chosen:
    """The score that counts. on: the set that it was chosen on, "" where it was fixed before."""

    score: str = MAX_PROBABILITY
    on: str = ""


@dataclass(frozen=True, eq=False)
class Alone:
    """A network that does not vote: what it is called, its probabilities of the test images [N, K] and of the unknown ones [U, K]."""

    name: str
    test_NK: AnyFloatArray
    probs_UK: AnyFloatArray


@dataclass(frozen=True, eq=False)
class Energies:
    """log sum exp of the members' logits, the negative energies of Liu et al. 2020 (eq. 4, T = 1): of the test images [M, N] and of the
    unknown ones [M, U]."""

    known_MN: AnyFloatArray
    unknown_MU: AnyFloatArray


def judge_unknown(
    name: str,
    source: str,
    probs_MUK: AnyFloatArray,
    test: SplitVotes,
    how: HowToVote,
    promises: Sequence[PromiseResult] = (),
    beside: Mapping[Beside, Alone] | None = None,
    chosen: Chosen = Chosen(),
    energies: Energies | None = None,
    seed: int = 0,
) -> UnknownSet:
    """Votes on unknown images [M, U, K] beside those on the test images, which are the known ones.

    beside: networks that do not vote. energies: where they are stored. seed: of the bootstrap.
    """
    known, unknown = scores_of(test.probs_MNK, how), scores_of(probs_MUK, how)
    alone = _own_scores(test.probs_MNK, how), _own_scores(probs_MUK, how)
    if energies is not None and how.aggregator != "additive":  # whose energy is that of a sum, not of its parts
        both = energies.known_MN.astype(np.float64), energies.unknown_MU.astype(np.float64)
        known[ENERGY], unknown[ENERGY] = (np.average(one, axis=0, weights=how.weights_M) for one in both)
        alone[0][ENERGY], alone[1][ENERGY] = (one[how.reference] for one in both)
    records = [
        _judged(score, (known[score], unknown[score]), tuple(_or_largest(one, score) for one in alone), seed)
        for score in known
    ]
    counts = chosen.score
    adjusted = holm([NAN if record.score == counts else record.p_value for record in records])
    vote, member = how.vote(test.probs_MNK), how.member(test.probs_MNK)
    accepted, interval = _accepted(unknown[MAX_PROBABILITY], promises)
    return UnknownSet(
        name=name,
        source=source,
        images=probs_MUK.shape[1],
        voters=len(probs_MUK),
        chosen=counts,
        scores=tuple(
            replace(record, p_holm=record.p_value if record.score == counts else float(p))
            for record, p in zip(records, adjusted, strict=True)
        ),
        scod_aurc=scod_risk_coverage(known[counts], wrong_of(vote, test.labels_N), unknown[counts]).area,
        member_scod_aurc=scod_risk_coverage(
            _or_largest(alone[0], counts), wrong_of(member, test.labels_N), _or_largest(alone[1], counts)
        ).area,
        accepted=accepted,
        accepted_lower=interval[0],
        accepted_upper=interval[1],
        beside=tuple(
            _beside_record(which, alone, test, (counts, known[counts], unknown[counts]), seed)
            for which, alone in (beside or {}).items()
        ),
        chosen_on=chosen.on,
        mixed=tuple(
            _mixed(promise, known[MAX_PROBABILITY], wrong_of(vote, test.labels_N), unknown[MAX_PROBABILITY])
            for promise in promises
            if np.isfinite(promise.threshold)
        ),
    )


def choose_score(validation: SplitVotes, probs_MUK: AnyFloatArray, how: HowToVote) -> str:
    """The score with the largest AUROC of validation images against these unknown ones; of equals the first of `scores_of`.

    Raises PeekingError for test votes: a score that they choose is no longer judged by them.
    """
    require_choosable(validation)
    known, unknown = scores_of(validation.probs_MNK, how), scores_of(probs_MUK, how)
    return max(known, key=lambda score: auroc(known[score], unknown[score]))


def _beside_record(
    which: Beside, alone: Alone, test: SplitVotes, vote: tuple[str, DoubleArray, DoubleArray], seed: int
) -> UnknownBeside:
    """vote: the name of the score, and what the vote has by it on test and on unknown images."""
    decision = decide("soft", alone.test_NK[None])
    known, unknown = _scores_alone(decision), _scores_alone(decide("soft", alone.probs_UK[None]))
    score = vote[0] if vote[0] in known else MAX_PROBABILITY
    known_N, unknown_U = known[score], unknown[score]
    paired = paired_delong(np.stack([vote[1], known_N]), np.stack([vote[2], unknown_U]))
    return UnknownBeside(
        which, alone.name, score, auroc(known_N, unknown_U), *delong_interval(known_N, unknown_U),
        false_positive_rate(known_N, unknown_U), *fpr_interval(known_N, unknown_U, seed),
        paired.difference, paired.lower, paired.upper, paired.p_value,
        scod_risk_coverage(known_N, wrong_of(decision, test.labels_N), unknown_U).area,
    )  # fmt: skip


def _mixed(
    promise: PromiseResult, known_N: DoubleArray, wrong_N: npt.NDArray[np.bool_], unknown_U: DoubleArray
) -> MixedPromise:
    """A promise where every answer to an unknown image is an error (SCOD: selective classification with unknown images)."""
    threshold = Promise(
        promise.threshold, promise.risk, promise.delta, promise.promised_coverage, promise.seen_risk, NAN
    )
    found = kept(
        threshold, np.concatenate([known_N, unknown_U]), np.concatenate([wrong_N, np.ones(len(unknown_U), np.bool_)])
    )
    accepted = int((unknown_U >= promise.threshold).sum())
    return MixedPromise(
        promise.kind, promise.risk, promise.threshold, found.answered, found.coverage, *found.coverage_interval, found.risk,
        *found.risk_interval, accepted / len(unknown_U), *wilson_interval(accepted, len(unknown_U)), found.outcome,
    )  # fmt: skip


def scores_of(probs_MNK: AnyFloatArray, how: HowToVote) -> dict[str, DoubleArray]:
    """By name the scores [N] of the images, higher where the ensemble takes them for known.

    max probability: of the class that the vote names. entropy: minus that of the vote, in nats. mutual information: minus the
    members' disagreement in nats (`decomposition`). agreement: share of the members that name the vote's class. The last two need
    several members that each know the classes.
    """
    vote = how.vote(probs_MNK)
    found = _scores_alone(vote)
    if len(probs_MNK) > 1 and how.aggregator != "additive":  # whose members are corrections to each other, not opinions
        found["mutual information"] = -uncertainty(probs_MNK).epistemic_N
        found["agreement"] = (favourites(probs_MNK) == vote.classes_N).mean(0)
    return found


def _own_scores(probs_MNK: AnyFloatArray, how: HowToVote) -> dict[str, DoubleArray]:
    """Those that a single network has."""
    return _scores_alone(how.member(probs_MNK))


def _scores_alone(one: Decision) -> dict[str, DoubleArray]:
    largest_N = confidence_of(one.probs_NK, one.classes_N)
    return {MAX_PROBABILITY: largest_N, "entropy": -special.entr(one.probs_NK).sum(1)}


def _or_largest(scores: Mapping[str, DoubleArray], score: str) -> DoubleArray:
    """A score of a single network, or its largest probability where it has no such score."""
    return scores.get(score, scores[MAX_PROBABILITY])


def _judged(
    score: str, own: tuple[DoubleArray, DoubleArray], member: tuple[DoubleArray, ...], seed: int
) -> UnknownScore:
    known_N, unknown_U = own
    area, rejected = delong_interval(known_N, unknown_U), fpr_interval(known_N, unknown_U, seed)
    paired = paired_delong(np.stack([known_N, member[0]]), np.stack([unknown_U, member[1]]))
    return UnknownScore(
        score=score,
        auroc=auroc(known_N, unknown_U),
        lower=area.lower,
        upper=area.upper,
        fpr95=false_positive_rate(known_N, unknown_U),
        fpr95_lower=rejected.lower,
        fpr95_upper=rejected.upper,
        fpr95_known=false_positive_rate(known_N, unknown_U, positive="known"),
        aupr_unknown=aupr(known_N, unknown_U, "unknown"),
        aupr_known=aupr(known_N, unknown_U, "known"),
        member_auroc=auroc(member[0], member[1]),
        difference=paired.difference,
        difference_lower=paired.lower,
        difference_upper=paired.upper,
        p_value=paired.p_value,
        p_holm=NAN,
    )


def _accepted(confidence_U: DoubleArray, promises: Sequence[PromiseResult]) -> tuple[float, tuple[float, float]]:
    """Share of the unknown images that the first promise's threshold answers."""
    if not promises or np.isnan(promises[0].threshold):
        return NAN, (NAN, NAN)
    answered = int((confidence_U >= promises[0].threshold).sum())
    interval = wilson_interval(answered, len(confidence_U))
    return answered / len(confidence_U), (interval.lower, interval.upper)
