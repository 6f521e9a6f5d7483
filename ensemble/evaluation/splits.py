"""Votes with the split they were cast on, so that nothing can be chosen by looking at the test set.

Every function in this room that chooses something (a member, a weight, a temperature) takes `SplitVotes` and begins
with `require_choosable`. Functions that only describe take plain arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ensemble.errors import PeekingError
from ensemble.types import IntArray

Split = Literal["validation", "out_of_bag", "calibration", "test"]
AnyFloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class SplitVotes:
    """What M members said about the N rows of one split, and the N true classes."""

    split: Split
    probs_MNK: AnyFloatArray
    labels_N: IntArray

    def __post_init__(self) -> None:
        assert self.probs_MNK.ndim == 3, f"votes must be members x rows x classes, not {self.probs_MNK.shape}"
        members, rows, classes = self.probs_MNK.shape
        assert min(members, rows) >= 1, f"votes need a member and a row, not {self.probs_MNK.shape}"
        assert classes >= 2, f"votes need two classes or more, not {classes}"
        assert self.labels_N.shape == (rows,), f"{rows} voted rows, but labels of shape {self.labels_N.shape}"
        low, high = int(self.labels_N.min()), int(self.labels_N.max())
        assert low >= 0, f"labels must lie in [0, {classes}), found {low}"
        assert high < classes, f"labels must lie in [0, {classes}), found {high}"

    @cached_property
    def favourites_MN(self) -> IntArray:
        """Each member's own class per row, computed once."""
        return favourites(self.probs_MNK)

    @property
    def num_members(self) -> int:
        return int(self.probs_MNK.shape[0])

    @property
    def num_rows(self) -> int:
        return int(self.probs_MNK.shape[1])

    @property
    def num_classes(self) -> int:
        return int(self.probs_MNK.shape[2])

    def members(self, positions: Sequence[int]) -> SplitVotes:
        """The same rows, with only the members at these positions."""
        if list(positions) == list(range(self.num_members)):
            return self
        return SplitVotes(self.split, self.probs_MNK[list(positions)], self.labels_N)


def favourites(probs: AnyFloatArray) -> IntArray:
    """The class of each row of probs, shape (..., K): the most probable, the lowest of equals."""
    classes: IntArray = np.argmax(probs, axis=-1).astype(np.int64)
    return classes


def require_choosable(votes: SplitVotes) -> None:
    """Refuse test votes. Raises PeekingError; validation and out-of-bag votes pass."""
    if votes.split == "test":
        raise PeekingError(
            "test votes were handed to a function that chooses something: a choice made on the test set makes every "
            "test figure too good. Expected validation or out-of-bag votes; pass those instead."
        )
