"""Stacking (Wolpert 1992): a logistic regression that learns which member to believe about which class.

Features are the members' log-probabilities and a constant, M * K + 1 per row. The ridge penalty pulls the regression
towards the equal geometric vote (which is one: every log-probability with weight 1/M), not towards knowing nothing:

    minimise  -(1/N) sum_n log softmax(W x_n)[y_n] + |W - W_geometric|^2 / (2 C N)

The strength C is chosen, and the figures shown for these rows are made, by cross-fitting: each row is predicted by a
regression that did not see it. Other rows get the regression fitted to all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special
from threadpoolctl import threadpool_limits

from ensemble.evaluation.aggregation import floored_log
from ensemble.evaluation.metrics import negative_log_likelihood
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.types import DoubleArray, IntArray

# From nearly the geometric vote to nearly free. Each fit starts from the one before, which makes the path cheap.
STRENGTHS = (0.001, 0.01, 0.1)
FOLDS = 5
# The regression takes the cube of its number of features: 1,500 of them a few seconds, 10,000 half an hour.
MOST_FEATURES = 1_500


@dataclass(frozen=True, eq=False)
class Stacker:
    """A fitted regression: probabilities = softmax(features @ coefficients).

    strength: the C chosen. cross_fitted_NK: its out-of-fold probabilities on the rows it was fitted to.
    """

    coefficients_FK: DoubleArray
    strength: float
    cross_fitted_NK: DoubleArray

    def probabilities(self, probs_MNK: AnyFloatArray) -> DoubleArray:
        """The stacked vote, shape (N, K)."""
        return _predict(features(probs_MNK), self.coefficients_FK)


def fit_stacker(votes: SplitVotes, seed: int) -> Stacker:
    """Fit the regression to these votes, at least FOLDS rows. Raises PeekingError for test votes.

    On one BLAS thread: numpy and scipy have one pool of them each, which keep each other waiting (docs/log.md).
    """
    with threadpool_limits(limits=1, user_api="blas"):
        return _fit_stacker(votes, seed)


def _fit_stacker(votes: SplitVotes, seed: int) -> Stacker:
    require_choosable(votes)
    assert votes.num_rows >= FOLDS, f"{votes.num_rows} rows cannot be divided into {FOLDS} folds"
    features_NF, labels_N = features(votes.probs_MNK), votes.labels_N
    centre_FK = geometric_coefficients(votes.num_members, votes.num_classes)
    held_out_SNK = np.empty((len(STRENGTHS), votes.num_rows, votes.num_classes))
    fold_N = np.random.default_rng(seed).permutation(votes.num_rows) % FOLDS
    for fold in range(FOLDS):
        train, held_out = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
        path = regression_path(features_NF[train], labels_N[train], centre_FK, STRENGTHS)
        for s, coefficients_FK in enumerate(path):
            held_out_SNK[s, held_out] = _predict(features_NF[held_out], coefficients_FK)
    losses = [negative_log_likelihood(held_out_NK, labels_N) for held_out_NK in held_out_SNK]
    chosen = int(np.argmin(losses))
    final_FK = regression_path(features_NF, labels_N, centre_FK, STRENGTHS[: chosen + 1])[-1]
    return Stacker(final_FK, STRENGTHS[chosen], held_out_SNK[chosen])


def features(probs_MNK: AnyFloatArray) -> DoubleArray:
    """Log-probabilities and a constant, shape (N, M * K + 1), scaled so that the penalty means the same for any M."""
    members, rows, _ = probs_MNK.shape
    logs_NF = floored_log(probs_MNK).transpose(1, 0, 2).reshape(rows, -1)
    return np.hstack([logs_NF / np.sqrt(members), np.ones((rows, 1))])


def geometric_coefficients(members: int, classes: int) -> DoubleArray:
    """The coefficients with which the regression is the geometric vote, shape (M * K + 1, K)."""
    return np.vstack([np.tile(np.eye(classes), (members, 1)) / np.sqrt(members), np.zeros((1, classes))])


def regression_path(
    features_NF: DoubleArray,
    labels_N: IntArray,
    centre_FK: DoubleArray,
    strengths: Sequence[float],
    tolerance: float = 1e-3,
) -> list[DoubleArray]:
    """The coefficients (F, K) that minimise the penalised log loss, for each strength.

    tolerance: largest slope, in the coordinates below, at which a fit counts as converged.

    The members say nearly the same, so the features are nearly collinear and plain descent would crawl. It runs in
    the directions in which the loss curves instead, each scaled by its curvature: the penalty stays diagonal there.
    """
    from scipy import optimize  # only where something is fitted, see `temperature`

    rows, classes = len(labels_N), centre_FK.shape[1]
    start_NK = features_NF @ centre_FK
    doubt_N = (1 - np.square(special.softmax(start_NK, axis=1)).sum(axis=1)) / classes
    curvature_F, basis_FF = np.linalg.eigh(features_NF.T @ (features_NF * doubt_N[:, None]) / rows)
    rotated_NF = features_NF @ basis_FF
    step_FK, path = np.zeros_like(centre_FK), []
    for strength in strengths:
        ridge = 1 / (strength * rows)
        scale_F1 = 1 / np.sqrt(np.maximum(curvature_F, 0) + ridge)[:, None]
        objective = _Objective(rotated_NF * scale_F1.T, start_NK, labels_N, ridge * np.square(scale_F1))
        options = {"gtol": tolerance, "maxiter": 200}
        found = optimize.minimize(objective, (step_FK / scale_F1).ravel(), jac=True, method="L-BFGS-B", options=options)
        step_FK = found.x.reshape(centre_FK.shape) * scale_F1
        path.append(centre_FK + basis_FF @ step_FK)
    return path


@dataclass(frozen=True, eq=False)
class _Objective:
    """Penalised mean log loss of softmax(start + design @ point) and its gradient."""

    design_NF: DoubleArray
    start_NK: DoubleArray
    labels_N: IntArray
    penalty_F1: DoubleArray

    def __call__(self, flat: DoubleArray) -> tuple[float, DoubleArray]:
        rows = np.arange(len(self.labels_N))
        point_FK = flat.reshape(self.design_NF.shape[1], -1)
        scores_NK = self.start_NK + self.design_NF @ point_FK
        scores_NK -= scores_NK.max(axis=1, keepdims=True)
        slope_NK = np.exp(scores_NK)
        sums_N = slope_NK.sum(axis=1)
        loss = (np.log(sums_N) - scores_NK[rows, self.labels_N]).mean()
        slope_NK /= sums_N[:, None]
        slope_NK[rows, self.labels_N] -= 1.0
        pull_FK = self.penalty_F1 * point_FK
        gradient_FK = self.design_NF.T @ slope_NK / len(rows) + pull_FK
        return float(loss + (pull_FK * point_FK).sum() / 2), gradient_FK.ravel()


def _predict(features_NF: DoubleArray, coefficients_FK: DoubleArray) -> DoubleArray:
    probs_NK: DoubleArray = special.softmax(features_NF @ coefficients_FK, axis=1)
    return probs_NK
