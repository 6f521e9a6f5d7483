"""Several systems judged on the same test rows: each alone, all of them as one vote, and every pair against each other.

A system is whatever gives class probabilities: the vote of a run, one of its members, or somebody else's model. All
lines are tested against one reference that was named beforehand; the pairs are a second family of tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from ensemble.config.schema import Aggregator
from ensemble.evaluation.aggregation import Decision, decide, decide_scores
from ensemble.evaluation.calibration import confidence_of, equal_width_bins, expected_calibration_error
from ensemble.evaluation.equivalence import equivalence_p
from ensemble.evaluation.equivalent_size import LikelihoodPoint, equivalent_size, size_likelihoods
from ensemble.evaluation.label_review import reviewed_labels
from ensemble.evaluation.metrics import brier_score, vote_log_loss
from ensemble.evaluation.notebook import Shown
from ensemble.evaluation.record_base import Number, Record
from ensemble.evaluation.size_curve import curve_sizes
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes
from ensemble.evaluation.statistics import holm, mcnemar_exact, paired_difference_interval, wilson_interval
from ensemble.types import IntArray

NAN = float("nan")
FEWEST_FOR_WORTH = 3  # members of a deep ensemble whose size others are measured by
SystemKind = Literal["run", "member", "file", "joint"]


@dataclass(frozen=True, eq=False)
class System:
    """What one competitor said about the test rows.

    decision: probabilities [N, K] and the class named per row. voters_MNK: the networks behind it, [M, N, K]; one for
    a single model. validation_error, train_seconds: NaN where nobody knows them. likelihood: of the test rows in nats, once
    calibrated on validation (`equivalent_size`). validation: the networks' votes there, of independent members alone.
    """

    name: str
    kind: SystemKind
    decision: Decision
    voters_MNK: AnyFloatArray
    validation_error: float = NAN
    train_seconds: float = NAN
    likelihood: float = NAN
    validation: SplitVotes | None = None


@dataclass(frozen=True)
class ComparedLine(Record):
    """One system. p_value: exact McNemar test against the reference; p_holm: adjusted over all lines tested.

    difference = this error - the reference's, with its 95 % interval; NaN for the reference itself. nll: NaN for votes
    that are counted, and for a file that gives a true class the probability 0.

    equivalence_p: of two one-sided tests that it errs as often as the reference, within the comparison's margin (`equivalence`).
    worth: how many members of the comparison's yardstick, a deep ensemble, have the same calibrated likelihood, lower and upper from
    the deviation of its size curve; worth_beyond: more than all of them, whose number `worth` then is.
    """

    name: str
    kind: SystemKind
    voters: int
    test_error: Number
    wrong: int
    lower: Number
    upper: Number
    validation_error: Number
    nll: Number
    brier: Number
    ece: Number
    reviewed_error: Number
    train_seconds: Number
    only_this_wrong: int | None
    only_reference_wrong: int | None
    difference: Number
    difference_lower: Number
    difference_upper: Number
    p_value: Number
    p_holm: Number
    equivalence_p: Number = NAN
    worth: Number = NAN
    worth_lower: Number = NAN
    worth_upper: Number = NAN
    worth_beyond: bool = False


@dataclass(frozen=True)
class ComparedPair(Record):
    """Two systems on the same rows: the discordant counts and the exact McNemar test, adjusted over all pairs (Holm)."""

    first: str
    second: str
    only_first_wrong: int
    only_second_wrong: int
    p_value: Number
    p_holm: Number


@dataclass(frozen=True)
class Comparison(Shown, Record):
    """All lines in the order given, the joint votes last; every pair of the systems that were given.

    margin: within which two errors count as equal, a fraction; NaN where nobody asked. yardstick: the deep ensemble that `worth`
    counts members of; "" without one. judged_on: "" for the test images, else a further set.
    """

    dataset: str
    test_rows: int
    reference: str
    lines: tuple[ComparedLine, ...]
    pairs: tuple[ComparedPair, ...]
    margin: Number = NAN
    yardstick: str = ""
    judged_on: str = ""


def compare(
    systems: Sequence[System],
    labels_N: IntArray,
    dataset: str,
    aggregator: Aggregator = "soft",
    reference: int = 0,
    margin: float = NAN,
    judged_on: str = "",
) -> Comparison:
    """Judge at least two systems on the same rows.

    labels_N: true classes. dataset: its name, for reviewed labels. aggregator: the joint votes' rule, one that needs no
    weights. reference: position of the system all others are tested against, to be chosen without looking at the test
    rows. margin: see Comparison. judged_on: the further set that the rows are of. Nothing is chosen here.
    """
    assert len(systems) >= 2, "a comparison needs two systems"
    assert len({system.name for system in systems}) == len(systems), "every system needs a name of its own"
    everybody = [*systems, *_joint_votes(systems, aggregator)]
    wrong_SN = np.stack([system.decision.classes_N != labels_N for system in everybody])
    lines = [_line(system, wrong_SN[s], wrong_SN[reference], labels_N, dataset) for s, system in enumerate(everybody)]
    if not math.isnan(margin):
        lines = [_with_margin(line, len(labels_N), margin) for line in lines]
    lines, yardstick = _with_worth(lines, everybody, labels_N)
    adjusted = holm([NAN if s == reference else line.p_value for s, line in enumerate(lines)])
    return Comparison(
        dataset=dataset,
        test_rows=len(labels_N),
        reference=systems[reference].name,
        lines=tuple(
            _unpaired(line) if s == reference else ComparedLine(**{**vars(line), "p_holm": float(adjusted[s])})
            for s, line in enumerate(lines)
        ),
        pairs=_pairs([system.name for system in systems], wrong_SN[: len(systems)]),
        margin=margin,
        yardstick=yardstick,
        judged_on=judged_on,
    )


def _with_margin(line: ComparedLine, rows: int, margin: float) -> ComparedLine:
    assert line.only_this_wrong is not None, "every line has been compared with the reference"
    assert line.only_reference_wrong is not None, "every line has been compared with the reference"
    p = equivalence_p(line.only_this_wrong, line.only_reference_wrong, rows, margin)
    return replace(line, equivalence_p=p)


def _with_worth(
    lines: Sequence[ComparedLine], systems: Sequence[System], labels_N: IntArray
) -> tuple[list[ComparedLine], str]:
    """The lines with their deep ensemble equivalents, and which deep ensemble counts: the one with the most members."""
    yardstick = max(
        (system for system in systems if system.validation is not None and len(system.voters_MNK) >= FEWEST_FOR_WORTH),
        key=lambda system: len(system.voters_MNK),
        default=None,
    )
    if yardstick is None or yardstick.validation is None:
        return list(lines), ""
    sizes = curve_sizes(len(yardstick.voters_MNK)).tolist()
    curve = size_likelihoods(yardstick.validation, SplitVotes("test", yardstick.voters_MNK, labels_N), sizes, seed=0)
    return [_worth(line, system.likelihood, curve) for line, system in zip(lines, systems, strict=True)], yardstick.name


def _worth(line: ComparedLine, likelihood: float, curve: Sequence[LikelihoodPoint]) -> ComparedLine:
    if math.isnan(likelihood):
        return line
    found, most = equivalent_size(likelihood, curve), float(curve[-1].size)
    ends = (min(one, most) for one in (found.size, found.lower, found.upper))
    size, lower, upper = ends
    return replace(line, worth=size, worth_lower=lower, worth_upper=upper, worth_beyond=math.isinf(found.size))


def _joint_votes(systems: Sequence[System], aggregator: Aggregator) -> list[System]:
    """One voice per system and, where that is something else, one voice per network."""
    seconds = float(sum(system.train_seconds for system in systems))
    probs_SNK = np.stack([system.decision.probs_NK for system in systems])
    joint = [
        System(f"joint vote of {len(systems)} systems", "joint", decide(aggregator, probs_SNK), probs_SNK, NAN, seconds)
    ]
    if any(len(system.voters_MNK) > 1 for system in systems):
        every_MNK = np.concatenate([system.voters_MNK for system in systems])
        name = f"joint vote of {len(every_MNK)} networks"
        joint.append(System(name, "joint", decide(aggregator, every_MNK), every_MNK, NAN, seconds))
    return joint


def _line(
    system: System,
    wrong_N: npt.NDArray[np.bool_],
    reference_wrong_N: npt.NDArray[np.bool_],
    labels_N: IntArray,
    dataset: str,
) -> ComparedLine:
    rows, wrong, probs_NK = len(labels_N), int(wrong_N.sum()), system.decision.probs_NK
    interval = wilson_interval(wrong, rows)
    b, c = int((wrong_N & ~reference_wrong_N).sum()), int((~wrong_N & reference_wrong_N).sum())
    difference = paired_difference_interval(b, c, rows)
    bins = equal_width_bins(confidence_of(probs_NK, system.decision.classes_N), ~wrong_N)
    review = reviewed_labels(dataset, labels_N)
    # Bare class numbers written as probabilities 0 and 1: their log loss is infinite, not what a floor makes of it.
    impossible = system.kind == "file" and bool((probs_NK[np.arange(rows), labels_N] == 0).any())
    return ComparedLine(
        name=system.name,
        kind=system.kind,
        voters=len(system.voters_MNK),
        test_error=wrong / rows,
        wrong=wrong,
        lower=interval.lower,
        upper=interval.upper,
        validation_error=system.validation_error,
        nll=NAN if impossible else vote_log_loss(system.decision, labels_N),
        brier=brier_score(probs_NK, labels_N),
        ece=expected_calibration_error(bins),
        reviewed_error=NAN if review is None else review.error(system.decision.classes_N),
        train_seconds=system.train_seconds,
        only_this_wrong=b,
        only_reference_wrong=c,
        difference=(b - c) / rows,
        difference_lower=difference.lower,
        difference_upper=difference.upper,
        p_value=mcnemar_exact(b, c),
        p_holm=NAN,
    )


def _unpaired(line: ComparedLine) -> ComparedLine:
    """The reference's own line: nothing to test."""
    names = ("difference", "difference_lower", "difference_upper", "p_value", "p_holm", "equivalence_p")
    nothing = dict.fromkeys(names, NAN)
    return ComparedLine(**{**vars(line), **nothing, "only_this_wrong": None, "only_reference_wrong": None})


def _pairs(names: Sequence[str], wrong_SN: npt.NDArray[np.bool_]) -> tuple[ComparedPair, ...]:
    # Counts below 2^24 are exact in float32, and a matrix product of floats is far quicker than one of bools.
    wrong, right = wrong_SN.astype(np.float32), (~wrong_SN).astype(np.float32)
    only_SS = np.rint(wrong @ right.T).astype(np.int64)
    found = list(combinations(range(len(names)), 2))
    p_values = [mcnemar_exact(int(only_SS[i, j]), int(only_SS[j, i])) for i, j in found]
    return tuple(
        ComparedPair(names[i], names[j], int(only_SS[i, j]), int(only_SS[j, i]), p, float(adjusted))
        for (i, j), p, adjusted in zip(found, p_values, holm(p_values), strict=True)
    )


def single_system(
    name: str,
    kind: SystemKind,
    probs_NK: AnyFloatArray,
    validation_error: float = NAN,
    train_seconds: float = NAN,
    likelihood: float = NAN,
) -> System:
    """A system of one network; see System."""
    decision = decide_scores(probs_NK.astype(np.float64))
    return System(name, kind, decision, probs_NK[None], validation_error, train_seconds, likelihood)
