"""What the judgement says about shifted images and images of none of the classes, in sentences.

Short ones for every answer, longer ones where all is asked for; console, page and card share them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.set_records import (
    ShiftedBeside,
    ShiftedSet,
    UnknownBeside,
    UnknownScore,
    UnknownSet,
)
from ensemble.evaluation.written import loss, p_equation, percent, percent_interval, plural, points
from ensemble.outside.names import shown

SCORES = {
    "max probability": "its largest probability",
    "entropy": "its entropy",
    "mutual information": "the mutual information of its members",
    "agreement": "the share of members that agree",
}


def short_lines(evaluation: Evaluation) -> list[str]:
    """One sentence for each further set; nothing for a run that was asked nothing further."""
    return _set_lines(evaluation, beside=False)


def long_lines(evaluation: Evaluation) -> list[str]:
    """The same, and the vote beside each network that does not vote."""
    return _set_lines(evaluation, beside=True)


def _set_lines(evaluation: Evaluation, beside: bool) -> list[str]:
    """beside: with the networks that do not vote, behind the set that they were asked about."""
    several, lines = len(evaluation.members) > 1, list[str]()
    for shifted in evaluation.shifted:
        lines.append(_shifted(shifted, several))
        lines += [_shifted_beside(shifted, one) for one in shifted.beside if beside]
    for unknown in evaluation.unknown:
        lines.append(_unknown(unknown, several))
        if beside:
            lines += [_unknown_beside(unknown, one) for one in unknown.beside]
            lines += _mixed(unknown)
    return lines


def _shifted_beside(found: ShiftedSet, one: ShiftedBeside) -> str:
    single = len(found.parts) == 1
    ends = "" if math.isnan(one.lower) else f" ({percent_interval(one.lower, one.upper)})"
    head = f"Shifted, {shown(found.name)}: {one.name} has an error of {percent(one.error)} %{ends}; the vote differs from it by {points(one.difference)} points"
    if math.isnan(one.difference_lower):
        return f"{head}."
    return (
        f"{head} (95 % {'' if single else 'bootstrap '}interval {points(one.difference_lower)} to {points(one.difference_upper)}; "
        f"{'exact McNemar test, ' if single else ''}{p_equation(one.p_value)})."
    )


def _unknown_beside(found: UnknownSet, one: UnknownBeside) -> str:
    ends = "" if math.isnan(one.lower) else f" ({loss(one.lower)} to {loss(one.upper)})"
    tested = (
        ""
        if math.isnan(one.p_value)
        else f" (95 % interval {loss(one.difference_lower)} to {loss(one.difference_upper)}; DeLong's test, {p_equation(one.p_value)})"
    )
    return (
        f"Unknown, {shown(found.name)}: {one.name} tells them by {SCORES[one.score]} with AUROC {loss(one.auroc)}{ends}; the vote's differs by "
        f"{loss(one.difference)}{tested}."
    )


def _mixed(found: UnknownSet) -> Iterator[str]:
    """The risk over all coverages, and at the first promised threshold, with unknown images among the test images."""
    name = shown(found.name)
    yield (
        f"Unknown, {name}: mixed into the test images, every answer to one of these an error: mean error over all coverages (SCOD) "
        f"{percent(found.scod_aurc)} %, the single model {percent(found.member_scod_aurc)} %."
    )
    for one in found.mixed[:1]:
        outcome = "cannot be told to be kept or broken" if one.outcome == "cannot be told" else f"is {one.outcome}"
        yield (
            f"Unknown, {name}: the threshold of {one.threshold:.4f} ({one.kind}: an error of at most {percent(one.risk, 1)} %) answers {percent(one.accepted)} % "
            f"({percent_interval(one.accepted_lower, one.accepted_upper)}) of these; with them among the test images the answers have an error of "
            f"{percent(one.mixed_risk)} % ({percent_interval(one.mixed_risk_lower, one.mixed_risk_upper)}), and the promise, which is of images of the "
            f"classes, {outcome} there."
        )


def _shifted(found: ShiftedSet, several: bool) -> str:
    parts = f", mean of {len(found.parts)} parts" if len(found.parts) > 1 else ""
    head = f"Shifted, {shown(found.name)} ({plural(found.images, 'image')}{parts}): error {percent(found.vote_error)} %"
    if not several:
        return f"{head}."
    gain = "" if math.isnan(found.relative_gain) else f" {_saved(found)}."
    if math.isnan(found.difference_lower):
        return f"{head} against {percent(found.member_error)} % of the single model."
    return (
        f"{head} against {percent(found.member_error)} % of the single model, a difference of {points(found.difference)} points "
        f"(95 % {'bootstrap ' if len(found.parts) > 1 else ''}interval {points(found.difference_lower)} to {points(found.difference_upper)}; "
        f"{'exact McNemar test, ' if len(found.parts) == 1 else ''}{p_equation(found.p_value)}).{gain}"
    )


def _saved(found: ShiftedSet) -> str:
    """How many errors fewer (or more) the vote makes than the single model, in percent, there and on test."""
    clean = "" if math.isnan(found.clean_gain) else f", on the test images {_change(found.clean_gain)}"
    ends = (
        ""
        if math.isnan(found.relative_gain_lower)
        else f" (95 % interval {_change(found.relative_gain_upper)} to {_change(found.relative_gain_lower)})"
    )
    return f"Errors of the vote, relative to the single model's: {_change(found.relative_gain)}{ends}{clean}"


def _change(gain: float) -> str:
    """A gain of errors as their change: a gain of 0.25 is -25 %."""
    return f"{-100 * gain + 0.0:+.0f} %"


def chosen_score(found: UnknownSet) -> UnknownScore:
    """The score that counts, fixed before or chosen on a set that was named for it."""
    return next(score for score in found.scores if score.score == found.chosen)


def _unknown(found: UnknownSet, several: bool) -> str:
    score = chosen_score(found)
    ends = "" if math.isnan(score.lower) else f" ({loss(score.lower)} to {loss(score.upper)})"
    head = (
        f"Unknown, {shown(found.name)} ({plural(found.images, 'image')}): told from test images by {SCORES[score.score]}{how_chosen(found)} with "
        f"AUROC {loss(score.auroc)}{ends}"
    )
    if not several:
        return f"{head}; to catch 95 % of them, {percent(score.fpr95)} % of the test images are rejected."
    return (
        f"{head}, the single model {loss(score.member_auroc)}{'' if math.isnan(score.p_value) else f' ({p_equation(score.p_value)})'}; to catch 95 % of them, "
        f"{percent(score.fpr95)} % of the test images are rejected."
    )


def how_chosen(found: UnknownSet) -> str:
    """Why that score counts, in brackets; "" where it was fixed before."""
    if not found.chosen_on:
        return ""
    if found.chosen_on == found.name:
        return " (the score was chosen on this very set, which flatters it)"
    return f" (the score was chosen on {shown(found.chosen_on)})"
