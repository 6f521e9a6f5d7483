"""SAMME's recursion against hand-computed values and against scikit-learn's AdaBoostClassifier to 1e-10."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.ensemble import AdaBoostClassifier
from sklearn.tree import DecisionTreeClassifier

from ensemble.methods import samme


class Replay(ClassifierMixin, BaseEstimator):
    """Predicts the m-th list of classes for the rows 0..N-1, m counting the fits; notes the weights it was given."""

    def __init__(self, script=None):
        self.script = script

    def __sklearn_clone__(self):
        return self

    def fit(self, X, y, sample_weight=None):
        played = self.script.setdefault("played", [])
        played.append(np.array(sample_weight))
        fitted = _Fitted(self.script["classes"][len(played) - 1])
        self.classes_, self.n_classes_ = np.unique(y), len(np.unique(y))
        self.script["fitted"] = fitted
        return self

    def predict(self, X):
        return self.script["fitted"].predict(X)


class _Fitted:
    def __init__(self, classes_N):
        self.classes_N = classes_N

    def predict(self, X):
        return self.classes_N[X[:, 0].astype(int)]


def replayed(classes_MN, labels_N, learning_rate):
    """scikit-learn's errors, alphas and the weights it handed to every round, for members with these predictions."""
    script = {"classes": classes_MN}
    X = np.arange(len(labels_N), dtype=float)[:, None]
    model = AdaBoostClassifier(Replay(script), n_estimators=len(classes_MN), learning_rate=learning_rate)
    model.fit(X, labels_N)
    return model.estimator_errors_, model.estimator_weights_, script["played"]


def noisy_members(seed, members, rows, classes, error):
    rng = np.random.default_rng(seed)
    labels_N = rng.permutation(np.arange(rows) % classes)
    wrong_MN = rng.random((members, rows)) < error
    shift_MN = rng.integers(1, classes, (members, rows))
    return np.where(wrong_MN, (labels_N + shift_MN) % classes, labels_N), labels_N


@pytest.mark.parametrize("learning_rate", [1.0, 0.5])
@pytest.mark.parametrize(("classes", "error"), [(2, 0.3), (3, 0.4), (10, 0.05), (10, 0.6)])
def test_errors_alphas_and_weights_equal_scikit_learn(classes, error, learning_rate):
    classes_MN, labels_N = noisy_members(1, 7, 500, classes, error)
    errors, alphas, weights = replayed(classes_MN, labels_N, learning_rate)
    steps = samme.recursion(classes_MN, labels_N, classes, learning_rate)
    assert len(steps) == len(weights) >= 5
    np.testing.assert_allclose([step.error for step in steps], errors[: len(steps)], atol=1e-10, rtol=0)
    np.testing.assert_allclose([step.alpha for step in steps], alphas[: len(steps)], atol=1e-10, rtol=0)
    before = [samme.equal_log_weights(500), *(step.log_weights_N for step in steps[:-1])]
    np.testing.assert_allclose(np.exp(before), weights, atol=1e-10, rtol=0)


@pytest.fixture(scope="module")
def stumps():
    X, y = make_classification(600, 12, n_informative=6, n_classes=4, n_clusters_per_class=1, random_state=3)
    model = AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=12, random_state=0).fit(
        X[:400], y[:400]
    )
    return model, X, y


def test_real_trees_scores_stages_and_probabilities_equal_scikit_learn(stumps):
    model, X, y = stumps
    train_MN = np.stack([tree.predict(X[:400]) for tree in model.estimators_])
    steps = samme.recursion(train_MN, y[:400], 4)
    alphas = [step.alpha for step in steps]
    np.testing.assert_allclose(alphas, model.estimator_weights_, atol=1e-10, rtol=0)
    test_MN = np.stack([tree.predict(X[400:]) for tree in model.estimators_])
    staged = list(samme.staged_scores(test_MN, alphas, 4))
    for ours, theirs in zip(staged, model.staged_decision_function(X[400:]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10, rtol=0)
    for ours, predicted in zip(staged, model.staged_predict(X[400:]), strict=True):
        np.testing.assert_array_equal(ours.argmax(axis=1), predicted)
    final = samme.scores(test_MN, alphas, 4)
    np.testing.assert_allclose(final, model.decision_function(X[400:]), atol=1e-10, rtol=0)
    np.testing.assert_allclose(samme.class_probabilities(final), model.predict_proba(X[400:]), atol=1e-10, rtol=0)


def test_two_classes_equal_scikit_learn_in_probabilities():
    X, y = make_classification(300, 8, random_state=1)
    model = AdaBoostClassifier(n_estimators=6, random_state=0).fit(X, y)
    classes_MN = np.stack([stump.predict(X) for stump in model.estimators_])
    alphas = [step.alpha for step in samme.recursion(classes_MN, y, 2)]
    scores_NK = samme.scores(classes_MN, alphas, 2)
    np.testing.assert_allclose(scores_NK[:, 1] - scores_NK[:, 0], model.decision_function(X), atol=1e-10, rtol=0)
    np.testing.assert_allclose(samme.class_probabilities(scores_NK), model.predict_proba(X), atol=1e-10, rtol=0)
    np.testing.assert_array_equal(scores_NK.argmax(axis=1), model.predict(X))


def test_stops_where_scikit_learn_stops():
    classes_MN, labels_N = noisy_members(2, 4, 200, 4, 0.3)
    perfect = np.vstack([classes_MN[:2], labels_N[None], classes_MN[2:]])
    errors, alphas, played = replayed(perfect, labels_N, 1.0)
    steps = samme.recursion(perfect, labels_N, 4)
    assert len(steps) == len(played) == 3
    assert steps[-1].verdict == "perfect"
    assert (steps[-1].error, steps[-1].alpha) == (0.0, 1.0) == (errors[2], alphas[2])

    useless = np.vstack([classes_MN[:2], (labels_N[None] + 1) % 4, classes_MN[2:]])
    _, alphas, played = replayed(useless, labels_N, 1.0)
    assert len(played) == 3
    assert len(samme.recursion(useless, labels_N, 4)) == 2 == np.count_nonzero(alphas)

    with pytest.raises(ValueError, match="worse than random"):
        replayed(useless[2:], labels_N, 1.0)
    assert samme.recursion(useless[2:], labels_N, 4) == []


def test_a_round_by_hand():
    """Ten rows, two missed, ten classes: error 1/5, alpha = ln 4 + ln 9 = ln 36; each missed row grows 36-fold."""
    missed = np.zeros(10, bool)
    missed[:2] = True
    done = samme.step(samme.equal_log_weights(10), missed, 10)
    assert done.error == pytest.approx(0.2, abs=1e-15)
    assert done.alpha == pytest.approx(np.log(36), abs=1e-14)
    np.testing.assert_allclose(np.exp(done.log_weights_N), np.where(missed, 36 / 80, 1 / 80), rtol=1e-13)
    # The same member on the new weights is exactly as good as guessing: 1 - 1/K.
    assert samme.weighted_error(done.log_weights_N, missed) == pytest.approx(0.9, abs=1e-14)
    assert samme.effective_size(done.log_weights_N) == pytest.approx(6400 / (2 * 36**2 + 8), rel=1e-13)
    assert samme.heaviest(done.log_weights_N, 3).tolist() == [0, 1, 2]


def test_rows_without_a_vote_have_no_part_in_the_error_and_keep_their_weight_before_normalisation():
    missed = np.array([True, False, True, False])
    voted = np.array([True, True, False, True])
    done = samme.step(samme.equal_log_weights(4), missed, 3, 1.0, voted)
    assert done.error == pytest.approx(1 / 3)
    assert done.alpha == pytest.approx(np.log(2) + np.log(2))
    np.testing.assert_allclose(np.exp(done.log_weights_N), np.array([4, 1, 1, 1]) / 7, rtol=1e-13)


def test_a_perfect_member_has_the_alpha_of_half_a_row_and_moves_nothing():
    before = samme.normalised(np.log(np.arange(1.0, 101.0)))
    done = samme.step(before, np.zeros(100, bool), 10, 0.5)
    assert done.verdict == "perfect"
    assert done.error == 0.0
    assert done.alpha == pytest.approx(0.5 * (np.log(199) + np.log(9)))
    np.testing.assert_allclose(done.log_weights_N, before, atol=1e-13)


def test_alpha_is_finite_where_the_only_missed_row_has_next_to_no_weight():
    logs = np.zeros(50)
    logs[0] = -800.0  # exp(-800) is 0 in float64
    missed = np.arange(50) == 0
    done = samme.step(logs, missed, 10)
    assert done.verdict == "useful"
    assert done.alpha == pytest.approx(np.log(99) + np.log(9))
    assert np.isfinite(done.log_weights_N).all()


def test_exactly_guessing_is_refused_and_changes_nothing():
    missed = np.array([True] * 3 + [False])
    logs = samme.equal_log_weights(4)
    done = samme.step(logs, missed, 4)
    assert (done.verdict, done.alpha) == ("no better than guessing", 0.0)
    assert done.log_weights_N is logs


def test_a_row_that_is_right_for_a_thousand_rounds_keeps_a_weight():
    logs, missed = samme.equal_log_weights(100), np.zeros((2, 100), bool)
    missed[0, :10], missed[1, 10:20] = True, True
    for number in range(1000):
        logs = samme.step(logs, missed[number % 2], 10).log_weights_N
    assert np.isfinite(logs).all()
    assert logs[50] < -600
    assert np.exp(logs).sum() == pytest.approx(1.0, abs=1e-12)
    assert samme.effective_size(logs) == pytest.approx(10, rel=0.5)
