"""What predictions took, kept with a stored run for its leaderboards."""

from __future__ import annotations

from pathlib import Path

from ensemble.report.line_costs import costs_of
from ensemble.report.tables import leaderboard_csv
from ensemble.results.judging import stored_evaluation
from ensemble.storage import RunFolder
from ensemble.storage.cost_file import CostFile, save_costs
from ensemble.storage.names import EVALUATION, LEADERBOARD


def keep_costs(path: Path, costs: CostFile) -> None:
    """Keep in a stored run what predictions took, and write its leaderboard.csv with it. Raises StorageError."""
    stored = RunFolder.read(path)
    with RunFolder.open(path.absolute().parent, path.absolute().name, stored.config(), stored.plan()) as folder:
        save_costs(folder, costs)
        if folder.has(EVALUATION):
            evaluation = stored_evaluation(folder)[1]
            folder.write(LEADERBOARD, leaderboard_csv(evaluation, costs_of(folder, evaluation)).encode())
