"""The judgement of a run as dashboards take it: evaluation.json, and beside each line of its leaderboard what a prediction takes."""

from __future__ import annotations

from typing import Any

from ensemble.results.judging import stored_evaluation
from ensemble.results.line_costs import costs_of
from ensemble.storage import RunFolder
from ensemble.storage.names import COST, EVALUATION
from ensemble.storage.parsing import json_object


def judged_run(folder: RunFolder) -> dict[str, Any]:
    """Plain values; empty where the run has not been judged. Raises StorageError for a damaged file."""
    if not folder.has(EVALUATION):
        return {}
    judged = json_object(folder.read_bytes(EVALUATION), folder.path / EVALUATION)
    if folder.has(COST):
        evaluation = stored_evaluation(folder)[1]
        costs = costs_of(folder, evaluation)
        if costs is not None:
            lines = zip(judged["leaderboard"], evaluation.leaderboard, strict=True)
            judged["leaderboard"] = [{**line, **costs.figures(row)} for line, row in lines]
    return judged
