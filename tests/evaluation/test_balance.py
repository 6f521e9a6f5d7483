"""The balanced error and its interval: other ways to the same numbers, and how often the interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from ensemble.evaluation.balance import balanced_error, difference_interval
from ensemble.evaluation.metrics import confusion_matrix
from ensemble.evaluation.sections.classes import balance_of, class_results

SIZES = (400, 60, 15)


def drawn(seed: int, error: float, other: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of unequal classes, and two predictions that err with such chances, alike on half of the rows."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), SIZES)
    shared = draw.random(len(labels))
    own = np.where(draw.random(len(labels)) < 0.5, shared, draw.random(len(labels)))
    return labels, *(
        np.where(chance < rate, (labels + 1) % 3, labels) for chance, rate in ((shared, error), (own, other))
    )


@pytest.mark.parametrize("seed", range(5))
def test_it_is_one_minus_scikit_learn_s_balanced_accuracy(seed: int) -> None:
    labels, classes, _ = drawn(seed, 0.3, 0.2)
    assert balanced_error(classes, labels) == pytest.approx(1 - balanced_accuracy_score(labels, classes), abs=1e-12)
    without = labels != 1
    expected = 1 - balanced_accuracy_score(labels[without], np.where(classes == 1, 2, classes)[without])
    assert balanced_error(np.where(classes == 1, 2, classes)[without], labels[without]) == pytest.approx(expected)
    assert np.isnan(balanced_error(classes[:0], labels[:0]))


def test_the_interval_is_that_of_drawing_the_rows_themselves() -> None:
    labels, classes, others = drawn(3, 0.3, 0.2)
    draw = np.random.default_rng(1)
    rows = [np.flatnonzero(labels == k) for k in range(3)]
    found = []
    for _ in range(4000):
        own = np.concatenate([draw.choice(of, len(of)) for of in rows])
        found.append(balanced_error(classes[own], labels[own]) - balanced_error(others[own], labels[own]))
    interval = difference_interval(classes, others, labels, 0)
    np.testing.assert_allclose(
        interval, np.quantile(found, [0.025, 0.975]), atol=0.012
    )  # of two sets of draws, where one row of the rarest class is 0.022
    assert interval == difference_interval(classes, others, labels, 0)


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says() -> None:
    """Somewhat less: a percentile interval of a class of 15 rows is narrow."""
    held = 0
    for seed in range(400):
        labels, classes, others = drawn(seed, 0.3, 0.2)
        interval = difference_interval(classes, others, labels, seed)
        held += interval.lower <= 0.1 <= interval.upper
    assert 0.90 <= held / 400 <= 0.98


def test_the_record_names_the_worst_class_and_the_sizes() -> None:
    labels, classes, others = drawn(3, 0.3, 0.2)
    results = class_results(confusion_matrix(labels, classes, 4), ["a", "b", "c", "none"])
    balance = balance_of(classes, others, labels, results, 0)
    errors = [result.error for result in results[:3]]
    assert balance.worst == "abc"[int(np.argmax(errors))]
    assert (balance.classes, balance.largest, balance.smallest) == (3, 400, 15)
    assert balance.vote_error == pytest.approx(np.mean(errors))
    assert balance.difference == balance.vote_error - balance.member_error
    assert balance.difference_lower <= balance.difference <= balance.difference_upper
    same = balance_of(classes, classes, labels, results, 0)
    assert same.difference == 0
    assert np.isnan([same.difference_lower, same.difference_upper]).all(), "all draws are alike"


@pytest.mark.parametrize("wrong", [0, 1, 5])
def test_predictions_that_err_alike_have_no_interval(wrong: int) -> None:
    """Every draw of them is the same, whatever few images there are: 0 to 0 would be a claim that nothing bears."""
    labels = np.arange(12) % 3
    classes = np.where(np.arange(12) < wrong, (labels + 1) % 3, labels)
    assert np.isnan(difference_interval(classes, classes, labels, 0)).all()
    others = np.where(np.arange(12) == 11, (labels + 1) % 3, classes)
    assert np.isfinite(difference_interval(classes, others, labels, 0)).all(), "one image tells them apart"
