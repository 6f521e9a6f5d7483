from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest

from ensemble.evaluation.label_review import reviewed_labels

ITEMS = json.loads(resources.files("ensemble.evaluation").joinpath("mnist_test_label_review.json").read_text())["items"]


@pytest.fixture
def labels() -> np.ndarray:
    """10,000 labels that fit the review: the given ones at the doubted rows, 7 elsewhere."""
    labels = np.full(10_000, 7)
    for row, given, *_ in ITEMS:
        labels[row] = given
    return labels


def test_the_facts_are_whole():
    assert len(ITEMS) == 15
    for _, given, suggested, for_given, for_suggested, for_neither in ITEMS:
        assert given != suggested
        assert for_given + for_suggested + for_neither == 5
        assert for_given < 3


def test_rule_by_hand(labels):
    review = reviewed_labels("mnist", labels)
    assert review is not None
    assert (review.corrected, review.left_out) == (10, 5)
    assert review.labels_N[947] == 9  # 5 of 5 for the suggested class
    assert not review.counted_N[2130]  # 2 : 2 : 1
    assert not review.counted_N[2654]  # 3 reviewers for neither class
    # Whoever predicts the given labels is wrong on the ten corrected images, of 9,995.
    assert review.wrong(labels) == 10
    assert review.error(labels) == pytest.approx(10 / 9995)
    assert review.error(review.labels_N) == 0.0


def test_the_given_labels_stay_as_they_are(labels):
    before = labels.copy()
    reviewed_labels("mnist", labels)
    assert (labels == before).all()


def test_other_data_or_another_order_has_no_review(labels):
    assert reviewed_labels("fashion_mnist", labels) is None
    assert reviewed_labels("mnist", labels[:5000]) is None
    assert reviewed_labels("mnist", np.roll(labels, 1)) is None


def test_the_review_is_of_the_real_labels(mnist_root):
    raw = np.fromfile(mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", np.uint8)[8:].astype(np.int64)
    assert reviewed_labels("mnist", raw) is not None
