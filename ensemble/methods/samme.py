"""SAMME, the multi-class AdaBoost, as pure functions: errors, alphas, weights, scores and where it stops.

Zhu, Zou, Rosset, Hastie 2009, "Multi-class AdaBoost". With sample weights w that sum to 1, K classes and a shrinkage
lr, a round whose member misses some of the rows does

    error = sum_i w_i [missed_i]
    alpha = lr * (log((1 - error) / error) + log(K - 1))
    w_i  <- w_i * exp(alpha * [missed_i]), divided by their sum

and the ensemble's score for class k is sum_m alpha_m (1 if m says k, else -1/(K-1)) / sum_m alpha_m. alpha is positive
exactly where the error is below 1 - 1/K, the error of guessing; K = 2 is AdaBoost.

Weights are kept as their logarithms in float64: a row that is right for a hundred rounds keeps a weight above zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ensemble.types import DoubleArray, IntArray

BoolArray = npt.NDArray[np.bool_]
Verdict = Literal["useful", "perfect", "no better than guessing"]


@dataclass(frozen=True, eq=False)
class Step:
    """One round: the error as measured, what it makes of the member, and the log-weights of the next round."""

    error: float
    alpha: float
    verdict: Verdict
    log_weights_N: DoubleArray


def equal_log_weights(num_rows: int) -> DoubleArray:
    """log(1/N) for every row."""
    return np.full(num_rows, -np.log(num_rows))


def normalised(log_weights_N: DoubleArray) -> DoubleArray:
    """The same weights, summing to 1."""
    largest = log_weights_N.max()
    shifted: DoubleArray = log_weights_N - (largest + np.log(np.exp(log_weights_N - largest).sum()))
    return shifted


def effective_size(log_weights_N: DoubleArray) -> float:
    """1 / sum w^2 of the normalised weights: how many equally heavy rows would be as concentrated; N if all are equal."""
    return float(1.0 / np.exp(2.0 * normalised(log_weights_N)).sum())


def heaviest(log_weights_N: DoubleArray, count: int) -> IntArray:
    """Positions of the `count` heaviest rows, heaviest first; of equals the first."""
    return np.argsort(-log_weights_N, kind="stable")[:count].astype(np.int64)


def weighted_error(log_weights_N: DoubleArray, missed_N: BoolArray, voted_N: BoolArray | None = None) -> float:
    """The weight of the missed rows as a share of the weight of the rows that were voted on (None: all)."""
    voted_N = np.ones(len(missed_N), np.bool_) if voted_N is None else voted_N
    assert voted_N.any(), "an error needs a row that was voted on"
    weights = np.exp(normalised(log_weights_N[voted_N]))
    return float(np.clip(weights[missed_N[voted_N]].sum() / weights.sum(), 0.0, 1.0))


def alpha_of(error: float, num_classes: int, learning_rate: float = 1.0) -> float:
    """lr * (log((1 - error) / error) + log(K - 1)) of an error in (0, 1)."""
    return float(learning_rate * (np.log((1.0 - error) / error) + np.log(num_classes - 1.0)))


def step(
    log_weights_N: DoubleArray,
    missed_N: BoolArray,
    num_classes: int,
    learning_rate: float = 1.0,
    voted_N: BoolArray | None = None,
    *,
    clamp: bool = True,
) -> Step:
    """One round of the recursion.

    voted_N: rows that may count; the others have no part in the error and keep their weight. clamp: an error of 0
    counts as 1/(2 rows voted on), which gives a finite alpha; without it a perfect member has the weight 1, as in
    scikit-learn. A member no better than guessing has alpha 0 and changes no weight.
    """
    voted_N = np.ones(len(missed_N), np.bool_) if voted_N is None else voted_N
    error = weighted_error(log_weights_N, missed_N, voted_N)
    if error >= 1.0 - 1.0 / num_classes:
        return Step(error, 0.0, "no better than guessing", log_weights_N)
    perfect = not (missed_N & voted_N).any()
    if perfect and not clamp:
        return Step(error, 1.0, "perfect", log_weights_N)
    # The clamp also bounds an error that is positive only by a row of next to no weight.
    clamped = max(error, 0.5 / int(voted_N.sum())) if clamp else error
    alpha = alpha_of(clamped, num_classes, learning_rate)
    moved = normalised(log_weights_N + alpha * (missed_N & voted_N))
    return Step(error, alpha, "perfect" if perfect else "useful", moved)


def recursion(
    classes_MN: IntArray, labels_N: IntArray, num_classes: int, learning_rate: float = 1.0, *, clamp: bool = False
) -> list[Step]:
    """The rounds of members that predict `classes_MN` on their training rows, up to where SAMME stops.

    A member no better than guessing ends it and is not among the steps; without clamp a perfect one ends it and is.
    """
    steps: list[Step] = []
    log_weights_N = equal_log_weights(len(labels_N))
    for classes_N in classes_MN:
        done = step(log_weights_N, classes_N != labels_N, num_classes, learning_rate, clamp=clamp)
        if done.verdict == "no better than guessing":
            break
        steps.append(done)
        log_weights_N = done.log_weights_N
        if done.verdict == "perfect" and not clamp:
            break
    return steps


def staged_scores(classes_MN: IntArray, alphas_M: Sequence[float], num_classes: int) -> Iterator[DoubleArray]:
    """The scores of shape (N, K) after each member: sum_m alpha_m (1 if m says k, else -1/(K-1)) / sum_m alpha_m."""
    total_NK = np.zeros((classes_MN.shape[1], num_classes))
    loudness = 0.0
    for classes_N, alpha in zip(classes_MN, alphas_M, strict=True):
        said_NK = classes_N[:, None] == np.arange(num_classes)
        total_NK += np.where(said_NK, alpha, -alpha / (num_classes - 1))
        loudness += alpha
        yield total_NK / loudness


def scores(classes_MN: IntArray, alphas_M: Sequence[float], num_classes: int) -> DoubleArray:
    """The scores after the last member; the highest one names the class."""
    *_, last_NK = staged_scores(classes_MN, alphas_M, num_classes)
    return last_NK


def class_probabilities(scores_NK: DoubleArray) -> DoubleArray:
    """softmax(score / (K - 1)), shape (N, K): the population minimiser of the exponential loss, inverted."""
    scaled_NK = scores_NK / (scores_NK.shape[1] - 1)
    powers_NK = np.exp(scaled_NK - scaled_NK.max(axis=1, keepdims=True))
    probs_NK: DoubleArray = powers_NK / powers_NK.sum(axis=1, keepdims=True)
    return probs_NK
