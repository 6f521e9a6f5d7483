"""The few figures of evaluation.json that lists of runs show, without the records of the whole judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pydantic_core

from ensemble.storage.names import BESIDE, EVALUATION
from ensemble.storage.parsing import Stored, checked
from ensemble.storage.remedies import unfit
from ensemble.storage.run_folder import RunFolder


class _Line(Stored):
    """A line of the leaderboard; null stands for a figure that does not exist."""

    kind: str
    headline: bool
    test_error: float | None
    nll: float | None
    train_seconds: float | None


class _Judgement(Stored):
    leaderboard: list[_Line]


@dataclass(frozen=True)
class Figures:
    """error, nll: of the vote; best: test error of the member that validation picks (fractions). None: it does not exist.

    beside_seconds: training time of the networks that do not vote (`names.BESIDE`), of those that the run has.
    """

    error: float | None
    nll: float | None
    best: float | None
    beside_seconds: dict[str, float]


def figures_of(folder: RunFolder) -> Figures:
    """The figures of a judged run. Raises StorageError where evaluation.json is damaged or of another form."""
    where = folder.path / EVALUATION
    try:
        value: Any = pydantic_core.from_json(folder.read_bytes(EVALUATION), allow_inf_nan=False)
    except ValueError as error:
        raise unfit(where, f"no JSON: {error}") from error
    lines = checked(value, where, _Judgement).leaderboard
    vote = next((line for line in lines if line.headline), None)
    if vote is None:
        raise unfit(where, "no line of the leaderboard is the headline")
    best = next((line for line in lines if line.kind == "best_member"), None)
    beside = {line.kind: line.train_seconds for line in lines if line.kind in BESIDE and line.train_seconds is not None}
    return Figures(vote.test_error, vote.nll, best.test_error if best else None, beside)
