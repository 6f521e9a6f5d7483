"""The parts of an Evaluation besides the leaderboard, each computed from test votes and put into its record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.config.schema import Aggregator
from ensemble.evaluation import diversity as pairwise
from ensemble.evaluation.aggregation import Decision
from ensemble.evaluation.calibration import (
    Bins,
    confidence_of,
    equal_mass_bins,
    equal_width_bins,
    expected_calibration_error,
)
from ensemble.evaluation.cascade import ask, choose_threshold, stages
from ensemble.evaluation.decomposition import UncertaintyTerms, brier_ambiguity, log_ambiguity, mean_log_gain
from ensemble.evaluation.label_review import RULE, ReviewedLabels
from ensemble.evaluation.metrics import class_errors, wrong_rows
from ensemble.evaluation.out_of_bag import OutOfBag, out_of_bag_vote
from ensemble.evaluation.records import (
    Ambiguity,
    Calibration,
    CascadeResult,
    ClassResult,
    Contribution,
    DisputedRow,
    Diversity,
    LabelReview,
    MemberFacts,
    OutOfBagResult,
    PairMeasure,
    ReliabilityBin,
    RiskCoverage,
    SizePoint,
    Uncertainty,
)
from ensemble.evaluation.risk import most_disputed, risk_coverage
from ensemble.evaluation.size_curve import contested_rows, leave_one_out_gains, size_curve
from ensemble.evaluation.smooth_calibration import class_wise_ece, smooth_ece, smooth_ece_interval
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.statistics import wilson_interval
from ensemble.types import DoubleArray, IntArray

NAN = float("nan")
PAIRED_MEMBERS = 1500  # members whose pairs are all measured
MATRIX_MEMBERS = 100  # members of the matrices kept: they grow with the square, and nobody reads larger ones


def diversity(test: SplitVotes) -> Diversity:
    """All pairwise measures; the two that are plain shares of rows also as matrices, of the first MATRIX_MEMBERS members.

    Of more than PAIRED_MEMBERS members, as many at equal distances are paired: the pairs of ten thousand take gigabytes.
    """
    classes_MN, members = test.favourites_MN, test.num_members
    if members <= PAIRED_MEMBERS:
        found = kept = _pairwise(classes_MN, test)
    else:
        found = _pairwise(classes_MN[np.linspace(0, members - 1, PAIRED_MEMBERS).round().astype(np.int64)], test)
        kept = _pairwise(classes_MN[:MATRIX_MEMBERS], test)
    return Diversity(
        measures=tuple(_pair_measure(name, values) for name, values in found.items()),
        disagreement=_rows(kept["disagreement"]),
        double_fault=_rows(kept["double_fault"]),
    )


def _pairwise(classes_MN: IntArray, test: SplitVotes) -> dict[str, DoubleArray]:
    """Each measure of every pair of these members, by name."""
    counts = pairwise.pair_counts(wrong_rows(classes_MN, test.labels_N))
    return {
        "disagreement": pairwise.label_disagreement(classes_MN, test.num_classes),
        "q_statistic": pairwise.q_statistic(counts),
        "correlation": pairwise.error_correlation(counts),
        "kappa": pairwise.correctness_kappa(counts),
        "double_fault": pairwise.double_fault(counts),
    }


def _pair_measure(name: str, values_MM: DoubleArray) -> PairMeasure:
    values = pairwise.pairs(values_MM)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return PairMeasure(name, NAN, NAN, NAN, len(values))
    return PairMeasure(
        name, float(defined.mean()), float(defined.min()), float(defined.max()), len(values) - len(defined)
    )


def _rows(values_MM: DoubleArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values_MM[:MATRIX_MEMBERS, :MATRIX_MEMBERS].tolist())


def left_out_of_matrices(members: int) -> tuple[str, ...]:
    """What the judgement does not hold pair by pair, in words; nothing for ensembles of a usual size."""
    if members <= MATRIX_MEMBERS:
        return ()
    paired = "all pairs" if members <= PAIRED_MEMBERS else f"all pairs of {PAIRED_MEMBERS:,} members at equal distances"
    return (
        f"disagreement and double fault are kept pair by pair for the first {MATRIX_MEMBERS} of {members:,} members; means, lowest and highest values of measures of pairs are over {paired}",
    )


def class_results(confusion_KK: IntArray, class_names: Sequence[str]) -> tuple[ClassResult, ...]:
    """Error and interval per true class."""
    results = []
    for k, (name, error) in enumerate(zip(class_names, class_errors(confusion_KK), strict=True)):
        rows = int(confusion_KK[k].sum())
        wrong = rows - int(confusion_KK[k, k])
        results.append(ClassResult(name, rows, wrong, float(error), *wilson_interval(wrong, rows)))
    return tuple(results)


def subsets(
    test: SplitVotes,
    aggregator: Aggregator,
    weights_M: DoubleArray | None,
    members: Sequence[MemberFacts],
    seed: int,
) -> tuple[tuple[SizePoint, ...], tuple[Contribution, ...]]:
    """The size curve and what each member adds, for the headline vote."""
    contested = contested_rows(aggregator, test, weights_M)
    curve = tuple(SizePoint(*point) for point in size_curve(contested, seed))
    gains = leave_one_out_gains(contested)
    contributions = tuple(
        Contribution(facts.index, float(gain), _per_second(float(gain), facts.train_seconds))
        for facts, gain in zip(members, gains, strict=True)
    )
    return curve, contributions


def ensemble_gain_per_second(vote_error: float, member_error: float, members: Sequence[MemberFacts]) -> float:
    """Error the vote saves against the mean member, per second of training that the other members took."""
    seconds = sum(facts.train_seconds for facts in members)
    return _per_second(member_error - vote_error, seconds * (1 - 1 / len(members)))


def _per_second(gain: float, seconds: float) -> float:
    return gain / seconds if seconds > 0 else NAN


def calibration(vote: Decision, labels_N: IntArray, seed: int = 0) -> Calibration:
    """Both errors with their bins, and those that need none. seed: of the bootstrap."""
    confidence_N, right_N = confidence_of(vote.probs_NK, vote.classes_N), vote.classes_N == labels_N
    width, mass = equal_width_bins(confidence_N, right_N), equal_mass_bins(confidence_N, right_N)
    interval = smooth_ece_interval(confidence_N, right_N, seed)
    return Calibration(
        expected_calibration_error(width), expected_calibration_error(mass), _bin_records(width), _bin_records(mass),
        smooth_ece(confidence_N, right_N), interval.lower, interval.upper, class_wise_ece(vote.probs_NK, labels_N),
    )  # fmt: skip


def _bin_records(bins: Bins) -> tuple[ReliabilityBin, ...]:
    columns = (column.tolist() for column in bins)
    return tuple(ReliabilityBin(*values) for values in zip(*columns, strict=True))


def ambiguities(test: SplitVotes) -> tuple[Ambiguity, ...]:
    """The two identities, and the log loss of the mean for comparison."""
    return (
        Ambiguity("brier", *brier_ambiguity(test.probs_MNK, test.labels_N)),
        Ambiguity("log_geometric", *log_ambiguity(test.probs_MNK, test.labels_N)),
        Ambiguity("log_mean", *mean_log_gain(test.probs_MNK, test.labels_N)),
    )


def uncertainty_summary(terms: UncertaintyTerms, vote: Decision, labels_N: IntArray) -> Uncertainty:
    """Means over the rows, and the epistemic part where the vote is right and where it is wrong."""
    right_N = vote.classes_N == labels_N
    return Uncertainty(
        total=float(terms.total_N.mean()),
        aleatoric=float(terms.aleatoric_N.mean()),
        epistemic=float(terms.epistemic_N.mean()),
        epistemic_right=float(terms.epistemic_N[right_N].mean()) if right_N.any() else NAN,
        epistemic_wrong=float(terms.epistemic_N[~right_N].mean()) if not right_N.all() else NAN,
    )


def risk(vote: Decision, labels_N: IntArray) -> RiskCoverage:
    """The risk-coverage curve by the vote's own confidence."""
    curve = risk_coverage(confidence_of(vote.probs_NK, vote.classes_N), vote.classes_N != labels_N)
    return RiskCoverage(tuple(curve.coverage.tolist()), tuple(curve.error.tolist()), curve.area)


def disputed_rows(test: SplitVotes, vote: Decision, terms: UncertaintyTerms) -> tuple[DisputedRow, ...]:
    """The test rows with the most dispute, worst first."""
    classes_MN = test.favourites_MN
    return tuple(
        DisputedRow(
            row=int(row),
            label=int(test.labels_N[row]),
            predicted=int(vote.classes_N[row]),
            votes=tuple(np.bincount(classes_MN[:, row], minlength=test.num_classes).tolist()),
            member_classes=tuple(classes_MN[:, row].tolist()),
            entropy=float(terms.total_N[row]),
            mutual_information=float(terms.epistemic_N[row]),
        )
        for row in most_disputed(terms.epistemic_N, classes_MN)
    )


def out_of_bag_result(bags: OutOfBag, num_classes: int) -> OutOfBagResult:
    """Error of the out-of-bag vote, on the rows that have one."""
    vote = out_of_bag_vote(bags, num_classes)
    rows = len(vote.rows)
    wrong = int((vote.classes_R != bags.labels[vote.rows]).sum())
    return OutOfBagResult(
        error=wrong / rows if rows else NAN,
        wrong=wrong,
        rows=rows,
        never_out=vote.never_out,
        coverage=rows / len(bags.pool) if len(bags.pool) else NAN,
        lower=wilson_interval(wrong, rows).lower,
        upper=wilson_interval(wrong, rows).upper,
        mean_voters=float(vote.voters_R.mean()) if rows else NAN,
    )


def cascade(validation: SplitVotes, test: SplitVotes) -> CascadeResult | None:
    """Members asked in turn; None for a single one."""
    if test.num_members == 1:
        return None
    threshold = choose_threshold(validation)
    on_validation, found = ask(stages(validation.probs_MNK), threshold), stages(test.probs_MNK)
    on_test = ask(found, threshold)
    wrong = int((on_test.classes_N != test.labels_N).sum())
    interval = wilson_interval(wrong, test.num_rows)
    return CascadeResult(
        threshold=threshold if np.isfinite(threshold) else NAN,
        validation_error=float((on_validation.classes_N != validation.labels_N).mean()),
        test_error=wrong / test.num_rows,
        lower=interval.lower,
        upper=interval.upper,
        mean_members=float(on_test.members_N.mean()),
        stopped_first=float((on_test.members_N == 1).mean()),
        full_test_error=float((found.classes_MN[-1] != test.labels_N).mean()),
    )


def label_review(review: ReviewedLabels, vote: Decision, labels_N: IntArray) -> LabelReview:
    """The vote against the reviewed labels, and how many doubted images it gets "wrong" by the given ones."""
    wrong, rows = review.wrong(vote.classes_N), int(review.counted_N.sum())
    return LabelReview(
        source=review.source,
        rule=RULE,
        corrected=review.corrected,
        left_out=review.left_out,
        rows=rows,
        wrong=wrong,
        error=wrong / rows,
        lower=wilson_interval(wrong, rows).lower,
        upper=wilson_interval(wrong, rows).upper,
        wrong_on_doubted=int((vote.classes_N != labels_N)[review.doubted].sum()),
    )
