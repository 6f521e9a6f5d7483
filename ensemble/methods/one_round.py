"""Methods that know all their members from the start: deep ensembles and bagging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ensemble.config.method import MethodJob, MethodSection, register_method
from ensemble.seeding import Purpose, member_generator
from ensemble.types import DoubleArray, MemberResult, MemberSpec


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


@register_method
class DeepEnsembleConfig(MethodSection):
    """Independent members on all training rows (Lakshminarayanan et al. 2017)."""

    name: Literal["deep_ensemble"]
    in_short = "deep ensemble: independent members on all training images (Lakshminarayanan et al. 2017)"
    mixed = True
    independent = True

    def side_by_side(self, members: int) -> int:
        return members

    def build(self, job: MethodJob) -> OneRound:
        """Members that differ in initialisation, order, augmentation and dropout.

        "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles".
        """
        return OneRound([MemberSpec(index, recipe, job.train_rows) for index, recipe in enumerate(job.recipes)])


@register_method
class BaggingConfig(MethodSection):
    """Members on bootstrap samples of the training rows (Breiman 1996)."""

    name: Literal["bagging"]
    in_short = "bagging: each member on a bootstrap sample of the training images (Breiman 1996)"
    mixed = True
    baseline_by_default = True
    sample_fraction: float = Field(
        1.0, gt=0, le=10, description="rows drawn per member, as a share of the training rows"
    )
    replacement: bool = Field(True, description="draw with replacement; without, sample_fraction must stay below 1")

    @model_validator(mode="after")
    def _leaves_rows_out(self) -> Self:
        if not self.replacement and self.sample_fraction >= 1:
            raise ValueError(
                "sample_fraction must be below 1 without replacement: every member would get the same rows"
            )
        return self

    @property
    def share_of_rows(self) -> float:
        return self.sample_fraction

    def side_by_side(self, members: int) -> int:
        return members

    def build(self, job: MethodJob) -> OneRound:
        """N draws with replacement hold about 1 - 1/e = 63.2 % of the rows; members vote on those they never saw."""
        count = max(1, round(self.sample_fraction * len(job.train_rows)))
        members = []
        for index, recipe in enumerate(job.recipes):
            generator = member_generator(job.seed, index, Purpose.SAMPLE)
            rows = np.sort(generator.choice(job.train_rows, count, replace=self.replacement))
            out_of_bag = np.setdiff1d(job.train_rows, rows, assume_unique=False)
            members.append(MemberSpec(index, recipe, rows, vote_rows=out_of_bag))
        return OneRound(members)
