"""A run in the hand: what its folder holds, as tables and arrays.

run = ensemble.load("runs/quickstart")
run.leaderboard()         # a pandas DataFrame, or a list of dicts where pandas is not installed
run.votes("test")         # [M, N, K]
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ensemble.config.method import Aggregator
from ensemble.evaluation.comparing import Comparison
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.splits import SplitVotes
from ensemble.outside.object_storage import is_address
from ensemble.results.comparison import compare_items
from ensemble.results.judging import find_run, judge, stored_evaluation
from ensemble.results.line_costs import costs_of
from ensemble.results.predictions import read_predictions
from ensemble.results.voters import Voters, load_voters
from ensemble.storage import RunFolder
from ensemble.storage.fetched_run import fetched_run
from ensemble.storage.names import EVALUATION
from ensemble.types import FloatArray, IntArray

if TYPE_CHECKING:
    from ensemble.inference.trained import TrainedEnsemble


class Run:
    """A finished or unfinished run. Its folder may be moved; everything here is read from it when it is asked for."""

    def __init__(self, path: str | os.PathLike[str], trust_code: bool = False) -> None:
        """path: the run's folder, or its address. trust_code: see `load`. Raises StorageError where there is no run, or a damaged manifest."""
        self._folder, self._trust_code = (
            RunFolder.read(fetched_run(os.fspath(path)) if is_address(os.fspath(path)) else Path(path)),
            trust_code,
        )

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self._folder.path

    @property
    def name(self) -> str:
        """The run's name: that of its configuration."""
        return str(self.config["name"])

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, as plain values."""
        return self._folder.config()

    @cached_property
    def evaluation(self) -> Evaluation:
        """The judgement: the one that is kept, or where there is none yet, that of the members that have finished.

        Raises QuorumError where fewer members finished than failures.min_members.
        """
        return stored_evaluation(self._folder)[1] if self._folder.has(EVALUATION) else judge(self._folder)

    def leaderboard(self) -> Any:
        """Votes, members and their mean, a row each: errors with intervals and losses, fractions in [0, 1].

        The columns are those of `LeaderboardRow`, and where it was measured what a prediction takes in milliseconds, of one image
        alone and of each in a batch; a DataFrame has the names for its index.
        """
        costs = costs_of(self._folder, self.evaluation)
        rows = [asdict(row) for row in self.evaluation.leaderboard]
        if costs is not None:
            rows = [{**row, **costs.figures(of)} for row, of in zip(rows, self.evaluation.leaderboard, strict=True)]
        return rows_as_table(rows, index="name")

    @property
    def members(self) -> list[int]:
        """Indices of the members that vote, ascending: the order of `votes`."""
        return [member.index for member in self._voters.members]

    def votes(self, part: Literal["validation", "test"] = "test") -> FloatArray:
        """Class probabilities [M, N, K] of every voting member on every row of a part."""
        return self._split(part).probs_MNK

    def labels(self, part: Literal["validation", "test"] = "test") -> IntArray:
        """Class numbers [N] of the rows of a part, in the order of `votes`."""
        return self._split(part).labels_N

    def predictions(self) -> Any:
        """What the vote says of every test and validation image, a row each: the lines of predictions.csv.

        The columns are those of `results.predictions.Prediction`; nothing in a run that keeps no such list.
        """
        return rows_as_table([asdict(one) for one in read_predictions(self._folder)])

    def history(self) -> Any:
        """Every epoch of every finished member, a row each. Losses in nats, errors as fractions."""
        finished = sorted(self._folder.finished())
        return rows_as_table([
            {"member": index, **asdict(record)}
            for index in finished
            for record in self._folder.load_member(index).history
        ])  # fmt: skip

    def report(self, out: str | os.PathLike[str] | None = None) -> Path:
        """Write the page (and, without `out`, figures and tables beside the run); returns where the page is."""
        from ensemble.report.html import write_report

        return write_report([self.path], None if out is None else Path(out))

    @cached_property
    def ensemble(self) -> TrainedEnsemble:
        """Members and vote in memory, for predicting; needs torch."""
        from ensemble.inference.trained import load_ensemble

        return load_ensemble(self.path, trust_code=self._trust_code)

    def predict_proba(self, images: Any) -> FloatArray:
        """Class probabilities [N, K] of the run's vote; images as `TrainedEnsemble.predict_proba` takes them."""
        return self.ensemble.predict_proba(images)

    def predict(self, images: Any) -> IntArray:
        """Class numbers [N] of the run's vote; images as in `predict_proba`."""
        return self.ensemble.predict(images)

    def answers(self, images: Any, risk: float) -> npt.NDArray[np.bool_]:
        """Which images to answer [N], so that at most that share of the answers is wrong: see `TrainedEnsemble.answers`."""
        return self.ensemble.answers(images, risk)

    def predict_sets(self, images: Any, alpha: float) -> npt.NDArray[np.bool_]:
        """Which classes each image may be of [N, K]: see `TrainedEnsemble.predict_sets`."""
        return self.ensemble.predict_sets(images, alpha)

    def is_unknown(self, images: Any, share: float = 0.05) -> npt.NDArray[np.bool_]:
        """Which images to call images of none of the classes [N]: see `TrainedEnsemble.is_unknown`."""
        return self.ensemble.is_unknown(images, share)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: leaderboard and verdict."""
        from ensemble.report.tables import leaderboard_html

        return leaderboard_html(self.evaluation, costs_of(self._folder, self.evaluation))

    @cached_property
    def _voters(self) -> Voters:
        return load_voters(self._folder)

    def _split(self, part: str) -> SplitVotes:
        if part not in ("validation", "test"):
            raise ValueError(f"part: found {part!r}; expected 'validation' or 'test'")
        return self._voters.test if part == "test" else self._voters.validation


def load(run: str | os.PathLike[str], trust_code: bool = False) -> Run:
    """A run by its folder, or by its name under runs/. Raises StorageError where there is none.

    trust_code: predicting may execute the code that the folder holds, where the network is made by some (`model.name: python`).
    """
    return Run(find_run(os.fspath(run), Path("runs")), trust_code)


def compare(runs: Sequence[Run | str | os.PathLike[str]], aggregator: Aggregator = "soft") -> Comparison:
    """Several runs, members or files of probabilities on the same test images: see `ensemble compare --help`."""
    return compare_items([str(run.path) if isinstance(run, Run) else os.fspath(run) for run in runs], aggregator)


def rows_as_table(rows: list[dict[str, Any]], index: str | None = None) -> Any:
    """A pandas DataFrame where pandas is installed, with a column for its index; else the rows."""
    rows = [{key: _plain(value) for key, value in row.items()} for row in rows]
    if importlib.util.find_spec("pandas") is None:
        return rows
    import pandas

    frame = pandas.DataFrame(rows)
    return frame if index is None else frame.set_index(index)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
