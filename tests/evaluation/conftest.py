"""Synthetic ensembles: members that share a difficulty per row and err in their own ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from ensemble.evaluation.records import MemberFacts
from ensemble.evaluation.splits import SplitVotes


class Ensemble(NamedTuple):
    validation: SplitVotes
    test: SplitVotes
    facts: list[MemberFacts]


def _split(name: str, rng: np.random.Generator, skill_M: np.ndarray, rows: int, classes: int) -> SplitVotes:
    labels = rng.integers(0, classes, rows)
    # Every class occurs, so that oracles which infer the classes from the labels agree.
    labels[:classes] = np.arange(classes)
    logits = rng.normal(size=(1, rows, classes)) + 1.2 * rng.normal(size=(len(skill_M), rows, classes))
    logits[:, np.arange(rows), labels] += skill_M[:, None]
    probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return SplitVotes(name, probs.astype(np.float32), labels)


@pytest.fixture
def make_ensemble() -> Callable[..., Ensemble]:
    def make(members: int = 5, rows: int = 400, classes: int = 4, seed: int = 0, skill: float = 3.0) -> Ensemble:
        rng = np.random.default_rng(seed)
        skill_M = skill + rng.normal(scale=0.3, size=members)
        facts = [MemberFacts(10 + m, "lenet5", 100, 2.0 + m, 3) for m in range(members)]
        return Ensemble(
            _split("validation", rng, skill_M, rows, classes), _split("test", rng, skill_M, rows, classes), facts
        )

    return make
