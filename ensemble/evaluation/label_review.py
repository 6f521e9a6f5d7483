"""Errors against labels that people looked at again.

For MNIST, reviewers were shown the test images whose label looked doubtful; for 15 of them fewer than 3 of 5 confirmed
the given label. The rule here: where at least 3 of 5 agreed on the suggested class (10 images), that class is the
truth; where no class got 3 votes (5 images), nobody knows the truth and the image is left out. So an error on
reviewed labels is a share of 9,995 images. The facts and their source are in mnist_test_label_review.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.types import IntArray

MAJORITY = 3
RULE = (
    "where at least 3 of 5 reviewers agreed on the suggested class, it replaces the given label; "
    "where no class had 3 of 5, the image is left out"
)


@dataclass(frozen=True, eq=False)
class ReviewedLabels:
    """The labels to judge by, which rows count at all, and which rows were in doubt."""

    source: str
    labels_N: IntArray
    counted_N: npt.NDArray[np.bool_]
    doubted: IntArray
    corrected: int

    @property
    def left_out(self) -> int:
        return int((~self.counted_N).sum())

    def wrong(self, classes_N: IntArray) -> int:
        """Counted rows whose predicted class is not the reviewed label."""
        return int((classes_N != self.labels_N)[self.counted_N].sum())

    def error(self, classes_N: IntArray) -> float:
        return self.wrong(classes_N) / int(self.counted_N.sum())


@cache
def _mnist() -> dict[str, Any]:
    text = resources.files("ensemble.evaluation").joinpath("mnist_test_label_review.json").read_text("utf-8")
    record: dict[str, Any] = json.loads(text)
    return record


def reviewed_labels(dataset: str, labels_N: IntArray) -> ReviewedLabels | None:
    """The reviewed labels of a data set's whole test split in its original order; None where there was no review.

    Votes on other rows than MNIST's 10,000 test images, or in another order, have other labels at the doubted rows
    and get None too.
    """
    review = _mnist()
    if dataset != review["dataset"] or len(labels_N) != review["rows"]:
        return None
    items = np.array(review["items"], np.int64)
    rows, given, suggested, _, for_suggested, _ = items.T
    if (labels_N[rows] != given).any():
        return None
    agreed = for_suggested >= MAJORITY
    labels, counted = labels_N.copy(), np.ones(len(labels_N), bool)
    labels[rows[agreed]] = suggested[agreed]
    counted[rows[~agreed]] = False
    return ReviewedLabels(review["source"], labels, counted, rows, int(agreed.sum()))
