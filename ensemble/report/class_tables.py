"""What is shown of hundreds of classes: tables that grow with the classes, not with their square."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ensemble.evaluation.records import Evaluation

MATRIX_UP_TO = 50  # classes; of more a matrix can neither be read nor, from some hundred on, opened
CONFUSIONS_SHOWN = 100
CLASSES_SHOWN = 1000


@dataclass(frozen=True)
class Confusion:
    """How many test images of a true class got another one: numbers of both, the count, its share of the true class."""

    true: int
    said: int
    count: int
    share: float


def largest_confusions(evaluation: Evaluation) -> list[Confusion]:
    """All pairs of different classes that were confused, the most frequent first, then by class."""
    counts_KK = np.array(evaluation.confusion, np.int64)
    rows_K = counts_KK.sum(axis=1)
    np.fill_diagonal(counts_KK, 0)
    true, said = np.nonzero(counts_KK)
    order = np.argsort(-counts_KK[true, said], kind="stable")
    return [
        Confusion(int(true[i]), int(said[i]), int(counts_KK[true[i], said[i]]), float(counts_KK[true[i], said[i]] / rows_K[true[i]]))
        for i in order
    ]  # fmt: skip


def worst_classes(evaluation: Evaluation) -> list[int]:
    """Numbers of the classes, the largest error first; those without test images last."""
    errors = [-math.inf if math.isnan(one.error) else one.error for one in evaluation.classes]
    return sorted(range(len(errors)), key=lambda k: (-errors[k], k))


def cut_classes(evaluation: Evaluation) -> str:
    """What is left out because of the number of classes, in one sentence; "" where nothing is."""
    classes = len(evaluation.class_names)
    if classes <= MATRIX_UP_TO:
        return ""
    confused = len(largest_confusions(evaluation))
    text = f"{classes:,} classes: in place of the matrix the {min(confused, CONFUSIONS_SHOWN):,} largest of {confused:,} confusions"
    if classes > CLASSES_SHOWN:
        text += f", and the {CLASSES_SHOWN:,} classes with the largest errors"
    return f"{text}; all of them are in evaluation.json"
