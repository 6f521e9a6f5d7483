"""Shifted sets and unknown images from made-up votes: figures by hand, and tests that agree with their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ensemble.evaluation.bootstrap import bootstrap_p, percentile_interval
from ensemble.evaluation.sections.selective import selective
from ensemble.evaluation.set_votes import HowToVote, PartVotes
from ensemble.evaluation.shifted import ShiftJudge, bootstrap_errors, relative_gain
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.unknown_images import judge_unknown, scores_of

HOW = HowToVote("soft", None, 0)


def votes(rows: int, seed: int, skill: float, members: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [M, N, 4] that favour the labels by `skill`, and the labels."""
    generator = np.random.default_rng(seed)
    labels_N = generator.integers(0, 4, rows)
    scores = generator.normal(size=(members, rows, 4))
    scores[:, np.arange(rows), labels_N] += skill
    exp = np.exp(scores)
    return (exp / exp.sum(-1, keepdims=True)).astype(np.float32), labels_N


def judged(count: int, rows: int = 300, seed: int = 0):
    parts = [votes(rows, seed, skill)[0] for skill in np.linspace(2, 0.5, count)]
    labels_N = votes(rows, seed, 0)[1]
    judge = ShiftJudge(HOW, labels_N, clean_gain=0.5)
    for k, probs_MNK in enumerate(parts):
        judge.take(PartVotes(f"part {k}", probs_MNK))
    return judge.record("set", "somewhere", 3), parts, labels_N


def test_a_set_is_the_mean_of_its_parts_and_every_image_is_drawn_with_all_of_them():
    found, parts, labels_N = judged(3)
    errors = {"vote": [], "member": []}
    for part, probs_MNK in zip(found.parts, parts, strict=True):
        vote_N, member_N = (one.argmax(1) != labels_N for one in (probs_MNK.mean(0), probs_MNK[0]))
        assert (part.vote_error, part.member_error) == (vote_N.mean(), member_N.mean())
        errors["vote"].append(vote_N)
        errors["member"].append(member_N)
    vote_N, member_N = (np.mean(errors[name], axis=0) for name in ("vote", "member"))
    assert found.vote_error == pytest.approx(vote_N.mean(), abs=1e-12)
    assert found.relative_gain == pytest.approx(1 - vote_N.mean() / member_N.mean(), abs=1e-12)
    generator = np.random.default_rng(5)
    rows = generator.integers(0, 300, (4000, 300))
    difference, gain = (vote_N - member_N)[rows].mean(1), 1 - vote_N[rows].mean(1) / member_N[rows].mean(1)
    np.testing.assert_allclose(
        [found.difference_lower, found.difference_upper], np.quantile(difference, [0.025, 0.975]), atol=0.004
    )
    np.testing.assert_allclose(
        [found.relative_gain_lower, found.relative_gain_upper], np.quantile(gain, [0.025, 0.975]), atol=0.01
    )


def test_a_single_part_says_what_its_set_says():
    found, _, _ = judged(1)
    part = found.parts[0]
    for name in ("vote_error", "member_error", "difference", "difference_lower", "difference_upper", "p_value"):
        assert getattr(found, name) == getattr(part, name), name


def test_the_log_loss_has_students_interval():
    found, parts, labels_N = judged(2)
    losses = [
        -np.log(probs_MNK.mean(0)[np.arange(300), labels_N]) + np.log(probs_MNK[0][np.arange(300), labels_N])
        for probs_MNK in parts
    ]
    values = np.mean(losses, axis=0)
    expected = stats.t.interval(0.95, 299, values.mean(), stats.sem(values))
    assert (found.nll_difference_lower, found.nll_difference_upper) == pytest.approx(expected, abs=1e-6)


def test_votes_that_are_counted_have_no_log_loss():
    probs_MNK, labels_N = votes(50, 1, 1.0)
    judge = ShiftJudge(HowToVote("hard", None, 0), labels_N, 0.0)
    judge.take(PartVotes("x", probs_MNK))
    found = judge.record("set", "somewhere", 3)
    assert np.isnan([found.vote_nll, found.nll_difference, found.nll_difference_lower]).all()
    assert np.isfinite(found.member_nll)


def test_bootstrap_p_and_interval_agree():
    generator = np.random.default_rng(0)
    for shift in np.linspace(-3, 3, 61):
        drawn = generator.normal(shift, 1, 999).round(1)  # with many equal values, some of them 0
        lower, upper = percentile_interval(drawn)
        assert (lower > 0 or upper < 0) == (bootstrap_p(drawn) < 0.05)


def test_bootstrap_p_and_interval_agree_at_the_very_edge():
    """Of 999 draws with 24 below 0, p is 0.05 exactly: not below it, so the interval holds 0."""
    for below in (23, 24, 25):
        drawn = np.r_[np.full(below, -1.0), np.full(999 - below, 1.0)]
        lower, _ = percentile_interval(drawn)
        assert (lower > 0) == (bootstrap_p(drawn) < 0.05) == (below == 23)


def test_draws_of_pairs_are_draws_of_images():
    vote_N, member_N = np.array([0, 0, 2, 1, 0] * 20), np.array([0, 1, 2, 0, 0] * 20)
    found = bootstrap_errors(vote_N, member_N, parts=2, seed=0, draws=20_000)
    assert found.vote_D.mean() == pytest.approx(vote_N.mean() / 2, abs=0.002)
    assert found.vote_D.std() == pytest.approx(vote_N.std() / 2 / 10, rel=0.03)
    assert np.corrcoef(found.vote_D, found.member_D)[0, 1] == pytest.approx(
        np.corrcoef(vote_N, member_N)[0, 1], abs=0.02
    )


def test_no_gain_over_a_member_without_errors():
    assert np.isnan(relative_gain(0.0, 0.0))
    assert relative_gain(0.1, 0.2) == 0.5


def test_scores_by_hand():
    probs = np.array([[[0.8, 0.2], [0.5, 0.5]], [[0.6, 0.4], [0.9, 0.1]]])
    found = scores_of(probs, HOW)
    np.testing.assert_allclose(found["max probability"], [0.7, 0.7])
    np.testing.assert_allclose(found["entropy"], [0.7 * np.log(0.7) + 0.3 * np.log(0.3)] * 2)
    means = [stats.entropy(probs[:, n], axis=1).mean() for n in range(2)]
    np.testing.assert_allclose(found["mutual information"], -(stats.entropy([0.7, 0.3]) - np.array(means)))
    np.testing.assert_array_equal(found["agreement"], [1.0, 1.0])
    assert set(scores_of(probs[:1], HOW)) == {"max probability", "entropy"}  # a single network has no others


def test_the_same_images_cannot_be_told_apart():
    probs_MNK, labels_N = votes(200, 3, 2.0)
    found = judge_unknown("x", "somewhere", probs_MNK, SplitVotes("test", probs_MNK, labels_N), HOW)
    for score in found.scores:
        assert score.auroc == pytest.approx(0.5, abs=1e-12)
        assert score.lower < 0.5 < score.upper
    assert found.scores[0].p_holm == found.scores[0].p_value  # the one that was fixed before


def test_a_promise_is_of_other_rows_and_is_tried_on_test():
    (known, labels_n), (new, labels_N) = votes(600, 1, 3.0), votes(400, 2, 3.0)
    choosing, test = SplitVotes("validation", known, labels_n), SplitVotes("test", new, labels_N)
    found = selective(choosing, test, HOW)
    vote_NK = new.mean(0).astype(np.float64)
    for one in found.promises:
        assert one.rows == 600
        if np.isnan(one.threshold):
            assert (one.outcome, one.answered) == ("nothing promised", 0)
            continue
        answered = vote_NK.max(1) >= one.threshold - 1e-9
        assert one.answered == answered.sum()
        assert one.test_risk == pytest.approx((vote_NK.argmax(1) != labels_N)[answered].mean(), abs=1e-12)
    poisoned = SplitVotes("test", np.full_like(new, 0.25), labels_N)
    assert [one.threshold for one in selective(choosing, poisoned, HOW).promises] == pytest.approx(
        [one.threshold for one in found.promises], nan_ok=True
    )
