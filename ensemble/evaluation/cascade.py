"""Asking the members one after the other, and stopping as soon as they are sure.

LeCun et al. 1998 (section III-C) do so with boosted LeNet-4: where the first network is confident the others are not
asked, and three networks cost 1.75. Here members are asked in the order of their index; an image is done when the
mean probability of the members asked so far reaches a threshold for some class. An image that nobody is sure of gets
the soft vote of all. The threshold is chosen on validation: the cheapest whose error is not above the full vote's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.types import DoubleArray, IntArray

CANDIDATES = 201


class Asked(NamedTuple):
    """What a cascade says: the classes named, and how many members each image took."""

    classes_N: IntArray
    members_N: IntArray


class Stages(NamedTuple):
    """Confidence and class of the mean over the first m members, [M, N]."""

    confidence_MN: DoubleArray
    classes_MN: IntArray


def stages(probs_MNK: AnyFloatArray) -> Stages:
    """The soft votes of the first 1, 2 ... M members."""
    members, rows, _ = probs_MNK.shape
    confidence_MN, classes_MN = np.empty((members, rows)), np.empty((members, rows), np.int64)
    total_NK = np.zeros(probs_MNK.shape[1:])
    for m, probs_NK in enumerate(probs_MNK):
        total_NK += probs_NK
        classes_MN[m] = total_NK.argmax(axis=1)
        confidence_MN[m] = total_NK.max(axis=1) / (m + 1)
    return Stages(confidence_MN, classes_MN)


def ask(found: Stages, threshold: float) -> Asked:
    """Stop each image at the first stage whose confidence reaches the threshold, at the last one otherwise."""
    sure_MN = found.confidence_MN >= threshold
    sure_MN[-1] = True
    stage_N = sure_MN.argmax(axis=0)
    return Asked(found.classes_MN[stage_N, np.arange(len(stage_N))], stage_N + 1)


def choose_threshold(validation: SplitVotes) -> float:
    """The lowest threshold (so the cheapest) whose validation error is not above that of the vote of all members.

    Candidates are quantiles of the first member's confidence, and "never sure". Raises PeekingError for test votes.
    """
    require_choosable(validation)
    found, labels_N = stages(validation.probs_MNK), validation.labels_N
    full_wrong = int((found.classes_MN[-1] != labels_N).sum())
    for threshold in np.unique(np.quantile(found.confidence_MN[0], np.linspace(0, 1, CANDIDATES))):
        if int((ask(found, threshold).classes_N != labels_N).sum()) <= full_wrong:
            return float(threshold)
    return float("inf")
