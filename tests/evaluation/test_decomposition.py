from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.decomposition import brier_ambiguity, log_ambiguity, mean_log_gain, uncertainty
from ensemble.evaluation.metrics import negative_log_likelihood


def votes(seed: int, members: int, sharpness: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(members, 50, 4))
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    weights = rng.random(members) + 0.01
    return (probs / probs.sum(-1, keepdims=True)).astype(np.float32), rng.integers(0, 4, 50), weights


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), members=st.integers(1, 6), sharpness=st.sampled_from([0.1, 2.0, 20.0, 60.0]))
def test_both_identities_hold(seed, members, sharpness):
    probs, labels, weights = votes(seed, members, sharpness)
    for identity in (brier_ambiguity, log_ambiguity, mean_log_gain):
        for w in (None, weights):
            terms = identity(probs, labels, w)
            assert terms.combined == pytest.approx(terms.members - terms.ambiguity, abs=1e-6)
            # float32 rows sum to 1 but for the last digit, and so much can be missing here.
            assert terms.ambiguity >= -1e-6


@pytest.mark.parametrize("identity", [brier_ambiguity, log_ambiguity])
def test_ambiguity_needs_no_labels(identity):
    probs, labels, weights = votes(0, 4, 2.0)
    other = (labels + 1) % 4
    assert identity(probs, labels, weights).ambiguity == identity(probs, other, weights).ambiguity
    assert mean_log_gain(probs, labels).ambiguity != pytest.approx(mean_log_gain(probs, other).ambiguity)


def test_log_ambiguity_is_a_mean_divergence():
    probs, labels, _ = votes(1, 3, 2.0)
    geometric = decide("geometric", probs).probs_NK
    divergences = [entropy(geometric, member.astype(np.float64), axis=1).mean() for member in probs]
    terms = log_ambiguity(probs, labels)
    # scipy normalises the members, whose float32 rows sum to 1 but for the last digit.
    assert terms.ambiguity == pytest.approx(np.mean(divergences), abs=1e-6)
    assert terms.combined == pytest.approx(negative_log_likelihood(geometric, labels))


def test_identical_members_have_no_ambiguity_and_no_epistemic_doubt():
    probs, labels, _ = votes(2, 1, 2.0)
    same = np.repeat(probs, 4, axis=0)
    assert brier_ambiguity(same, labels).ambiguity == pytest.approx(0, abs=1e-12)
    assert log_ambiguity(same, labels).ambiguity == pytest.approx(0, abs=1e-7)
    assert uncertainty(same).epistemic_N == pytest.approx(np.zeros(50), abs=1e-9)


def test_uncertainty_against_scipy():
    probs, _, _ = votes(3, 5, 2.0)
    terms = uncertainty(probs)
    exact = probs.astype(np.float64)
    exact /= exact.sum(-1, keepdims=True)
    assert terms.total_N == pytest.approx(entropy(exact.mean(axis=0), axis=1), abs=1e-6)
    assert terms.aleatoric_N == pytest.approx(entropy(exact, axis=2).mean(axis=0), abs=1e-6)
    assert terms.total_N == pytest.approx(terms.aleatoric_N + terms.epistemic_N, abs=1e-9)


def test_certain_members_that_contradict_each_other_are_all_epistemic():
    terms = uncertainty(np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32))
    assert terms.total_N == pytest.approx([np.log(2)])
    assert terms.aleatoric_N.tolist() == [0.0]
