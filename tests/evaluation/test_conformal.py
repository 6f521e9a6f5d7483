from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, ks_1samp

from ensemble.errors import PeekingError
from ensemble.evaluation.conformal import Rule, calibrate, never_empty, quantile, quantile_rank, row_uniforms
from ensemble.evaluation.splits import SplitVotes

METHODS = {
    "lac": {},
    "aps": {},
    "raps": {"penalty": 0.05, "k_reg": 1},
    "aps randomised": {"randomised": True, "seed": 3},
    "raps randomised": {"randomised": True, "penalty": 0.05, "k_reg": 2, "seed": 3},
}


def draw(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels drawn from them, sharpened: a vote that is a little too certain."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(rows, classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < rng.random(rows)[:, None]).sum(axis=1)
    sharp = np.exp(1.3 * logits)
    return sharp / sharp.sum(axis=1, keepdims=True), np.minimum(labels, classes - 1)


def votes(rows: int = 300, classes: int = 5, seed: int = 0, split: str = "calibration") -> SplitVotes:
    probs, labels = draw(rows, classes, seed)
    return SplitVotes(split, probs[None], labels)


def rule_for(name: str, calibration: SplitVotes, alpha: float) -> Rule:
    return calibrate(name.split()[0], calibration, alpha, **METHODS[name])


# k for n = 1..20: (n + 1) x 0.9 and (n + 1) x 0.7, rounded up by hand; n + 1 where too few rows.
RANKS_10 = [2, 3, 4, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 18, 19]
RANKS_30 = [2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 10, 10, 11, 12, 12, 13, 14, 14, 15]


@pytest.mark.parametrize(("alpha", "ranks"), [(0.1, RANKS_10), (0.3, RANKS_30)])
def test_quantiles_by_hand(alpha, ranks):
    rng = np.random.default_rng(0)
    for n, k in enumerate(ranks, start=1):
        # The i-th smallest score is i.
        found = quantile(rng.permutation(np.arange(1.0, n + 1)), alpha)
        assert found == (k if k <= n else math.inf)


def test_a_whole_number_is_not_rounded_up_by_floats():
    assert 10 * (1 - 0.7) > 3
    assert quantile_rank(9, 0.7) == 3
    # For each whole number of per cent, (n + 1)(100 - a)/100 rounded up in whole numbers.
    for n in range(1, 2000, 7):
        for percent in range(1, 100):
            assert quantile_rank(n, percent / 100) == max(1, -(-(n + 1) * (100 - percent) // 100))


def test_scores_by_hand():
    probs = np.array([[0.2, 0.5, 0.3], [0.25, 0.25, 0.5]])
    assert Rule("lac", 0.1, 1, 9).scores(probs) == pytest.approx(1 - probs)
    aps = np.array([[1.0, 0.5, 0.8], [0.75, 1.0, 0.5]])
    assert Rule("aps", 0.1, 1, 9).scores(probs) == pytest.approx(aps)
    penalties = np.array([[0.2, 0.0, 0.1], [0.1, 0.2, 0.0]])
    assert Rule("raps", 0.1, 1, 9, penalty=0.1, k_reg=1).scores(probs) == pytest.approx(aps + penalties)
    u = row_uniforms(probs, seed=5)[:, None]
    randomised = Rule("raps", 0.1, 1, 9, randomised=True, penalty=0.1, k_reg=1, seed=5).scores(probs)
    assert randomised == pytest.approx(aps + penalties - u * probs)


def test_a_rule_by_hand():
    # True scores 0.1, 0.2, 0.4 and 0.7; k = ceil(5 x 0.6) = 3, so classes with p >= 0.6 are in.
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    rule = calibrate("lac", SplitVotes("validation", probs[None], np.array([0, 1, 0, 0])), alpha=0.4)
    assert rule == Rule("lac", 0.4, pytest.approx(0.4), 4)
    assert rule.sets(np.array([[0.61, 0.39], [0.5, 0.5], [0.0, 1.0]])).tolist() == [[1, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize("name", METHODS)
def test_the_threshold_is_the_quantile_of_the_true_scores_and_a_set_what_scores_no_more(name):
    calibration = votes()
    rule = rule_for(name, calibration, 0.1)
    true = rule.scores(calibration.probs_MNK[0])[np.arange(300), calibration.labels_N]
    assert rule.threshold == np.sort(true)[math.ceil(301 * 0.9) - 1]
    probs, _ = draw(200, 5, 1)
    sets = rule.sets(probs)
    assert (sets == (rule.scores(probs) <= rule.threshold)).all()
    assert 0 < sets.mean() < 1


@pytest.mark.parametrize("name", METHODS)
def test_few_rows_give_every_class(name):
    rule = rule_for(name, votes(rows=8), 0.1)
    assert rule.threshold == math.inf
    assert rule.sets(draw(20, 5, 1)[0]).all()


@pytest.mark.parametrize("name", METHODS)
def test_sets_are_nested_in_alpha(name):
    calibration, (probs, _) = votes(), draw(200, 5, 1)
    last = np.ones((200, 5), bool)
    for alpha in (0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 0.95):
        sets = rule_for(name, calibration, alpha).sets(probs)
        assert not (sets & ~last).any()
        last = sets


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_enough_scores_lie_at_or_below_the_threshold_with_ties_too(scores, alpha):
    scores = np.round(np.array(scores), 1)
    threshold = quantile(scores, alpha)
    k = quantile_rank(len(scores), alpha)
    if k <= len(scores):
        assert (scores <= threshold).sum() >= k > (scores < threshold).sum()
    else:
        assert threshold == math.inf


@pytest.mark.parametrize("name", METHODS)
def test_coverage_over_calibration_draws_follows_beta(name):
    # The pool is the whole population, so a threshold's coverage is known exactly.
    pool, labels = draw(100_000, 10, 2)
    scores = rule_for(name, votes(classes=10), 0.1).scores(pool)[np.arange(len(pool)), labels]
    population = np.sort(scores)
    # Of aps and raps a class of the last rank always scores the same.
    assert (np.diff(population) == 0).mean() < 0.015
    rng = np.random.default_rng(4)
    for n, alpha in ((20, 0.1), (100, 0.1), (1000, 0.05), (5000, 0.1)):
        thresholds = [quantile(scores[rng.integers(0, len(scores), n)], alpha) for _ in range(1000)]
        coverage = np.searchsorted(population, thresholds, side="right") / len(population)
        promised = beta(quantile_rank(n, alpha), n + 1 - quantile_rank(n, alpha))
        assert abs(coverage.mean() - promised.mean()) < 4 * promised.std() / np.sqrt(1000)
        # 0.0615 is the 0.1 % point of the statistic for 1,000 values.
        assert ks_1samp(coverage, promised.cdf).statistic < 0.0615


def test_ties_cover_more_never_less():
    # Two kinds of rows only: right ones score 0.1, wrong ones 0.9; one in twenty is wrong.
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        wrong = (rng.random(100) < 0.05).astype(np.int64)
        calibration = SplitVotes("calibration", np.tile([0.9, 0.1], (1, 100, 1)), wrong)
        sets = calibrate("lac", calibration, 0.1).sets(np.array([[0.9, 0.1]]))[0]
        covered.append(0.95 * sets[0] + 0.05 * sets[1])
    assert min(covered) >= 0.95
    assert np.mean(covered) < 1


def test_equal_images_have_equal_sets_wherever_they_stand():
    calibration, (probs, _) = votes(), draw(50, 5, 1)
    rule = rule_for("aps randomised", calibration, 0.2)
    sets = rule.sets(probs)
    order = np.random.default_rng(0).permutation(50)
    assert (rule.sets(probs[order]) == sets[order]).all()
    assert (rule.sets(probs[7:8]) == sets[7:8]).all()
    single = probs.astype(np.float32)
    assert (row_uniforms(single, 1) == row_uniforms(single.astype(np.float64), 1)).all()
    assert (row_uniforms(np.asfortranarray(probs), 1) == row_uniforms(probs, 1)).all()
    assert row_uniforms(np.array([[0.0, 1.0]]), 1) == row_uniforms(np.array([[-0.0, 1.0]]), 1)


def test_the_uniforms_are_uniform_and_tell_nothing_of_the_row():
    probs, labels = draw(20_000, 3, 0)
    u = row_uniforms(probs, seed=0)
    assert ks_1samp(u, beta(1, 1).cdf).pvalue > 0.01
    for of_row in (probs.max(axis=1), labels == probs.argmax(axis=1), row_uniforms(probs, seed=1)):
        assert abs(np.corrcoef(u, of_row)[0, 1]) < 4 / np.sqrt(20_000)
    # Probabilities that differ in their last bit only.
    steps = 0.25 + np.arange(20_000) * 2.0**-54
    assert ks_1samp(row_uniforms(np.stack([steps, 1 - steps], axis=1), 0), beta(1, 1).cdf).pvalue > 0.01


def test_randomised_sets_are_smaller():
    calibration, (probs, _) = votes(rows=5000), draw(5000, 5, 1)
    sizes = {name: rule_for(name, calibration, 0.1).sets(probs).sum(axis=1).mean() for name in METHODS}
    assert sizes["lac"] < sizes["aps randomised"] < sizes["aps"]


def test_never_empty_adds_the_vote_and_nothing_else():
    sets = np.array([[False, False, False], [True, False, True], [False, False, False]])
    filled = never_empty(sets, np.array([2, 1, 0]))
    assert filled.tolist() == [[0, 0, 1], [1, 0, 1], [1, 0, 0]]
    assert not sets[0].any()


def test_test_votes_are_refused_and_calibration_ones_pass():
    with pytest.raises(PeekingError):
        calibrate("lac", votes(split="test"), 0.1)
    assert calibrate("lac", votes(split="validation"), 0.1) == calibrate("lac", votes(split="calibration"), 0.1)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(AssertionError, match="alpha"):
        calibrate("lac", votes(), 1.0)
    with pytest.raises(AssertionError, match="randomised"):
        calibrate("lac", votes(), 0.1, randomised=True)
    with pytest.raises(AssertionError, match="negative"):
        calibrate("raps", votes(), 0.1, penalty=-1.0)
    members = SplitVotes("calibration", np.full((2, 3, 2), 0.5), np.zeros(3, np.int64))
    with pytest.raises(AssertionError, match="one member"):
        calibrate("lac", members, 0.1)


def test_a_rule_survives_json():
    rule = rule_for("raps randomised", votes(), 0.1)
    assert Rule(**json.loads(json.dumps(dataclasses.asdict(rule)))) == rule
