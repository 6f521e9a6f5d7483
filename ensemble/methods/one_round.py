"""Methods that know all their members from the start: deep ensembles and bagging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble.config.schema import BaggingConfig
from ensemble.seeding import Purpose, member_generator
from ensemble.types import DoubleArray, IntArray, MemberResult, MemberSpec


class OneRound:
    """Asks for all members at once and has no opinion on their weights."""

    wants_weights = False

    def __init__(self, members: Sequence[MemberSpec]) -> None:
        self._members = list(members)
        self._asked = False

    def ask(self) -> list[MemberSpec]:
        """All members at the first call, none at the second."""
        if self._asked:
            return []
        self._asked = True
        return list(self._members)

    def tell(self, results: Sequence[MemberResult]) -> None:
        """Nothing is learned from the results: there is no later round."""

    def vote_weights(self) -> DoubleArray | None:
        """None: every member counts the same."""
        return None

    def report(self) -> dict[str, Any] | None:
        """None: there is nothing to tell but the members themselves."""
        return None


def deep_ensemble(recipes: Sequence[str], train_rows: IntArray) -> OneRound:
    """Independent members on all training rows; they differ in initialisation, order, augmentation and dropout.

    Lakshminarayanan, Pritzel, Blundell 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles". recipes: the group name of every member.
    """
    return OneRound([MemberSpec(index, recipe, train_rows) for index, recipe in enumerate(recipes)])


def bagging(recipes: Sequence[str], train_rows: IntArray, config: BaggingConfig, seed: int) -> OneRound:
    """Members on bootstrap samples: N draws with replacement hold about 1 - 1/e = 63.2 % of the rows.

    Breiman 1996, "Bagging Predictors". Every member votes on the rows it never saw (out of bag).
    """
    count = max(1, round(config.sample_fraction * len(train_rows)))
    members = []
    for index, recipe in enumerate(recipes):
        generator = member_generator(seed, index, Purpose.SAMPLE)
        rows = np.sort(generator.choice(train_rows, count, replace=config.replacement))
        out_of_bag = np.setdiff1d(train_rows, rows, assume_unique=False)
        members.append(MemberSpec(index, recipe, rows, vote_rows=out_of_bag))
    return OneRound(members)
