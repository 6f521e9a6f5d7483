"""The judgement on further sets as plain records: shifted images, images of none of the classes. Conventions as in `records`.

`vote` is the headline vote, `member` the single member that validation picks, on the same images.
"""

from __future__ import annotations

from dataclasses import dataclass

from ensemble.evaluation.record_base import NAN, Number, Record
from ensemble.evaluation.set_votes import Beside


@dataclass(frozen=True)
class ShiftedPart(Record):
    """One part of a shifted set, such as one corruption at one severity.

    wrong, lower, upper: of vote_error, with Wilson's interval. difference = vote - member, with the interval that belongs to the
    exact McNemar test; p_holm: its p-value adjusted over the parts of the set. ece: 15 bins of equal width. baseline_error: of
    the one network on all training rows; longer_error, wider_error: of the controls.
    """

    label: str
    vote_error: float
    wrong: int
    lower: float
    upper: float
    member_error: float
    mean_member_error: float
    baseline_error: Number
    difference: float
    difference_lower: float
    difference_upper: float
    p_value: float
    p_holm: float
    vote_nll: Number
    member_nll: float
    vote_brier: float
    member_brier: float
    vote_ece: float
    member_ece: float
    longer_error: Number = NAN
    wider_error: Number = NAN


@dataclass(frozen=True)
class ShiftedBeside(Record):
    """One network that does not vote on a shifted set, all parts together, and the vote beside it.

    error with Wilson's interval of a single part, of several that of a bootstrap over the images. difference = vote - error, negative
    is better; its interval and p-value are as those of `ShiftedSet.difference`. A question of its own, not adjusted for others.
    """

    which: Beside
    name: str
    error: float
    lower: Number
    upper: Number
    difference: float
    difference_lower: Number
    difference_upper: Number
    p_value: float
    nll: float
    brier: float
    ece: float


@dataclass(frozen=True)
class ShiftedSet(Record):
    """A set of images of the run's classes, taken or changed in another way. Figures of the whole set are means over its parts.

    The interval and the p-value of `difference` are of a bootstrap over the images, each with all its parts; of a single part its own,
    exact ones. Those of `nll_difference` are of Student's t over the images. relative_gain = 1 - vote_error / member_error;
    clean_gain: the same of the test images. voters: members that voted on every part. beside: networks that do not vote.
    """

    name: str
    source: str
    images: int
    voters: int
    parts: tuple[ShiftedPart, ...]
    vote_error: float
    member_error: float
    mean_member_error: float
    baseline_error: Number
    difference: float
    difference_lower: Number
    difference_upper: Number
    p_value: float
    relative_gain: Number
    relative_gain_lower: Number
    relative_gain_upper: Number
    clean_gain: Number
    vote_nll: Number
    member_nll: float
    nll_difference: Number
    nll_difference_lower: Number
    nll_difference_upper: Number
    vote_brier: float
    member_brier: float
    vote_ece: float
    member_ece: float
    beside: tuple[ShiftedBeside, ...] = ()


@dataclass(frozen=True)
class UnknownScore(Record):
    """How well one score tells images of none of the classes from test images; higher scores are meant for known ones.

    auroc with DeLong's interval. fpr95: share of test images rejected where 95 % of the unknown images are caught (the convention
    of OpenOOD), with a bootstrap interval; fpr95_known: share of unknown images accepted where 95 % of the test images are.
    aupr_unknown, aupr_known: area under precision and recall with either as the positive kind. member_auroc: of the same score of the
    member that validation picks, or of its max probability where one network has no such score; difference = auroc - member_auroc
    with DeLong's paired interval and p-value; p_holm: adjusted over the scores but the chosen one.
    """

    score: str
    auroc: float
    lower: Number
    upper: Number
    fpr95: float
    fpr95_lower: Number
    fpr95_upper: Number
    fpr95_known: float
    aupr_unknown: float
    aupr_known: float
    member_auroc: float
    difference: float
    difference_lower: Number
    difference_upper: Number
    p_value: Number
    p_holm: Number


@dataclass(frozen=True)
class UnknownBeside(Record):
    """One network that does not vote on a set of unknown images, and the vote beside it.

    score: the vote's, or max probability where one network has no such score. difference = the vote's auroc - auroc, with
    DeLong's paired interval and p-value: a question of its own, not adjusted for others. The rest as in UnknownScore, UnknownSet.
    """

    which: Beside
    name: str
    score: str
    auroc: float
    lower: Number
    upper: Number
    fpr95: float
    fpr95_lower: Number
    fpr95_upper: Number
    difference: float
    difference_lower: Number
    difference_upper: Number
    p_value: Number
    scod_aurc: float


@dataclass(frozen=True)
class MixedPromise(Record):
    """A promised threshold of confidence on test images and unknown ones mixed, in the numbers that they came in.

    kind, risk, threshold: as in `PromiseResult`. coverage: share of all that is answered; mixed_risk: error among the answered, where
    every answer to an unknown image is one. accepted: share of the unknown images that is answered. All with Wilson's intervals.
    outcome: whether the promise, which is of images of the classes alone, is kept there.
    """

    kind: str
    risk: float
    threshold: float
    answered: int
    coverage: float
    coverage_lower: float
    coverage_upper: float
    mixed_risk: Number
    mixed_risk_lower: Number
    mixed_risk_upper: Number
    accepted: float
    accepted_lower: float
    accepted_upper: float
    outcome: str


@dataclass(frozen=True)
class UnknownSet(Record):
    """A set of images of none of the run's classes, beside the test images.

    chosen: the score that counts, fixed before anybody looked where chosen_on is "", else chosen on the set of that name and on
    validation images; on that very set its figures are too good. scod_aurc: the area under the risk-coverage curve by that score of test
    images and unknown ones mixed, where every unknown image that is answered is an error. accepted: share of the unknown images answered at the
    threshold of the first promise (`Selective.promises`), with Wilson's interval. beside: networks that do not vote.
    mixed: every promised threshold with these images mixed into the test images.
    """

    name: str
    source: str
    images: int
    voters: int
    chosen: str
    scores: tuple[UnknownScore, ...]
    scod_aurc: float
    member_scod_aurc: float
    accepted: Number = NAN
    accepted_lower: Number = NAN
    accepted_upper: Number = NAN
    beside: tuple[UnknownBeside, ...] = ()
    chosen_on: str = ""
    mixed: tuple[MixedPromise, ...] = ()
