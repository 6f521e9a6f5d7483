"""Prediction sets in the judgement: calibrated on rows of their own, whatever the test votes say."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.errors import PeekingError
from ensemble.evaluation.sections.conformal import ALPHAS, METHODS, prediction_sets, rule_of
from ensemble.evaluation.set_votes import HowToVote
from ensemble.evaluation.splits import SplitVotes

HOW = HowToVote("soft", None, 0)


def drawn(rows: int, seed: int, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, K] and labels drawn from other ones, so that the probabilities are not quite right."""
    generator = np.random.default_rng(seed)
    logits_NK = 2 * generator.standard_normal((rows, classes))
    true_NK = np.exp(logits_NK + 0.5 * generator.standard_normal((rows, classes)))
    labels_N = (np.cumsum(true_NK / true_NK.sum(1, keepdims=True), 1) < generator.random((rows, 1))).sum(1)
    probs_NK = np.exp(1.7 * logits_NK)
    return probs_NK / probs_NK.sum(1, keepdims=True), np.minimum(labels_N, classes - 1)


def test_all_rules_keep_their_promise_on_test():
    (known, labels_n), (new, labels_N) = drawn(4000, 1), drawn(20_000, 2)
    found = prediction_sets(
        SplitVotes("calibration", known[None], labels_n), SplitVotes("test", new[None], labels_N), HOW, tuple("abcdef")
    )
    assert found.rows == 4000
    assert [(rule.method, rule.alpha) for rule in found.rules] == [(m.upper(), a) for a in ALPHAS for m in METHODS]
    for rule in found.rules:
        assert rule.band_lower <= rule.raw_coverage <= rule.band_upper
        assert rule.coverage >= rule.raw_coverage
        assert rule.lower <= rule.coverage <= rule.upper
        assert 1 <= rule.mean_size <= 6
    assert [(one.method, one.name) for one in found.classes] == [
        (m.upper(), name) for _ in ALPHAS for m in METHODS for name in "abcdef"
    ]
    first = found.rules[0]
    cut_NK = new >= 1 - first.threshold - 1e-12
    cut_NK[np.arange(len(new)), new.argmax(1)] |= ~cut_NK.any(1)
    for k, one in enumerate(found.classes[:6]):
        own = cut_NK[labels_N == k]
        assert one.images == len(own)
        assert one.coverage == pytest.approx(own[:, k].mean(), abs=1e-12)
        assert one.mean_size == pytest.approx(own.sum(1).mean(), abs=1e-12)
        assert one.lower < one.coverage < one.upper
    assert first.worst_class == min(one.coverage for one in found.classes[:6])


@pytest.mark.parametrize("split", ["validation", "test", "out_of_bag"])
def test_rows_that_others_have_seen_are_refused(split):
    probs_NK, labels_N = drawn(50, 5)
    with pytest.raises(PeekingError, match="expected calibration votes"):
        rule_of("lac", SplitVotes(split, probs_NK[None], labels_N), 0.1)


def test_poisoned_test_votes_change_no_rule():
    probs_NK, labels_N = drawn(400, 5)
    members_MNK = np.stack([probs_NK, probs_NK[:, ::-1]])
    known = SplitVotes("calibration", members_MNK, labels_N)
    poison = np.full_like(members_MNK, 1 / 6)
    good, bad = (
        prediction_sets(known, SplitVotes("test", votes, labels_N), HOW, tuple("abcdef"))
        for votes in (members_MNK, poison)
    )
    assert [rule.threshold for rule in good.rules] == [rule.threshold for rule in bad.rules]
    assert good.cautions == bad.cautions


def test_what_sets_cannot_say_is_told():
    probs_NK = np.full((50, 3), 0.01)
    probs_NK[:, 0] = 0.98
    labels_N = np.zeros(50, np.int64)
    labels_N[:1] = 1
    votes = [SplitVotes(split, probs_NK[None], labels_N) for split in ("calibration", "test")]
    right, few = prediction_sets(*votes, HOW, ("a", "b", "c")).cautions
    assert "right on 98.00 % of the calibration rows, more than the 95.00 % that the sets promise" in right
    assert few == "50 calibration images are too few to promise 99 %: those sets hold every class."
