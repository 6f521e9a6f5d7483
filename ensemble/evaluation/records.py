"""The judgement of a run as plain records: what evaluation.json holds and every table, plot and dashboard is drawn from.

`Evaluation.to_json` and `Evaluation.from_json` are inverse, to the last bit of every float. A figure that does not
exist (an interval of one value, the error of a class without rows) is NaN here and null there. All rates are
fractions, losses in nats, times in seconds. Intervals are 95 %.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ensemble.config.schema import Aggregator
from ensemble.errors import StorageError
from ensemble.evaluation.notebook import Shown
from ensemble.evaluation.record_base import MemberFacts, Number, Record
from ensemble.evaluation.section import section_named
from ensemble.evaluation.sections.ambiguity import Ambiguity
from ensemble.evaluation.sections.calibration import Calibration, ReliabilityBin
from ensemble.evaluation.sections.cascade import CascadeResult
from ensemble.evaluation.sections.classes import Balance, ClassResult, Confusion
from ensemble.evaluation.sections.conformal import Conformal
from ensemble.evaluation.sections.diversity import Diversity, PairMeasure
from ensemble.evaluation.sections.label_review import LabelReview
from ensemble.evaluation.sections.out_of_bag import OutOfBagResult
from ensemble.evaluation.sections.risk_coverage import RiskCoverage
from ensemble.evaluation.sections.selective import Selective
from ensemble.evaluation.sections.size_curve import Contribution
from ensemble.evaluation.sections.uncertainty import Uncertainty
from ensemble.evaluation.set_records import ShiftedSet, UnknownSet
from ensemble.evaluation.size_curve import SizePoint

__all__ = [
    "VERSION",
    "AgainstBaseline",
    "AgainstControl",
    "Ambiguity",
    "Balance",
    "Calibration",
    "CascadeResult",
    "Choice",
    "ClassResult",
    "Contribution",
    "DisputedRow",
    "Diversity",
    "Evaluation",
    "ExcludedMember",
    "Kind",
    "LabelReview",
    "LeaderboardRow",
    "MemberFacts",
    "OutOfBagResult",
    "Outcome",
    "PairMeasure",
    "ReliabilityBin",
    "RiskCoverage",
    "SizePoint",
    "Uncertainty",
    "Verdict",
]  # fmt: skip

VERSION = 1
REMEDY = "`ensemble evaluate RUN --write` writes it anew from the stored votes, and trains nothing"
Count = int | Number  # a mean row has means where others have counts
Kind = Literal["vote", "chosen", "best_member", "baseline", "longer", "wider", "mean_member", "member", "oracle"]
Outcome = Literal["better", "worse", "not distinguishable"]


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
    num_parameters: what the line needs to predict; NaN where one of its members has no network. train_seconds: what was spent to have it.
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
class AgainstControl(Record):
    """The headline vote beside a control network, which asks whether one network would have done, and does not vote.

    control: longer or wider (`config.controls`). epochs: that it trained; factor: by how much it was trained longer, or is wider,
    than a member. parameters: of the network; of_members: of all voting members together. The others as in AgainstBaseline.
    """

    control: Literal["longer", "wider"]
    outcome: Outcome
    p_value: float
    only_vote_wrong: int
    only_control_wrong: int
    vote_error: float
    control_error: float
    difference: float
    difference_lower: float
    difference_upper: float
    detectable: Number
    epochs: int
    factor: float
    parameters: int
    of_members: int
    sentence: str


@dataclass(frozen=True)
class Choice(Record):
    """Something chosen on validation votes: one number per judged member, or a single one."""

    name: str
    values: tuple[float, ...]


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
class Evaluation(Shown, Record):
    """The whole judgement of one run.

    sections: the records of all other sections by name, such as a user's own; that of a section that is not registered
    here is what evaluation.json has of it, as plain values.
    """

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
    confusion: Confusion
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
    controls: tuple[AgainstControl, ...] = ()
    shifted: tuple[ShiftedSet, ...] = ()
    unknown: tuple[UnknownSet, ...] = ()
    selective: Selective | None = None
    conformal: Conformal | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> LeaderboardRow:
        """The line of the vote the run was asked for."""
        return next(row for row in self.leaderboard if row.headline)

    @property
    def can_predict(self) -> bool:
        """False where a member is known by its votes alone, so that nobody can ask the vote about another image."""
        return all(member.num_parameters for member in self.members)

    def section(self, name: str) -> Any:
        """The record of a section, wherever it lies; None where this judgement has none of that name."""
        return getattr(self, name) if name in OWN_PLACES else self.sections.get(name)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes null."""
        record: dict[str, Any] = json.loads(_adapter().dump_json(self, exclude={"sections"}))
        if self.sections:
            record["sections"] = {name: plain_record(name, found) for name, found in self.sections.items()}
        return record

    @staticmethod
    def from_json(record: dict[str, Any]) -> Evaluation:
        """The evaluation of a record made by `to_json`. Raises StorageError for anything else."""
        if record.get("version") != VERSION:
            found = record.get("version")
            raise StorageError(f"evaluation.json: found version {found!r}, expected {VERSION}; {REMEDY}")
        try:
            evaluation = _adapter().validate_python(record)
        except ValidationError as error:
            raise StorageError(f"evaluation.json does not fit this version: {error}; {REMEDY}") from error
        return replace(
            evaluation, sections={name: _as_far_as_it_fits(name, found) for name, found in evaluation.sections.items()}
        )


def plain_record(name: str, found: Any) -> Any:
    """The JSON form of a section's record, or what was read of one that is not registered here."""
    section = section_named(name)
    if section is None or isinstance(found, dict | list):
        return found
    return json.loads(_form(section.record).dump_json(found, warnings=False, fallback=_of_numpy))


def read_record(name: str, stored: Any) -> Any:
    """The record of what `plain_record` made of it, as it is where no such section is registered. Raises ValidationError."""
    section = section_named(name)
    return stored if section is None else _form(section.record).validate_python(stored)


def _as_far_as_it_fits(name: str, stored: Any) -> Any:
    """The record, or what is stored where the section has another record now."""
    try:
        return read_record(name, stored)
    except ValidationError:
        return stored


def _of_numpy(value: Any) -> Any:
    """Numbers and arrays of numpy, which a record may hold, as plain values."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


@cache
def _adapter() -> TypeAdapter[Evaluation]:
    return TypeAdapter(Evaluation)


@cache
def _form(record: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record)


# Sections whose records have a field of their own, where they have always been in evaluation.json.
OWN_PLACES = frozenset(one.name for one in fields(Evaluation)) - {"sections"}
