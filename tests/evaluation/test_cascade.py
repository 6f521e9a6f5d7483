"""Members asked in turn: by hand, and against the plain loop over images."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.errors import PeekingError
from ensemble.evaluation.cascade import ask, choose_threshold, stages
from ensemble.evaluation.splits import SplitVotes

# Three members, four images, two classes: sure at once; sure at the second; never sure; sure at once and wrong.
FIRST = [0.95, 0.6, 0.55, 0.1]
SECOND = [0.1, 0.99, 0.45, 0.9]
THIRD = [0.9, 0.1, 0.4, 0.9]
PROBS = np.array([[[p, 1 - p] for p in member] for member in (FIRST, SECOND, THIRD)])
LABELS = np.array([0, 0, 1, 0])


def test_by_hand() -> None:
    """At 0.79: image 1 has (0.6 + 0.99) / 2 = 0.795 after two; image 2 ends with the vote of all, 0.467 for class 0."""
    asked = ask(stages(PROBS), 0.79)
    assert asked.members_N.tolist() == [1, 2, 3, 1]
    assert asked.classes_N.tolist() == [0, 0, 1, 1]


def test_the_ends_of_the_scale() -> None:
    found = stages(PROBS)
    assert ask(found, 0.0).members_N.tolist() == [1] * 4
    assert ask(found, float("inf")).members_N.tolist() == [3] * 4
    assert ask(found, float("inf")).classes_N.tolist() == PROBS.mean(0).argmax(1).tolist()


def test_the_threshold_is_the_lowest_that_costs_no_error_on_validation() -> None:
    """The vote of all is right but for nothing; image 3 is wrong at the first member, who is 0.9 sure of it."""
    validation = SplitVotes("validation", PROBS, LABELS)
    threshold = choose_threshold(validation)
    full = PROBS.mean(0).argmax(1) != LABELS
    assert (ask(stages(PROBS), threshold).classes_N != LABELS).sum() <= full.sum()
    candidates = np.unique(np.quantile(PROBS[0].max(1), np.linspace(0, 1, 201)))
    lower = [t for t in candidates if t < threshold]
    assert lower
    assert all((ask(stages(PROBS), t).classes_N != LABELS).sum() > full.sum() for t in lower)


def test_test_votes_choose_no_threshold() -> None:
    with pytest.raises(PeekingError):
        choose_threshold(SplitVotes("test", PROBS, LABELS))


def test_never_sure_where_the_first_member_is_always_wrong() -> None:
    probs = np.array([[[0.99, 0.01]] * 3, [[0.0, 1.0]] * 3, [[0.0, 1.0]] * 3])
    validation = SplitVotes("validation", probs, np.array([1, 1, 1]))
    assert choose_threshold(validation) == float("inf")


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_against_a_plain_loop(threshold: float) -> None:
    probs = np.random.default_rng(4).dirichlet(np.full(5, 0.3), size=(6, 200))
    asked = ask(stages(probs), threshold)
    for n in range(200):
        for m in range(1, 7):
            mean = probs[:m, n].mean(axis=0)
            if mean.max() >= threshold or m == 6:
                break
        assert (asked.members_N[n], asked.classes_N[n]) == (m, mean.argmax())
