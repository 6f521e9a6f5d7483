"""The answer to the one question: is the ensemble better than the single model? As data and as a sentence."""

from __future__ import annotations

from ensemble.evaluation.records import LeaderboardRow, Outcome, Verdict
from ensemble.evaluation.statistics import paired_difference_interval

ALPHA = 0.05


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
    )
    sentence = _alone(headline) if members == 1 else _sentence(verdict, headline.name, members, rows)
    return Verdict(**{**vars(verdict), "sentence": sentence})


def _alone(headline: LeaderboardRow) -> str:
    return (
        f"There is only one member, so there is nothing to compare: its test error is {_percent(headline.test_error)} "
        f"(95 % interval {_percent(headline.lower)} to {_percent(headline.upper)})."
    )


def _sentence(verdict: Verdict, vote: str, members: int, rows: int) -> str:
    claim = {
        "better": "is better than",
        "worse": "is worse than",
        "not distinguishable": "is not distinguishable from",
    }[verdict.outcome]
    p = "p < 0.0001" if verdict.p_value < 1e-4 else f"p = {verdict.p_value:.2g}"
    return (
        f"The {vote} of {members} members {claim} the single model that validation picks (member {verdict.member}): "
        f"test error {_percent(verdict.vote_error)} against {_percent(verdict.member_error)}, a difference of "
        f"{100 * verdict.difference:+.2f} points (95 % interval {100 * verdict.difference_lower:+.2f} to "
        f"{100 * verdict.difference_upper:+.2f}); of {rows:,} test images only the vote gets {verdict.only_vote_wrong} "
        f"wrong, only the single model {verdict.only_member_wrong} (exact McNemar test, {p})."
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
