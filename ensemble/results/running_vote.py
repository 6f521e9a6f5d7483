"""The soft vote of the members that have finished so far, on validation rows, while the others are still being trained.

vote = RunningVote(Path("runs/my-run"))
vote.add(3)                                # its validation error with member 3, a fraction

Each member's votes are read once and added to a sum, so K members cost K files. Votes on test rows are never unpacked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ensemble.evaluation.aggregation import decide_scores
from ensemble.outside.paths import read_regular_file
from ensemble.storage.member_files import (
    MEMBER,
    VOTES,
    Expected,
    Labels,
    parse_labels,
    parse_member,
    parse_validation_votes,
    require_own,
)
from ensemble.storage.names import LABELS, member_folder
from ensemble.storage.remedies import unreadable
from ensemble.types import DoubleArray, FloatArray

_MOST_BYTES = 2**34  # of one file of votes


class RunningVote:
    """Reads a run folder beside the driver that writes it: a member counts once its driver has said that it finished."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._labels: Labels | None = None
        self._total_NK: DoubleArray | None = None
        self._added: set[int] = set()

    def add(self, index: int) -> float | None:
        """The validation error of the vote with this member; a member that is there already is not counted twice.

        None where no member has voted in finite numbers. Raises StorageError for files that are missing or damaged.
        """
        labels = self._known_labels()
        if index not in self._added:
            votes_NK = self._votes(index, labels)
            if np.isfinite(votes_NK).all():  # others do not vote
                self._added.add(index)
                self._total_NK = votes_NK.astype(np.float64) + (0.0 if self._total_NK is None else self._total_NK)
        if self._total_NK is None or not len(labels.validation_rows):
            return None
        chosen_N = decide_scores(self._total_NK / len(self._added)).classes_N
        return float(np.mean(chosen_N != labels.train_labels_N[labels.validation_rows]))

    def _known_labels(self) -> Labels:
        if self._labels is None:
            self._labels = parse_labels(self._read(LABELS), self._folder / LABELS, None)
        return self._labels

    def _votes(self, index: int, labels: Labels) -> FloatArray:
        """A member's votes, which must be those it was stored with."""
        facts_name, votes_name = (f"{member_folder(index)}/{file}" for file in (MEMBER, VOTES))
        facts = parse_member(self._read(facts_name), self._folder / facts_name, index)
        content = self._read(votes_name)
        require_own(facts, VOTES, content, self._folder / votes_name)
        classes = None if self._total_NK is None else self._total_NK.shape[1]
        return parse_validation_votes(content, self._folder / votes_name, Expected(labels, classes))

    def _read(self, name: str) -> bytes:
        try:
            return read_regular_file(self._folder / name, _MOST_BYTES)
        except OSError as error:
            raise unreadable(self._folder / name, error) from error
