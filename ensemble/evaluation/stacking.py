"""Stacking (Wolpert 1992): a logistic regression that learns which member to believe about which class.

Features are the members' log-probabilities, M * K per row. The regression is cross-fitted: the figures shown for the
rows it is fitted to come from regressions that did not see them, and so does the choice of its regularisation. Test
rows get the regression fitted to all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ensemble.evaluation.aggregation import floored_log
from ensemble.evaluation.metrics import negative_log_likelihood
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes, require_choosable
from ensemble.types import DoubleArray, IntArray

# Inverse strengths of the ridge penalty from strong to weak, for features divided by sqrt(M). Each fit starts from the
# one before, which makes the path cheap.
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
FOLDS = 5
# Largest slope of the mean loss that counts as converged; tighter costs four times as long and changes no figure.
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Stacker:
    """A fitted regression: probabilities = softmax(features @ coefficients + intercepts).

    cross_fitted_NK: its out-of-fold probabilities on the rows it was fitted to. inverse_strength: the C chosen.
    """

    coefficients_FK: DoubleArray
    intercepts_K: DoubleArray
    inverse_strength: float
    cross_fitted_NK: DoubleArray

    def probabilities(self, probs_MNK: AnyFloatArray) -> DoubleArray:
        """The stacked vote, shape (N, K)."""
        return _probabilities(_features(probs_MNK), self.coefficients_FK, self.intercepts_K)


def fit_stacker(votes: SplitVotes, seed: int) -> Stacker:
    """Fit the regression to these votes, at least FOLDS rows. Raises PeekingError for test votes."""
    require_choosable(votes)
    assert votes.num_rows >= FOLDS, f"{votes.num_rows} rows cannot be divided into {FOLDS} folds"
    features_NF, labels_N, classes = _features(votes.probs_MNK), votes.labels_N, votes.num_classes
    held_out_SNK = np.empty((len(STRENGTHS), votes.num_rows, classes))
    fold_N = np.random.default_rng(seed).permutation(votes.num_rows) % FOLDS
    for fold in range(FOLDS):
        train, test = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
        path = _regression_path(features_NF[train], labels_N[train], classes, STRENGTHS)
        for s, (weights_FK, bias_K) in enumerate(path):
            held_out_SNK[s, test] = _probabilities(features_NF[test], weights_FK, bias_K)
    losses = [negative_log_likelihood(held_out_NK, labels_N) for held_out_NK in held_out_SNK]
    chosen = int(np.argmin(losses))
    coefficients_FK, intercepts_K = _regression_path(features_NF, labels_N, classes, STRENGTHS[: chosen + 1])[-1]
    return Stacker(coefficients_FK, intercepts_K, STRENGTHS[chosen], held_out_SNK[chosen])


def _features(probs_MNK: AnyFloatArray) -> DoubleArray:
    """Log-probabilities, shape (N, M * K), scaled so that the regularisation means the same for any M."""
    members, rows, _ = probs_MNK.shape
    logs_NF = floored_log(probs_MNK).transpose(1, 0, 2).reshape(rows, -1)
    scaled: DoubleArray = logs_NF / np.sqrt(members)
    return scaled


def _probabilities(features_NF: DoubleArray, coefficients_FK: DoubleArray, intercepts_K: DoubleArray) -> DoubleArray:
    probs_NK: DoubleArray = special.softmax(features_NF @ coefficients_FK + intercepts_K, axis=1)
    return probs_NK


def _regression_path(
    features_NF: DoubleArray, labels_N: IntArray, classes: int, strengths: Sequence[float]
) -> list[tuple[DoubleArray, DoubleArray]]:
    """Per strength coefficients (F, K) and intercepts (K,) of all K classes; a class without rows is never predicted."""
    # scikit-learn takes seconds to load, so only those who stack wait for it.
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels_N)
    model = LogisticRegression(max_iter=1000, tol=TOLERANCE, warm_start=True)
    path = []
    for strength in strengths:
        coefficients_FK = np.zeros((features_NF.shape[1], classes))
        intercepts_K = np.full(classes, -np.inf)
        if len(present) == 1:
            intercepts_K[present] = 0.0
        else:
            model.set_params(C=strength).fit(features_NF, labels_N)
            # scikit-learn keeps one row for two classes: the score of the second against the first.
            two = len(present) == 2
            coefficients_FK[:, present[1:] if two else present] = model.coef_.T
            intercepts_K[present] = [0.0, model.intercept_[0]] if two else model.intercept_
        path.append((coefficients_FK, intercepts_K))
    return path
