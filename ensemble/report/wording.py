"""The sentences and names that the console, the page and the card have in common.

How single numbers are written is `ensemble.evaluation.written`'s business; its functions are offered here too.
"""

from __future__ import annotations

import math

from ensemble.evaluation.power import needed_rows
from ensemble.evaluation.records import Balance, Evaluation, LeaderboardRow
from ensemble.evaluation.shown_sections import section_lines, section_problems, short_section_lines
from ensemble.evaluation.written import (
    NONE,
    count,
    loss,
    p_equation,
    p_value,
    percent,
    percent_interval,
    plural,
    points,
    seconds,
)
from ensemble.outside.names import shown
from ensemble.report.further_wording import long_lines, short_lines

UNEQUAL = 1.5  # times the smallest class that the largest may have before the two means are told apart
__all__ = [
    "NONE", "cautions", "context", "count", "essentials", "large_count", "loss", "milliseconds", "outlook", "p_equation", "p_value", "percent",
    "percent_interval", "plural", "points", "seconds", "short_name", "unequal",
]  # fmt: skip


def large_count(value: float) -> str:
    """A count in little space: millions with two digits."""
    if math.isnan(value):
        return NONE
    return f"{value / 1e6:.2f}M" if value >= 1e6 else f"{value:,.0f}"


def milliseconds(value: float | None) -> str:
    """A time of a prediction, three digits."""
    if value is None:
        return NONE
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def short_name(row: LeaderboardRow, one_recipe: bool) -> str:
    """A line's name for a narrow column; the page has the full one."""
    match row.kind:
        case "best_member":
            return f"best by validation ({row.member})"
        case "oracle":
            return f"oracle, by test ({row.member})"
        case "baseline":
            return "one network, all rows"
        case "longer":
            return row.name.replace("network trained", "network,").replace(" times as long", "x as long")
        case "wider":
            return row.name.replace("network", "network,").replace(" times as wide", "x wide")
        case "member" if one_recipe:
            return f"member {row.member}"
        case "chosen" if row.name.startswith("temperature after"):
            return "temperature after vote"
        case "chosen":
            return row.name.replace("weights by validation log loss", "weights by log loss")
    return row.name


def essentials(evaluation: Evaluation) -> list[str]:
    """What belongs beside the verdict in the shortest answer: one network on all rows, unequal classes, further sets. One sentence each."""
    return _beside(evaluation) + short_lines(evaluation) + short_section_lines(evaluation)


def _beside(evaluation: Evaluation) -> list[str]:
    lines = [] if evaluation.baseline is None else [evaluation.baseline.sentence]
    lines += [one.sentence for one in evaluation.controls]
    if evaluation.balance is not None and unequal(evaluation):
        lines.append(_balance(evaluation, evaluation.balance))
    return lines


def context(evaluation: Evaluation) -> list[str]:
    """All that belongs beside the verdict, with what every section says. One sentence each."""
    lines = _beside(evaluation) + long_lines(evaluation) + section_lines(evaluation)
    return lines + outlook(evaluation)


def outlook(evaluation: Evaluation) -> list[str]:
    """What more of something would bring, as far as the votes say: members, and test images where nothing was decided."""
    lines, curve = [], {point.size: point for point in evaluation.size_curve}
    last = max((size for size in curve if 2 * size in curve), default=0)
    steps = [size for size in (0 if last % 2 else last // 2, last) if size in curve and 2 * size in curve]
    if len(evaluation.members) >= 4:
        falls = [f"from {size} to {2 * size} by {points(curve[2 * size].mean - curve[size].mean)}" for size in steps]
        lines.append(
            f"More members: the vote's error changed {', '.join(falls)} points on average (over random choices of the members); later steps are smaller as a rule."
        )
    verdict = evaluation.verdict
    if verdict.outcome == "not distinguishable" and len(evaluation.members) > 1:
        share = (verdict.only_vote_wrong + verdict.only_member_wrong) / max(1, evaluation.test_rows)
        if (rows := needed_rows(abs(verdict.difference), share)) is not None:
            lines.append(
                f"More test images: were the difference of {points(verdict.difference)} points true, about {_rounded(rows):,} images would show it four times in five."
            )
    return lines


def _rounded(number: int) -> int:
    """Two digits of it, upwards."""
    place = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // place) * place


def unequal(evaluation: Evaluation) -> bool:
    """True where the mean over the classes says something else than the mean over the images."""
    balance = evaluation.balance
    return balance is not None and balance.classes > 1 and balance.largest > UNEQUAL * balance.smallest


def balance_interval(balance: Balance) -> str:
    """The interval of the difference of balanced errors, or why there is none."""
    if math.isnan(balance.difference_lower):
        return "no interval, since the two err alike in every class"
    return f"95 % bootstrap interval {points(balance.difference_lower)} to {points(balance.difference_upper)}"


def _balance(evaluation: Evaluation, balance: Balance) -> str:
    worst = next(result for result in evaluation.classes if result.name == balance.worst)
    compared = (
        f" against {percent(balance.member_error)} % of the single model, a difference of {points(balance.difference)} points "
        f"({balance_interval(balance)})"
        if len(evaluation.members) > 1
        else ""
    )
    return (
        f"Balanced error (the mean over the classes, of which the largest has {balance.largest:,} test images and the smallest {balance.smallest:,}): "
        f"{percent(balance.vote_error)} %{compared}. Worst class: {shown(worst.name)}, {percent(worst.error)} % "
        f"({percent_interval(worst.lower, worst.upper)}) of {plural(worst.rows, 'image')}."
    )


def cautions(evaluation: Evaluation) -> list[str]:
    """What a reader must know before believing the figures: a smaller ensemble than asked for, excluded, duplicates, sections
    that failed."""
    lines = []
    if evaluation.degraded:
        lines.append(
            f"degraded: {len(evaluation.members)} of the {evaluation.asked_members} members asked for vote; "
            "the others failed (starting the run again trains them) or the method ended early (its notices say why)"
        )
    return [*lines, *evaluation.warnings, *section_problems(evaluation)]
