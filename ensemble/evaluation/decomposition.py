"""Why the vote is better than its members, and what kind of doubt it has.

Ambiguity: the loss of the vote is the mean loss of the members minus a term that measures how much they differ.
    Brier score, mean probability:     L(mean) = sum w_m L(p_m) - sum w_m |p_m - mean|^2    (Krogh and Vedelsby 1995)
    log loss, geometric mean q:        L(q)    = sum w_m L(p_m) - sum w_m KL(q || p_m)
Both are identities, and their second term needs no labels. For the log loss of the mean probability there is a gain
too, sum w_m log(mean(y) / p_m(y)) >= 0, but it depends on the label. Errors have no such identity.

Uncertainty: H(mean p) = mean H(p_m) + mutual information, that is total = aleatoric + epistemic, in nats.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from ensemble.evaluation.aggregation import (
    floored_log,
    mean_log_probabilities,
    mean_probabilities,
    normalised_weights,
)
from ensemble.evaluation.metrics import brier_score, negative_log_likelihood
from ensemble.evaluation.splits import AnyFloatArray
from ensemble.types import DoubleArray, IntArray


class AmbiguityTerms(NamedTuple):
    """combined = members - ambiguity: loss of the vote, weighted mean loss of the members, and their difference."""

    combined: float
    members: float
    ambiguity: float


class UncertaintyTerms(NamedTuple):
    """Per row, in nats: total = aleatoric + epistemic."""

    total_N: DoubleArray
    aleatoric_N: DoubleArray
    epistemic_N: DoubleArray


def brier_ambiguity(
    probs_MNK: AnyFloatArray, labels_N: IntArray, weights_M: AnyFloatArray | None = None
) -> AmbiguityTerms:
    """Krogh and Vedelsby's identity for the Brier score of the mean probability; each term computed by itself."""
    weights = normalised_weights(weights_M, len(probs_MNK))
    mean_NK = mean_probabilities(probs_MNK, weights)
    members = sum(w * brier_score(probs_NK, labels_N) for w, probs_NK in zip(weights, probs_MNK, strict=True))
    spread = sum(
        w * np.square(probs_NK.astype(np.float64) - mean_NK).sum(axis=1).mean()
        for w, probs_NK in zip(weights, probs_MNK, strict=True)
    )
    return AmbiguityTerms(brier_score(mean_NK, labels_N), float(members), float(spread))


def log_ambiguity(
    probs_MNK: AnyFloatArray, labels_N: IntArray, weights_M: AnyFloatArray | None = None
) -> AmbiguityTerms:
    """The identity for the log loss of the geometric mean; each term computed by itself, probabilities floored."""
    weights = normalised_weights(weights_M, len(probs_MNK))
    means_NK = mean_log_probabilities(probs_MNK, weights)
    # log q itself, not the logarithm of a floored q: the identity holds for sharp votes too.
    logs_NK = special.log_softmax(means_NK, axis=1)
    members = sum(
        w * negative_log_likelihood(probs_NK, labels_N) for w, probs_NK in zip(weights, probs_MNK, strict=True)
    )
    # sum_m w_m KL(q || p_m) = sum_k q_k (log q_k - sum_m w_m log p_mk)
    divergence = (np.exp(logs_NK) * (logs_NK - means_NK)).sum(axis=1).mean()
    combined = -logs_NK[np.arange(len(labels_N)), labels_N].mean()
    return AmbiguityTerms(float(combined), float(members), float(divergence))


def mean_log_gain(
    probs_MNK: AnyFloatArray, labels_N: IntArray, weights_M: AnyFloatArray | None = None
) -> AmbiguityTerms:
    """The same three figures for the log loss of the mean probability, where the gain depends on the labels."""
    weights = normalised_weights(weights_M, len(probs_MNK))
    true_MN = probs_MNK[:, np.arange(len(labels_N)), labels_N]
    combined = float(-floored_log(weights @ true_MN.astype(np.float64)).mean())
    members = float(weights @ -floored_log(true_MN).mean(axis=1))
    return AmbiguityTerms(combined, members, members - combined)


def uncertainty(probs_MNK: AnyFloatArray, weights_M: AnyFloatArray | None = None) -> UncertaintyTerms:
    """Entropy of the mean vote, split into the members' own doubt and their disagreement (Depeweg et al. 2018)."""
    weights = normalised_weights(weights_M, len(probs_MNK))
    total_N = special.entr(mean_probabilities(probs_MNK, weights)).sum(axis=1)
    aleatoric_N = np.zeros_like(total_N)
    for w, probs_NK in zip(weights, probs_MNK, strict=True):
        aleatoric_N += w * special.entr(probs_NK.astype(np.float64)).sum(axis=1)
    # Jensen's inequality keeps the difference above zero but for rounding.
    epistemic_N = np.maximum(total_N - aleatoric_N, 0.0)
    return UncertaintyTerms(total_N, aleatoric_N, epistemic_N)
