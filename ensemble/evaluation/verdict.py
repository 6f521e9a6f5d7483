"""The answer to the one question: is the ensemble better than the single model? As data and as a sentence."""

from __future__ import annotations

import math

from ensemble.evaluation.controls import ControlVotes
from ensemble.evaluation.power import detectable_difference
from ensemble.evaluation.records import AgainstBaseline, AgainstControl, LeaderboardRow, Outcome, Verdict
from ensemble.evaluation.statistics import mcnemar_exact, paired_difference_interval
from ensemble.evaluation.written import ALPHA, p_equation, percent, points

__all__ = ["ALPHA", "against_baseline", "against_control", "give_verdict"]

_CLAIMS: dict[Outcome, str] = {
    "better": "is better than",
    "worse": "is worse than",
    "not distinguishable": "is not distinguishable from",
}


def give_verdict(
    headline: LeaderboardRow, reference: LeaderboardRow, members: int, rows: int, alpha: float = ALPHA
) -> Verdict:
    """Compare the headline vote with the reference member on the same test rows by the exact McNemar test."""
    b, c = headline.only_this_wrong, headline.only_best_wrong
    assert b is not None, "the headline has been tested"
    assert c is not None, "the headline has been tested"
    assert reference.member is not None, "the reference is a single member"
    outcome: Outcome = "not distinguishable"
    if headline.p_value < alpha:
        outcome = "better" if b < c else "worse"
    interval = paired_difference_interval(b, c, rows)
    verdict = Verdict(
        outcome=outcome,
        alpha=alpha,
        p_value=headline.p_value,
        only_vote_wrong=b,
        only_member_wrong=c,
        vote_error=headline.test_error,
        member_error=reference.test_error,
        member=reference.member,
        difference=(b - c) / rows,
        difference_lower=interval.lower,
        difference_upper=interval.upper,
        sentence="",
        detectable=float("nan") if members == 1 else detectable_difference(b + c, rows, alpha),
    )
    sentence = _alone(headline) if members == 1 else _sentence(verdict, headline.name, members, rows)
    return Verdict(**{**vars(verdict), "sentence": sentence})


def against_baseline(
    vote: LeaderboardRow, baseline: LeaderboardRow, only_vote: int, only_baseline: int, rows: int, alpha: float = ALPHA
) -> AgainstBaseline:
    """Compare the headline vote with the one network that does not vote, on the same test rows, by the exact McNemar test.

    only_vote, only_baseline: test rows that only the one of the two gets wrong.
    """
    said = _Against("One network on all training rows", vote, baseline, only_vote, only_baseline, rows, alpha)
    return AgainstBaseline(
        said.outcome, said.p_value, only_vote, only_baseline, vote.test_error, baseline.test_error, said.difference,
        said.interval.lower, said.interval.upper, said.detectable, said.sentence,
    )  # fmt: skip


def against_control(
    vote: LeaderboardRow, control: LeaderboardRow, votes: ControlVotes, only_vote: int, only_control: int, rows: int
) -> AgainstControl:
    """The same for a control network."""
    what = f"{votes.name[0].upper()}{votes.name[1:]} ({votes.in_words(int(vote.num_parameters))})"
    said = _Against(what, vote, control, only_vote, only_control, rows, ALPHA)
    return AgainstControl(
        votes.control, said.outcome, said.p_value, only_vote, only_control, vote.test_error, control.test_error,
        said.difference, said.interval.lower, said.interval.upper, said.detectable, votes.epochs, votes.factor,
        votes.facts.num_parameters, int(vote.num_parameters), said.sentence,
    )  # fmt: skip


class _Against:
    """The headline vote beside one network that does not vote, on the same test rows."""

    def __init__(
        self, what: str, vote: LeaderboardRow, other: LeaderboardRow, b: int, c: int, rows: int, alpha: float
    ) -> None:
        self.p_value = mcnemar_exact(b, c)
        self.outcome: Outcome = "not distinguishable"
        if self.p_value < alpha:
            self.outcome = "better" if b < c else "worse"
        self.interval = paired_difference_interval(b, c, rows)
        self.detectable = detectable_difference(b + c, rows, alpha)
        self.difference = (b - c) / rows
        self.sentence = (
            f"{what}: the {vote.name} {_CLAIMS[self.outcome]} it, test error {percent(vote.test_error)} % against "
            f"{percent(other.test_error)} %, a difference of {points(self.difference)} points (95 % interval {points(self.interval.lower)} to "
            f"{points(self.interval.upper)}; only the vote gets {b} wrong, only the network {c}; {p_equation(self.p_value)})."
        )


def _alone(headline: LeaderboardRow) -> str:
    return (
        f"There is only one member, so there is nothing to compare: its test error is "
        f"{percent(headline.test_error)} % (95 % interval {percent(headline.lower)} % to {percent(headline.upper)} %)."
    )


def _sentence(verdict: Verdict, vote: str, members: int, rows: int) -> str:
    sentence = (
        f"The {vote} of {members} members {_CLAIMS[verdict.outcome]} the single model that validation picks (member {verdict.member}): "
        f"test error {percent(verdict.vote_error)} % against {percent(verdict.member_error)} %, a difference of "
        f"{points(verdict.difference)} points (95 % interval {points(verdict.difference_lower)} to "
        f"{points(verdict.difference_upper)}); of {rows:,} test images only the vote gets {verdict.only_vote_wrong} "
        f"wrong, only the single model {verdict.only_member_wrong} (exact McNemar test, {p_equation(verdict.p_value)})."
    )
    return sentence + _shown_by(verdict.detectable, rows) if verdict.outcome == "not distinguishable" else sentence


def _shown_by(detectable: float, rows: int) -> str:
    """What difference could have been seen."""
    if math.isnan(detectable):
        return f" {rows:,} images are too few to show any difference."
    return f" So many images show a difference of {percent(detectable)} points four times in five, a smaller one less often."
