"""Which rows a boosted network is fitted to and judged by, and how the sample weights reach its training.

A *division* splits the training rows into those a network may see and those that judge it. Divisions never look at
the sample weights: a bag drawn by weight would almost never leave out the heavy rows, and an error measured on what
is left would be that of the easy rows, far too small, with an alpha far too large.

Within the rows it may see, a network takes the weights in one of three ways (Schwenk and Bengio 2000, "Boosting Neural
Networks"): rows drawn by weight once, drawn anew every epoch, or all rows with weights in the loss.

All networks of a round get equally many rows, so that they can train in one stack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ensemble.methods.folds import folds_of
from ensemble.types import DoubleArray, FloatArray, IntArray

UseWeights = Literal["resample", "resample_every_epoch", "loss"]

# A bootstrap sample of N rows holds about this share of them.
BAG_SHARE = 1.0 - 1.0 / math.e


@dataclass(frozen=True, eq=False)
class Division:
    """Positions among the training rows, ascending: those to fit, and those that judge."""

    fit: IntArray
    judge: IntArray


@dataclass(frozen=True, eq=False)
class Fitting:
    """Positions a network is trained on, ascending, with weights of mean 1 (None: all equal)."""

    positions: IntArray
    weights: FloatArray | None
    resample: bool


def fold_divisions(labels_N: IntArray, folds: int, generator: np.random.Generator) -> list[Division]:
    """Every row judges one network and is fitted by all others. Folds are stratified; sizes differ by at most 1."""
    fold_N = folds_of(labels_N, folds, generator)
    return [Division(np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)) for fold in range(folds)]


def bag_division(num_rows: int, generator: np.random.Generator) -> Division:
    """As many distinct rows as a bootstrap sample holds on average, all equally likely; the others judge."""
    order = generator.permutation(num_rows)
    inside = min(max(1, round(BAG_SHARE * num_rows)), num_rows - 1)
    return Division(np.sort(order[:inside]), np.sort(order[inside:]))


def training_division(num_rows: int) -> Division:
    """All rows are fitted, and all judge."""
    return Division(np.arange(num_rows), np.arange(num_rows))


def fitting(
    division: Division, log_weights_N: DoubleArray, use: UseWeights, count: int, generator: np.random.Generator
) -> Fitting:
    """`count` training positions of a network, and the weights that go with them.

    count: at least as many as the division has to fit. Rows that stand twice to reach it share their weight.
    """
    logs = log_weights_N[division.fit]
    weights = np.exp(logs - logs.max())
    if use == "resample":
        drawn = generator.choice(division.fit, count, p=weights / weights.sum())
        return Fitting(np.sort(drawn), None, resample=False)
    chosen = np.sort(np.arange(count) % len(weights))
    copies = np.bincount(chosen, minlength=len(weights))
    entries = (weights / copies)[chosen]
    scaled = (entries * (count / entries.sum())).astype(np.float32)
    return Fitting(division.fit[chosen], scaled, resample=use == "resample_every_epoch")
