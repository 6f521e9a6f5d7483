"""Tables for papers of what was judged besides the test error: shifted and unknown images."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble.evaluation.paper_table import PaperTable, records_csv
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.set_records import (
    MixedPromise,
    ShiftedBeside,
    ShiftedPart,
    UnknownBeside,
    UnknownScore,
    UnknownSet,
)
from ensemble.report import wording


def further_tables(evaluation: Evaluation) -> list[PaperTable]:
    """One table for each shifted and each unknown set, one more where networks that do not vote were asked."""
    sets = [*_shifted(evaluation), *_shifted_beside(evaluation), *_unknown(evaluation), *_unknown_beside(evaluation)]
    return [*sets, *_mixed(evaluation)]


def _shifted(evaluation: Evaluation) -> Iterator[PaperTable]:
    for found in evaluation.shifted:
        rows: list[tuple[str, ...] | None] = [
            (
                part.label, wording.percent(part.vote_error), wording.percent_interval(part.lower, part.upper),
                wording.percent(part.member_error), wording.points(part.difference), wording.p_value(part.p_holm),
                wording.loss(part.vote_nll), wording.loss(part.member_nll),
            )
            for part in found.parts
        ]  # fmt: skip
        if len(found.parts) > 1:
            mean = (
                "mean", wording.percent(found.vote_error), "", wording.percent(found.member_error), wording.points(found.difference),
                wording.p_value(found.p_value), wording.loss(found.vote_nll), wording.loss(found.member_nll),
            )  # fmt: skip
            rows += [None, mean]
        yield PaperTable(
            f"shifted_{found.name}",
            f"Error on {found.images:,} shifted images ({found.name}: {found.source}), of the vote and of the single model that validation picks.",
            ("images", "vote %", "95 % int.", "single %", "difference", "p", "NLL", "single NLL"),
            tuple(rows), records_csv(ShiftedPart, found.parts), frozenset({len(rows) - 1} if len(found.parts) > 1 else ()),
        )  # fmt: skip


def _shifted_beside(evaluation: Evaluation) -> Iterator[PaperTable]:
    for found in evaluation.shifted:
        rows = [
            (
                one.name, wording.percent(one.error), wording.percent_interval(one.lower, one.upper), wording.points(one.difference),
                f"{wording.points(one.difference_lower)} to {wording.points(one.difference_upper)}", wording.p_value(one.p_value),
                wording.loss(one.nll),
            )
            for one in found.beside
        ]  # fmt: skip
        if rows:
            yield PaperTable(
                f"shifted_{found.name}_one_network",
                f"One network that does not vote on {found.images:,} shifted images ({found.name}), and the vote beside it.",
                ("network", "error %", "95 % int.", "difference", "95 % int.", "p", "NLL"),
                tuple(rows), records_csv(ShiftedBeside, found.beside),
            )  # fmt: skip


def _unknown(evaluation: Evaluation) -> Iterator[PaperTable]:
    for found in evaluation.unknown:
        rows = [
            (
                score.score, wording.loss(score.auroc), f"{wording.loss(score.lower)} to {wording.loss(score.upper)}",
                wording.loss(score.member_auroc), wording.p_value(score.p_holm), wording.percent(score.fpr95),
                wording.loss(score.aupr_unknown), wording.loss(score.aupr_known),
            )
            for score in found.scores
        ]  # fmt: skip
        bold = frozenset(place for place, score in enumerate(found.scores) if score.score == found.chosen)
        yield PaperTable(
            f"unknown_{found.name}",
            f"Telling {found.images:,} images of none of the classes ({found.name}: {found.source}) from the test images; FPR95 as in OpenOOD. {_score_in_words(found)}",
            ("score", "AUROC", "95 % int.", "single", "p", "FPR95 %", "AUPR unknown", "AUPR known"),
            tuple(rows), records_csv(UnknownScore, found.scores), bold,
        )  # fmt: skip


def _score_in_words(found: UnknownSet) -> str:
    if not found.chosen_on:
        return f"The score that counts, {found.chosen}, was fixed before."
    if found.chosen_on == found.name:
        return f"The score that counts, {found.chosen}, was chosen on this very set, so its figures here are too good."
    return f"The score that counts, {found.chosen}, was chosen on {found.chosen_on}."


def _unknown_beside(evaluation: Evaluation) -> Iterator[PaperTable]:
    for found in evaluation.unknown:
        rows = [
            (
                one.name, wording.loss(one.auroc), f"{wording.loss(one.lower)} to {wording.loss(one.upper)}", wording.loss(one.difference),
                f"{wording.loss(one.difference_lower)} to {wording.loss(one.difference_upper)}", wording.p_value(one.p_value),
                wording.percent(one.fpr95),
            )
            for one in found.beside
        ]  # fmt: skip
        if rows:
            yield PaperTable(
                f"unknown_{found.name}_one_network",
                f"One network that does not vote, telling {found.images:,} images of none of the classes ({found.name}) from the test images, and the vote beside it.",
                ("network", "AUROC", "95 % int.", "difference", "95 % int.", "p", "FPR95 %"),
                tuple(rows), records_csv(UnknownBeside, found.beside),
            )  # fmt: skip


def _mixed(evaluation: Evaluation) -> Iterator[PaperTable]:
    for found in evaluation.unknown:
        rows = [
            (
                one.kind, wording.percent(one.risk), wording.loss(one.threshold), wording.percent(one.accepted),
                wording.percent_interval(one.accepted_lower, one.accepted_upper), wording.percent(one.mixed_risk),
                wording.percent_interval(one.mixed_risk_lower, one.mixed_risk_upper), one.outcome,
            )
            for one in found.mixed
        ]  # fmt: skip
        if rows:
            yield PaperTable(
                f"promises_with_{found.name}",
                f"Thresholds promised on images of the classes, with {found.images:,} of none of them ({found.name}) among the test images: every answer to one of these is an error.",
                ("threshold", "promised %", "confidence", "these answered %", "95 % int.", "wrong %", "95 % int.", "promise"),
                tuple(rows), records_csv(MixedPromise, found.mixed),
            )  # fmt: skip
