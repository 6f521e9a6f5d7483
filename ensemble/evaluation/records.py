"""The judgement of a run as plain records: what evaluation.json holds and every table, plot and dashboard is drawn from.

`Evaluation.to_json` and `Evaluation.from_json` are inverse, to the last bit of every float. A figure that does not
exist (an interval of one value, the error of a class without rows) is NaN here and null there. All rates are
fractions, losses in nats, times in seconds. Intervals are 95 %.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ensemble.config.schema import Aggregator
from ensemble.errors import StorageError
from ensemble.evaluation.notebook import Shown
from ensemble.evaluation.record_base import Number, Record
from ensemble.evaluation.set_records import Conformal, Selective, ShiftedSet, UnknownSet

VERSION = 1
REMEDY = "`ensemble evaluate RUN --write` writes it anew from the stored votes, and trains nothing"
Count = int | Number  # a mean row has means where others have counts
Kind = Literal["vote", "chosen", "best_member", "baseline", "mean_member", "member", "oracle"]
Outcome = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True)
class MemberFacts(Record):
    """What is known of a member besides its votes."""

    index: int
    recipe: str
    num_parameters: int
    train_seconds: Number
    kept_epoch: int


@dataclass(frozen=True)
class ExcludedMember(Record):
    """A member that finished but may not vote, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class LeaderboardRow(Record):
    """One line: a vote, a member, or the mean over the members.

    member: index of the single member, None for votes and the mean. wrong: test rows in error.
    lower, upper: Wilson's interval of test_error; for the mean member Student's t interval over at least three members.
    nll: NaN for votes that count votes: the shares of a hard vote are no probabilities.
    num_parameters: what the line needs to predict. train_seconds: what was spent to have it.
    p_value: exact McNemar test on the test rows against the best member by validation; NaN where there is nothing to
        test: that member itself, the mean, and the oracle, which was picked by the very figures a test would use.
    p_holm: p_value adjusted over all lines tested, except the headline, whose test was planned before looking.
    only_this_wrong, only_best_wrong: the discordant counts behind p_value.
    ties: test rows with a tie for the first place. reviewed_error: see LabelReview, NaN without one.
    balanced_error: test error as the mean over the classes; NaN in judgements of earlier versions.
    """

    kind: Kind
    name: str
    headline: bool
    member: int | None
    test_error: Number
    wrong: Count
    lower: Number
    upper: Number
    validation_error: Number
    nll: Number
    brier: Number
    ece: Number
    num_parameters: Count
    train_seconds: Number
    p_value: Number
    p_holm: Number
    only_this_wrong: int | None
    only_best_wrong: int | None
    ties: int | None
    reviewed_error: Number
    note: str = ""
    balanced_error: Number = float("nan")


@dataclass(frozen=True)
class Verdict(Record):
    """Does the headline vote beat the single member that validation picks? difference = vote - member; negative is better.

    detectable: the smallest true difference that this test would find four times in five (`power`); NaN where nothing
    was compared, for want of rows, and in judgements of earlier versions.
    """

    outcome: Outcome
    alpha: float
    p_value: float
    only_vote_wrong: int
    only_member_wrong: int
    vote_error: float
    member_error: float
    member: int
    difference: float
    difference_lower: float
    difference_upper: float
    sentence: str
    detectable: Number = float("nan")


@dataclass(frozen=True)
class AgainstBaseline(Record):
    """The headline vote beside one network that was trained on all training rows by the same recipe, and does not vote.

    difference = vote - baseline; negative is better. p_value: of the exact McNemar test, a second question, planned as
    the verdict's was and not adjusted. detectable: as in Verdict.
    """

    outcome: Outcome
    p_value: float
    only_vote_wrong: int
    only_baseline_wrong: int
    vote_error: float
    baseline_error: float
    difference: float
    difference_lower: float
    difference_upper: float
    detectable: Number
    sentence: str


@dataclass(frozen=True)
class Choice(Record):
    """Something chosen on validation votes: one number per judged member, or a single one."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class PairMeasure(Record):
    """A diversity measure over all pairs of members; undefined pairs (0/0) are counted and left out."""

    name: str
    mean: Number
    lowest: Number
    highest: Number
    undefined: int


@dataclass(frozen=True)
class Diversity(Record):
    """How different the members are on the test rows. disagreement: share of rows with different predicted classes.

    The matrices are of the first members only where there are many (`sections.MATRIX_MEMBERS`); the measures are over
    all pairs, of very many members (`sections.PAIRED_MEMBERS`) of some at equal distances.
    """

    measures: tuple[PairMeasure, ...]
    disagreement: tuple[tuple[float, ...], ...]
    double_fault: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ClassResult(Record):
    """The headline vote on the test rows of one true class."""

    name: str
    rows: int
    wrong: int
    error: Number
    lower: Number
    upper: Number


@dataclass(frozen=True)
class Balance(Record):
    """Balanced errors (means over the classes) on test of the headline vote and of the member that validation picks.

    difference = vote - member, its interval by a bootstrap within each class. classes: those with rows; largest and smallest:
    rows of those; worst: the class with the highest error of the vote.
    """

    vote_error: float
    member_error: float
    difference: float
    difference_lower: float
    difference_upper: float
    classes: int
    largest: int
    smallest: int
    worst: str


@dataclass(frozen=True)
class SizePoint(Record):
    """Test error of votes of `size` members over random orders: mean, 5th and 95th percentile, extremes."""

    size: int
    mean: float
    lower: float
    upper: float
    best: float
    worst: float


@dataclass(frozen=True)
class Contribution(Record):
    """By how much the headline's test error would grow without this member, and that per second of its training."""

    member: int
    gain: Number
    gain_per_second: Number


@dataclass(frozen=True)
class ReliabilityBin(Record):
    lower: float
    upper: float
    count: int
    confidence: Number
    accuracy: Number


@dataclass(frozen=True)
class Calibration(Record):
    """The headline's top-label calibration on test. Bins are (lower, upper]; equal_mass ones have quantiles as edges.

    smooth_ece: the error that needs no bins (`smooth_calibration`), with a bootstrap interval; class_wise_ece: the mean over the
    classes of the error of each class's probability. NaN in judgements of earlier versions.
    """

    ece_equal_width: float
    ece_equal_mass: float
    equal_width: tuple[ReliabilityBin, ...]
    equal_mass: tuple[ReliabilityBin, ...]
    smooth_ece: Number = float("nan")
    smooth_lower: Number = float("nan")
    smooth_upper: Number = float("nan")
    class_wise_ece: Number = float("nan")


@dataclass(frozen=True)
class Ambiguity(Record):
    """combined = members - ambiguity, for one loss and one way of combining, on test with equal weights."""

    loss: Literal["brier", "log_geometric", "log_mean"]
    combined: float
    members: float
    ambiguity: float


@dataclass(frozen=True)
class Uncertainty(Record):
    """Mean doubt per test row in nats: total = aleatoric + epistemic; and the epistemic part of right and wrong rows."""

    total: float
    aleatoric: float
    epistemic: float
    epistemic_right: Number
    epistemic_wrong: Number


@dataclass(frozen=True)
class RiskCoverage(Record):
    """Test error of the headline among its most certain rows, at growing coverage; `area` is the mean over all rows."""

    coverage: tuple[float, ...]
    error: tuple[float, ...]
    area: float


@dataclass(frozen=True)
class DisputedRow(Record):
    """A test row the members dispute: votes per class, and each judged member's class, in the order of the members."""

    row: int
    label: int
    predicted: int
    votes: tuple[int, ...]
    member_classes: tuple[int, ...]
    entropy: float
    mutual_information: float


@dataclass(frozen=True)
class OutOfBagResult(Record):
    """Error on training rows, each judged only by members that did not train on it.

    never_out: rows in every bag; they have no such vote and count neither as right nor as wrong.
    """

    error: Number
    wrong: int
    rows: int
    never_out: int
    coverage: Number
    lower: Number
    upper: Number
    mean_voters: Number


@dataclass(frozen=True)
class LabelReview(Record):
    """The headline against labels that people checked again. The rule says what was counted; the source who checked."""

    source: str
    rule: str
    corrected: int
    left_out: int
    rows: int
    wrong: int
    error: float
    lower: float
    upper: float
    wrong_on_doubted: int


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
class Evaluation(Shown, Record):
    """The whole judgement of one run."""

    version: int
    dataset: str
    class_names: tuple[str, ...]
    aggregator: Aggregator
    asked_members: int
    degraded: bool
    members: tuple[MemberFacts, ...]
    excluded: tuple[ExcludedMember, ...]
    validation_rows: int
    test_rows: int
    verdict: Verdict
    leaderboard: tuple[LeaderboardRow, ...]
    choices: tuple[Choice, ...]
    diversity: Diversity
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[ClassResult, ...]
    size_curve: tuple[SizePoint, ...]
    contributions: tuple[Contribution, ...]
    gain_per_second: Number
    calibration: Calibration
    ambiguity: tuple[Ambiguity, ...]
    uncertainty: Uncertainty
    risk_coverage: RiskCoverage
    disputed: tuple[DisputedRow, ...]
    out_of_bag: OutOfBagResult | None
    label_review: LabelReview | None
    warnings: tuple[str, ...]
    cascade: CascadeResult | None = None
    balance: Balance | None = None
    baseline: AgainstBaseline | None = None
    shifted: tuple[ShiftedSet, ...] = ()
    unknown: tuple[UnknownSet, ...] = ()
    selective: Selective | None = None
    conformal: Conformal | None = None

    @property
    def headline(self) -> LeaderboardRow:
        """The line of the vote the run was asked for."""
        return next(row for row in self.leaderboard if row.headline)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes null."""
        record: dict[str, Any] = json.loads(_adapter().dump_json(self))
        return record

    @staticmethod
    def from_json(record: dict[str, Any]) -> Evaluation:
        """The evaluation of a record made by `to_json`. Raises StorageError for anything else."""
        if record.get("version") != VERSION:
            found = record.get("version")
            raise StorageError(f"evaluation.json: found version {found!r}, expected {VERSION}; {REMEDY}")
        try:
            return _adapter().validate_python(record)
        except ValidationError as error:
            raise StorageError(f"evaluation.json does not fit this version: {error}; {REMEDY}") from error


@cache
def _adapter() -> TypeAdapter[Evaluation]:
    return TypeAdapter(Evaluation)
