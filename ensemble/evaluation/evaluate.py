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
from ensemble.evaluation import sections
from ensemble.evaluation.aggregation import Decision, decide
from ensemble.evaluation.answering import selective
from ensemble.evaluation.balance import balance_of
from ensemble.evaluation.choosing import Choices, choose_all
from ensemble.evaluation.decomposition import uncertainty
from ensemble.evaluation.label_review import ReviewedLabels, reviewed_labels
from ensemble.evaluation.leaderboard import Judge, adjust_p_values, member_rows
from ensemble.evaluation.metrics import confusion_matrix
from ensemble.evaluation.out_of_bag import OutOfBag
from ensemble.evaluation.prediction_sets import prediction_sets
from ensemble.evaluation.records import VERSION, AgainstBaseline, Evaluation, LeaderboardRow, MemberFacts
from ensemble.evaluation.screening import duplicate_warnings, finite_members
from ensemble.evaluation.set_votes import HowToVote
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.evaluation.verdict import against_baseline, give_verdict
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
    calibration: SplitVotes | None = None,
    choose: bool = True,
    seed: int = 0,
) -> Evaluation:
    """Judge an ensemble by its votes.

    members: facts in the order of the votes. aggregator: the headline vote. vote_weights_M: the method's own weights
    for the weighted vote; without them it takes log-odds weights from validation. asked_members: how many the
    configuration wanted. baseline: one network on all training rows, which does not vote. calibration: votes on rows that
    nothing else is chosen by, for thresholds and prediction sets; without them thresholds come from validation. choose: also selection, stacking and temperatures, which take longer. seed: random orders of
    the size curve, folds and selections. Raises QuorumError when no member can vote, PeekingError when `validation`
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
        out_of_bag=None
        if out_of_bag is None
        else sections.out_of_bag_result(out_of_bag.members(finite), test.num_classes),
        warnings=(
            *(f"member {member.index} does not vote: {member.reason}" for member in excluded),
            *duplicate_warnings(test, members),
            *choices.warnings(members),
            *sections.left_out_of_matrices(len(members)),
        ),
        **_test_sections(
            validation, test, members, aggregator, choices, dataset, class_names, seed, baseline, calibration
        ),
    )


def _test_sections(
    validation: SplitVotes,
    test: SplitVotes,
    members: Sequence[MemberFacts],
    aggregator: Aggregator,
    choices: Choices,
    dataset: str,
    class_names: Sequence[str],
    seed: int,
    baseline: Baseline | None,
    calibration: SplitVotes | None,
) -> dict[str, Any]:
    """All that is read off the test votes, by its name in the Evaluation."""
    labels_N = test.labels_N
    weights_M = choices.weights_M if aggregator in WEIGHING else None
    how = HowToVote(aggregator, weights_M, choices.reference)
    vote, doubt = how.vote(test.probs_MNK), uncertainty(test.probs_MNK)
    review = reviewed_labels(dataset, labels_N)
    # The long sections beside each other: numpy leaves the interpreter to the others while it computes.
    with ThreadPoolExecutor() as pool:
        subsets = pool.submit(sections.subsets, test, aggregator, weights_M, members, seed)
        cascade = pool.submit(sections.cascade, validation, test)
        answering = pool.submit(selective, calibration or validation, test, how, seed)
        ambiguities = pool.submit(sections.ambiguities, test)
        leaderboard = _leaderboard(validation, test, members, aggregator, choices, review, baseline)
    curve, contributions = subsets.result()
    headline = leaderboard[0]
    best = next(row for row in leaderboard if row.kind == "best_member")
    mean = next(row for row in leaderboard if row.kind == "mean_member")
    confusion_KK = confusion_matrix(labels_N, vote.classes_N, test.num_classes)
    classes = sections.class_results(confusion_KK, class_names)
    reference = decide("soft", test.probs_MNK[[choices.reference]])
    return {
        "verdict": give_verdict(headline, best, len(members), test.num_rows),
        "leaderboard": leaderboard,
        "baseline": None if baseline is None else _against(baseline, vote, leaderboard, labels_N),
        "diversity": sections.diversity(test),
        "confusion": tuple(tuple(row) for row in confusion_KK.tolist()),
        "classes": classes,
        "balance": balance_of(vote.classes_N, reference.classes_N, labels_N, classes, seed),
        "size_curve": curve,
        "contributions": contributions,
        "gain_per_second": sections.ensemble_gain_per_second(headline.test_error, mean.test_error, members),
        "calibration": sections.calibration(vote, labels_N, seed),
        "ambiguity": ambiguities.result(),
        "uncertainty": sections.uncertainty_summary(doubt, vote, labels_N),
        "risk_coverage": sections.risk(vote, labels_N),
        "selective": answering.result(),
        "conformal": None if calibration is None else prediction_sets(calibration, test, how),
        "disputed": sections.disputed_rows(test, vote, doubt),
        "cascade": cascade.result(),
        "label_review": None if review is None else sections.label_review(review, vote, labels_N),
    }


def _against(
    baseline: Baseline, vote: Decision, leaderboard: Sequence[LeaderboardRow], labels_N: IntArray
) -> AgainstBaseline:
    wrong_N, other_N = vote.classes_N != labels_N, baseline.test.classes_N != labels_N
    row = next(row for row in leaderboard if row.kind == "baseline")
    counts = int((wrong_N & ~other_N).sum()), int((~wrong_N & other_N).sum())
    return against_baseline(leaderboard[0], row, *counts, len(labels_N))


def _leaderboard(
    validation: SplitVotes,
    test: SplitVotes,
    members: Sequence[MemberFacts],
    aggregator: Aggregator,
    choices: Choices,
    review: ReviewedLabels | None,
    baseline: Baseline | None,
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
    rows += others
    return adjust_p_values(rows)
