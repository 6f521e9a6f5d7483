"""A method of one's own: `python examples/own_method.py [FOLDER]`, in half a minute on a CPU.

A method says which members to train next, on which rows and with which weights, and learns from what they leave. This one,
pasting (Breiman 1999), trains each member on a small part of the training images, drawn without replacement.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

import ensemble
from ensemble.seeding import Purpose, member_generator
from ensemble.types import DoubleArray, MemberResult, MemberSpec


@ensemble.register_method
class PastingConfig(ensemble.MethodSection):
    """Members on small parts of the training images, without replacement (Breiman 1999)."""

    name: Literal["pasting"]
    in_short = "pasting: each member on a small part of the training images (Breiman 1999)"
    share: float = Field(0.3, gt=0, lt=1, description="share of the training images per member")

    def side_by_side(self, members: int) -> int:
        """All members may train at the same time."""
        return members

    def build(self, job: ensemble.MethodJob) -> Pasting:
        return Pasting(job, self.share)


class Pasting:
    """Asks for all members at once, and has nothing to learn from their results."""

    wants_weights = False

    def __init__(self, job: ensemble.MethodJob, share: float) -> None:
        count = max(1, round(share * len(job.train_rows)))
        self._waiting = []
        for index, recipe in enumerate(job.recipes):
            # A stream of this member alone: the same rows, however often and wherever the run is started again.
            generator = member_generator(job.seed, index, Purpose.SAMPLE)
            rows = np.sort(generator.choice(job.train_rows, count, replace=False))
            # On the rows that it does not see a member votes too: they give the out-of-bag error.
            self._waiting.append(MemberSpec(index, recipe, rows, vote_rows=np.setdiff1d(job.train_rows, rows)))

    def ask(self) -> list[MemberSpec]:
        members, self._waiting = self._waiting, []
        return members

    def tell(self, results: Sequence[MemberResult]) -> None: ...

    def vote_weights(self) -> DoubleArray | None:
        return None

    def report(self) -> dict[str, Any] | None:
        return None


if __name__ == "__main__":
    run = ensemble.train(
        name="pasting",
        output_dir=sys.argv[1] if len(sys.argv) > 1 else "runs",
        model="lenet5",
        data="digits",
        method={"name": "pasting", "share": 0.5},
        num_members=6,
        training={"epochs": 6},
    )
    print(run.evaluation.verdict.sentence)
    for index, probs_NK in zip(run.members, run.votes("test"), strict=True):
        print(f"member {index}: {(probs_NK.argmax(axis=1) != run.labels('test')).mean():.2%} wrong")
