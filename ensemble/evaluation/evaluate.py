"""The judgement of a run: stored votes in, one `Evaluation` out. No training code, no device, no randomness but a seed.

Everything that is chosen (the reference member, weights, temperatures, selections) is chosen on validation votes
before the test votes are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ensemble.config.schema import AGGREGATORS, WEIGHING, Aggregator
from ensemble.evaluation.aggregation import Decision, decide
from ensemble.evaluation.choosing import Choices, choose_all
from ensemble.evaluation.controls import ControlVotes
from ensemble.evaluation.disputed import disputed_rows
from ensemble.evaluation.judged_sections import SectionsAtWork
from ensemble.evaluation.label_review import ReviewedLabels, reviewed_labels
from ensemble.evaluation.leaderboard import Judge, adjust_p_values, member_rows
from ensemble.evaluation.out_of_bag import OutOfBag
from ensemble.evaluation.record_base import per_second
from ensemble.evaluation.records import (
    OWN_PLACES,
    VERSION,
    AgainstBaseline,
    AgainstControl,
    Evaluation,
    LeaderboardRow,
    MemberFacts,
)
from ensemble.evaluation.screening import duplicate_warnings, finite_members
from ensemble.evaluation.section import JudgedVotes
from ensemble.evaluation.set_votes import HowToVote
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.evaluation.verdict import against_baseline, against_control, give_verdict
from ensemble.types import FloatArray, IntArray

BASELINE = "one network on all training rows"


@dataclass(frozen=True, eq=False)
class Baseline:
    """One network that does not vote: its decisions, and what it took."""

    validation: Decision
    test: Decision
    facts: MemberFacts

    @classmethod
    def of(cls, validation_NK: FloatArray, test_NK: FloatArray, facts: MemberFacts) -> Baseline:
        """By its probabilities on the two parts."""
        return cls(decide("soft", validation_NK[None]), decide("soft", test_NK[None]), facts)


def evaluate(
    validation: SplitVotes,
    test: SplitVotes,
    members: Sequence[MemberFacts],
    aggregator: Aggregator,
    vote_weights_M: AnyFloatArray | None,
    asked_members: int,
    dataset: str,
    class_names: Sequence[str],
    out_of_bag: OutOfBag | None = None,
    *,
    baseline: Baseline | None = None,
    controls: Sequence[ControlVotes] = (),
    calibration: SplitVotes | None = None,
    choose: bool = True,
    seed: int = 0,
) -> Evaluation:
    """Judge an ensemble by its votes.

    members: facts in the order of the votes. aggregator: the headline vote. vote_weights_M: the method's own weights
    for the weighted vote; without them it takes log-odds weights from validation. asked_members: how many the
    configuration wanted. baseline: one network on all training rows, which does not vote.
    controls: further networks that do not vote. calibration: votes on rows that nothing else is chosen by, for thresholds and
    prediction sets; without them thresholds come from validation. choose: also selection, stacking and temperatures, which
    take longer. seed: random orders of the size curve, folds and selections. Raises QuorumError when no member can vote, PeekingError when `validation`
    holds test votes.
    """
    require_choosable(validation)
    assert test.split == "test", f"expected test votes, found {test.split}"
    assert validation.num_members == test.num_members == len(members), "votes and members do not match"
    assert validation.num_classes == test.num_classes == len(class_names), "votes and class names do not match"
    finite, excluded = finite_members({"validation": validation.probs_MNK, "test": test.probs_MNK}, members)
    validation, test, members = validation.members(finite), test.members(finite), [members[m] for m in finite]
    calibration = None if calibration is None else calibration.members(finite)
    method_weights_M = None if vote_weights_M is None else vote_weights_M[finite]
    choices = choose_all(validation, aggregator, method_weights_M, choose, seed)
    how = HowToVote(aggregator, choices.weights_M if aggregator in WEIGHING else None, choices.reference)
    votes = JudgedVotes(
        test, how.vote(test.probs_MNK), how, tuple(members), dataset, tuple(class_names), seed,
        None if out_of_bag is None else out_of_bag.members(finite),
    )  # fmt: skip
    judged, warnings = _judged(validation, votes, choices, baseline, controls, calibration)
    return Evaluation(
        version=VERSION,
        dataset=dataset,
        class_names=tuple(class_names),
        aggregator=aggregator,
        asked_members=asked_members,
        degraded=len(members) < asked_members,
        members=tuple(members),
        excluded=tuple(excluded),
        validation_rows=validation.num_rows,
        test_rows=test.num_rows,
        choices=choices.records(members),
        warnings=(
            *(f"member {member.index} does not vote: {member.reason}" for member in excluded),
            *duplicate_warnings(test, members),
            *choices.warnings(members),
            *warnings,
        ),
        **judged,
    )


def _judged(
    validation: SplitVotes,
    votes: JudgedVotes,
    choices: Choices,
    baseline: Baseline | None,
    controls: Sequence[ControlVotes],
    calibration: SplitVotes | None,
) -> tuple[dict[str, Any], list[str]]:
    """All that is read off the test votes, by its name in the Evaluation, and what is to be known of it."""
    test, vote, members = votes.test, votes.vote, votes.members
    labels_N = test.labels_N
    review, doubt = reviewed_labels(votes.dataset, labels_N), votes.doubt
    # The long ones beside each other: numpy leaves the interpreter to the others while it computes.
    with ThreadPoolExecutor() as pool:
        at_work = SectionsAtWork(validation, calibration, votes, pool)
        leaderboard = _leaderboard(validation, test, members, votes.how.aggregator, choices, review, baseline, controls)
        found, warnings = at_work.results()
    headline = leaderboard[0]
    best = next(row for row in leaderboard if row.kind == "best_member")
    mean = next(row for row in leaderboard if row.kind == "mean_member")
    judged = {
        "verdict": give_verdict(headline, best, len(members), test.num_rows),
        "leaderboard": leaderboard,
        "baseline": None if baseline is None else _against(baseline, vote, leaderboard, labels_N),
        "controls": tuple(_against_control(one, vote, leaderboard, labels_N) for one in controls),
        "gain_per_second": _gain_per_second(headline.test_error, mean.test_error, members),
        "disputed": disputed_rows(test, vote, doubt),
        **{name: record for name, record in found.items() if name in OWN_PLACES},
        "sections": {name: record for name, record in found.items() if name not in OWN_PLACES and record is not None},
    }
    return judged, warnings


def _gain_per_second(vote_error: float, member_error: float, members: Sequence[MemberFacts]) -> float:
    """Error the vote saves against the mean member, per second of training that the other members took."""
    seconds = sum(facts.train_seconds for facts in members)
    return per_second(member_error - vote_error, seconds * (1 - 1 / len(members)))


def _against(
    baseline: Baseline, vote: Decision, leaderboard: Sequence[LeaderboardRow], labels_N: IntArray
) -> AgainstBaseline:
    row = next(row for row in leaderboard if row.kind == "baseline")
    return against_baseline(leaderboard[0], row, *_discordant(vote, baseline.test, labels_N), len(labels_N))


def _against_control(
    control: ControlVotes, vote: Decision, leaderboard: Sequence[LeaderboardRow], labels_N: IntArray
) -> AgainstControl:
    row = next(row for row in leaderboard if row.kind == control.control)
    counts = _discordant(vote, control.test, labels_N)
    return against_control(leaderboard[0], row, control, *counts, len(labels_N))


def _discordant(vote: Decision, other: Decision, labels_N: IntArray) -> tuple[int, int]:
    """Rows that only the vote gets wrong, and those that only the other does."""
    wrong_N, other_N = vote.classes_N != labels_N, other.classes_N != labels_N
    return int((wrong_N & ~other_N).sum()), int((~wrong_N & other_N).sum())


def _leaderboard(
    validation: SplitVotes,
    test: SplitVotes,
    members: Sequence[MemberFacts],
    aggregator: Aggregator,
    choices: Choices,
    review: ReviewedLabels | None,
    baseline: Baseline | None,
    controls: Sequence[ControlVotes],
) -> tuple[LeaderboardRow, ...]:
    """The headline, the other votes, the chosen ones, then the members."""
    reference_wrong_N = decide("soft", test.probs_MNK[[choices.reference]]).classes_N != test.labels_N
    judge = Judge(validation.labels_N, test.labels_N, reference_wrong_N, review)

    def both(name: Aggregator) -> tuple[Decision, Decision]:
        weights_M = choices.weights_M if name in WEIGHING else None
        return decide(name, validation.probs_MNK, weights_M), decide(name, test.probs_MNK, weights_M)

    rows = [judge.row("vote", f"{aggregator} vote", *both(aggregator), members)]
    rows[0] = replace(rows[0], headline=True)
    rows += [
        judge.row("vote", f"{name} vote", *both(name), members)
        for name in AGGREGATORS
        if name not in (aggregator, "additive")
    ]
    spent = float(sum(member.train_seconds for member in members))
    for chosen in choices.votes:
        needed = [members[m] for m in chosen.needed]
        decision = chosen.vote(test.probs_MNK)
        # Whoever was not taken had to be trained to find that out.
        rows.append(
            judge.row("chosen", chosen.name, chosen.validation, decision, needed, seconds=spent, note=chosen.note)
        )
    best, *others = member_rows(judge, validation, test, members, choices.reference)
    rows.append(best)
    if baseline is not None:
        rows.append(judge.row("baseline", BASELINE, baseline.validation, baseline.test, [baseline.facts]))
    rows += [judge.row(one.control, one.name, one.validation, one.test, [one.facts]) for one in controls]
    rows += others
    return adjust_p_values(rows)
