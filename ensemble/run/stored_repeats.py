"""Repeats in the hand: several runs of one configuration, each with a seed of its own, and what they say together.

found = ensemble.train("configs/quickstart.yaml", repeats=5)      # or ensemble.Repeats("runs/quickstart")
found.verdict
found.table()             # a pandas DataFrame, or a list of dicts where pandas is not installed
found.runs[0].leaderboard()
"""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from ensemble.report.repeated import PAGE, read_repeats, repeats_html
from ensemble.results.repeated import Repeated
from ensemble.run.stored import Run, rows_as_table


class Repeats:
    """The runs of `repeats=N`, judged together. Everything here is read from their folder when it is asked for."""

    def __init__(self, path: str | os.PathLike[str], trust_code: bool = False) -> None:
        """path: the folder that holds the runs and repeats.json. trust_code: see `load`. Raises StorageError where there is none, or a damaged one."""
        self.path = Path(path)
        self._judged, self._trust_code = read_repeats(self.path), trust_code

    @property
    def judged(self) -> Repeated:
        """The judgement over all runs, as a record: that of repeats.json."""
        return self._judged

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Each run by itself, in the order of the seeds."""
        return tuple(Run(self.path / name, self._trust_code) for name in self._judged.runs)

    @property
    def verdict(self) -> str:
        """The vote against the single model that validation picks, over all runs, in words."""
        return self._judged.verdict

    def table(self) -> Any:
        """The vote and what it is compared with, a row each: mean errors with intervals, differences with p-values, fractions in [0, 1].

        The columns are those of `RepeatedLine`; a DataFrame has the names for its index.
        """
        return rows_as_table([{"name": line.name, **asdict(line)} for line in self._judged.lines], index="name")

    @property
    def page(self) -> Path:
        """Where the page over all runs is."""
        return self.path / PAGE

    def __len__(self) -> int:
        return len(self._judged.runs)

    def __repr__(self) -> str:
        return f"Repeats({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the table, the verdict and what belongs beside it."""
        return repeats_html(self._judged)
