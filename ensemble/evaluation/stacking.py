"""Stacking (Wolpert 1992): a logistic regression that learns which member to believe about which class.

Features are the members' log-probabilities, M * K per row. The ridge penalty pulls the regression towards the equal
geometric vote (which is one: every member's log-probability of a class with weight 1/M), not towards knowing nothing:

    minimise  -(1/N) sum_n log softmax(W x_n + b)[y_n] + |W - W_geometric|^2 / (2 C N)

The strength C is chosen, and the figures shown for these rows are made, by cross-fitting: each row is predicted by a
regression that did not see it. Other rows get the regression fitted to all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from ensemble.evaluation.aggregation import floored_log
from ensemble.evaluation.metrics import negative_log_likelihood
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.types import DoubleArray, IntArray

# From nearly the geometric vote to nearly free. Each fit starts from the one before, which makes the path cheap.
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Stacker:
    """A fitted regression: probabilities = softmax(features @ coefficients + intercepts).

    strength: the C chosen. cross_fitted_NK: its out-of-fold probabilities on the rows it was fitted to.
    """

    coefficients_FK: DoubleArray
    intercepts_K: DoubleArray
    strength: float
    cross_fitted_NK: DoubleArray

    def probabilities(self, probs_MNK: AnyFloatArray) -> DoubleArray:
        """The stacked vote, shape (N, K)."""
        return _probabilities(_features(probs_MNK), self.coefficients_FK, self.intercepts_K)


def fit_stacker(votes: SplitVotes, seed: int) -> Stacker:
    """Fit the regression to these votes, at least FOLDS rows. Raises PeekingError for test votes."""
    require_choosable(votes)
    assert votes.num_rows >= FOLDS, f"{votes.num_rows} rows cannot be divided into {FOLDS} folds"
    features_NF, labels_N = _features(votes.probs_MNK), votes.labels_N
    centre_FK = geometric_coefficients(votes.num_members, votes.num_classes)
    held_out_SNK = np.empty((len(STRENGTHS), votes.num_rows, votes.num_classes))
    fold_N = np.random.default_rng(seed).permutation(votes.num_rows) % FOLDS
    for fold in range(FOLDS):
        train, held_out = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
        path = regression_path(features_NF[train], labels_N[train], centre_FK, STRENGTHS)
        for s, (coefficients_FK, intercepts_K) in enumerate(path):
            held_out_SNK[s, held_out] = _probabilities(features_NF[held_out], coefficients_FK, intercepts_K)
    losses = [negative_log_likelihood(held_out_NK, labels_N) for held_out_NK in held_out_SNK]
    chosen = int(np.argmin(losses))
    final_FK, final_K = regression_path(features_NF, labels_N, centre_FK, STRENGTHS[: chosen + 1])[-1]
    return Stacker(final_FK, final_K, STRENGTHS[chosen], held_out_SNK[chosen])


def geometric_coefficients(members: int, classes: int) -> DoubleArray:
    """The coefficients with which the regression is the geometric vote, shape (M * K, K)."""
    return np.tile(np.eye(classes), (members, 1)) / np.sqrt(members)


def regression_path(
    features_NF: DoubleArray,
    labels_N: IntArray,
    centre_FK: DoubleArray,
    strengths: Sequence[float],
    tolerance: float = 1e-4,
) -> list[tuple[DoubleArray, DoubleArray]]:
    """Per strength the coefficients (F, K) and intercepts (K,) that minimise the penalised log loss.

    tolerance: largest slope of the objective at which a fit counts as converged. Intercepts are not penalised.
    """
    rows, classes = len(labels_N), centre_FK.shape[1]
    # A class without rows would want an intercept of minus infinity; a little penalty keeps it finite.
    point = np.vstack([centre_FK, np.zeros(classes)]).ravel()
    design_NF = np.hstack([features_NF, np.ones((rows, 1))])
    centre = point.copy()
    path = []
    for strength in strengths:
        penalty = np.full((len(centre_FK) + 1, classes), 1 / (strength * rows))
        penalty[-1] = 1e-6 / rows

        def objective(point: DoubleArray, penalty: DoubleArray = penalty.ravel()) -> tuple[float, DoubleArray]:
            scores_NK = design_NF @ point.reshape(-1, classes)
            scores_NK -= scores_NK.max(axis=1, keepdims=True)
            powers_NK = np.exp(scores_NK)
            sums_N = powers_NK.sum(axis=1)
            loss = float((np.log(sums_N) - scores_NK[np.arange(rows), labels_N]).mean())
            slope_NK = powers_NK / sums_N[:, None]
            slope_NK[np.arange(rows), labels_N] -= 1.0
            apart = point - centre
            gradient = (design_NF.T @ slope_NK).ravel() / rows + penalty * apart
            return loss + float((penalty * apart**2).sum()) / 2, gradient

        point = optimize.minimize(
            objective, point, jac=True, method="L-BFGS-B", options={"gtol": tolerance, "ftol": 0.0, "maxiter": 500}
        ).x
        solution = point.reshape(-1, classes)
        path.append((solution[:-1], solution[-1]))
    return path


def _features(probs_MNK: AnyFloatArray) -> DoubleArray:
    """Log-probabilities, shape (N, M * K), scaled so that the penalty means the same for any M."""
    members, rows, _ = probs_MNK.shape
    logs_NF = floored_log(probs_MNK).transpose(1, 0, 2).reshape(rows, -1)
    scaled: DoubleArray = logs_NF / np.sqrt(members)
    return scaled


def _probabilities(features_NF: DoubleArray, coefficients_FK: DoubleArray, intercepts_K: DoubleArray) -> DoubleArray:
    probs_NK: DoubleArray = special.softmax(features_NF @ coefficients_FK + intercepts_K, axis=1)
    return probs_NK
