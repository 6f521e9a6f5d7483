from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.linear_model import LogisticRegression

from ensemble.errors import PeekingError
from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.choosing import choose_all
from ensemble.evaluation.chosen_votes import choose_votes, no_better_than_guessing, without_members
from ensemble.evaluation.metrics import error_rate, negative_log_likelihood
from ensemble.evaluation.selection import greedy_selection, hill_climb
from ensemble.evaluation.splits import SplitVotes, require_choosable
from ensemble.evaluation.stacking import features, fit_stacker, geometric_coefficients, regression_path
from ensemble.evaluation.temperature import apply_temperature, fit_temperatures
from ensemble.evaluation.weights import best_member, likelihood_weights, log_odds_weights

CHOOSERS = {
    "best_member": best_member,
    "log_odds_weights": log_odds_weights,
    "likelihood_weights": likelihood_weights,
    "greedy_selection": lambda votes: greedy_selection(votes, seed=0),
    "greedy_selection by error": lambda votes: greedy_selection(votes, seed=0, metric="error"),
    "hill_climb": hill_climb,
    "fit_temperatures": fit_temperatures,
    "fit_stacker": lambda votes: fit_stacker(votes, seed=0),
    "choose_votes": lambda votes: choose_votes(votes, "soft", None, seed=0),
    "choose_all": lambda votes: choose_all(votes, "soft", None, True, seed=0),
    "no_better_than_guessing": no_better_than_guessing,
    "without_members": lambda votes: without_members(votes, np.array([0]), "soft", None),
    "require_choosable": require_choosable,
}


@pytest.mark.parametrize("name", CHOOSERS)
def test_test_votes_are_refused(make_ensemble, name):
    with pytest.raises(PeekingError, match="Expected validation or out-of-bag votes"):
        CHOOSERS[name](make_ensemble().test)


@pytest.mark.parametrize("name", CHOOSERS)
def test_out_of_bag_votes_are_welcome(make_ensemble, name):
    votes = make_ensemble(members=3, rows=60).validation
    CHOOSERS[name](SplitVotes("out_of_bag", votes.probs_MNK, votes.labels_N))


def single(rows: list[list[float]]) -> np.ndarray:
    return np.array([rows], np.float32)


def test_best_member_settles_equal_errors_by_log_loss_then_order():
    sure, unsure, wrong = ([[0.9, 0.1]], [[0.6, 0.4]], [[0.1, 0.9]])
    labels = np.array([0])
    assert best_member(SplitVotes("validation", np.array([wrong, unsure, sure], np.float32), labels)) == 2
    assert best_member(SplitVotes("validation", np.array([wrong, unsure, unsure], np.float32), labels)) == 1


def test_best_member_goes_by_error_first():
    labels = np.array([0, 0])
    # Hardly right twice, against nearly right once and sure of the other: more errors, but a lower log loss.
    votes = np.array([[[0.99, 0.01], [0.45, 0.55]], [[0.51, 0.49], [0.51, 0.49]]], np.float32)
    assert negative_log_likelihood(votes[0], labels) < negative_log_likelihood(votes[1], labels)
    assert best_member(SplitVotes("validation", votes, labels)) == 1


def test_log_odds_weights_by_hand():
    # Four rows, three classes: errors 0, 1/4 and 1 (never right).
    labels = np.array([0, 1, 2, 0])
    right = np.eye(3, dtype=np.float32)[labels]
    once = right.copy()
    once[0] = [0, 1, 0]
    never = np.eye(3, dtype=np.float32)[(labels + 1) % 3]
    weights = log_odds_weights(SplitVotes("validation", np.stack([right, once, never]), labels))
    assert weights == pytest.approx([np.log(7) + np.log(2), np.log(3) + np.log(2), 0.0])


def test_likelihood_weights_reach_the_optimum(make_ensemble):
    votes = make_ensemble(members=4, rows=300, skill=2.0).validation
    true = votes.probs_MNK[:, np.arange(300), votes.labels_N].astype(np.float64)

    def loss(w: np.ndarray) -> float:
        return float(-np.log(w @ true).mean())

    weights = likelihood_weights(votes, tolerance=1e-8, max_steps=20_000)
    theirs = optimize.minimize(
        loss,
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    assert weights.sum() == pytest.approx(1)
    assert loss(weights) == pytest.approx(theirs.fun, abs=1e-6)
    assert loss(weights) < loss(np.full(4, 0.25))


def test_likelihood_weights_drop_a_useless_member(make_ensemble):
    votes = make_ensemble(members=3).validation
    nonsense = np.roll(votes.probs_MNK[:1], 1, axis=1)
    together = SplitVotes("validation", np.concatenate([votes.probs_MNK, nonsense]), votes.labels_N)
    assert likelihood_weights(together, max_steps=20_000)[3] < 0.01


@pytest.mark.parametrize("metric", ["nll", "error"])
@pytest.mark.parametrize("seed", [0, 1, 6, 10, 12, 15])
def test_hill_climb_takes_the_best_step_every_time(make_ensemble, metric, seed):
    """Replays the selection with brute-force scores: sorted start, best addition, best prefix."""
    votes = make_ensemble(members=4, rows=20, skill=1.0, seed=seed).validation

    def score(path: list[int]) -> float:
        counts = np.bincount(path, minlength=4).astype(float)
        vote = decide("weighted", votes.probs_MNK, counts)
        if metric == "nll":
            return round(negative_log_likelihood(vote.probs_NK, votes.labels_N), 12)
        return error_rate(vote.classes_N, votes.labels_N)

    ranking = sorted(range(4), key=lambda m: (score([m]), m))
    starts = [ranking[: n + 1] for n in range(4)]
    path = list(min(starts, key=lambda start: (score(start), len(start))))
    best = list(path)
    for _ in range(6):
        chosen = min(range(4), key=lambda m: (score([*path, m]), m not in path, m))
        path.append(chosen)
        if score(path) < score(best):
            best = list(path)
    assert hill_climb(votes, metric, rounds=6).tolist() == np.bincount(best, minlength=4).tolist()


def test_greedy_beats_the_equal_vote_on_its_own_rows_and_is_seeded(make_ensemble):
    votes = make_ensemble(members=6, rows=200, skill=1.5).validation
    weights = greedy_selection(votes, seed=1)
    assert weights.sum() == pytest.approx(1)
    assert (weights == greedy_selection(votes, seed=1)).all()
    whole = hill_climb(votes)
    losses = [
        negative_log_likelihood(decide("weighted", votes.probs_MNK, w).probs_NK, votes.labels_N)
        for w in (whole, np.ones(6))
    ]
    assert losses[0] <= losses[1]


def test_greedy_is_close_to_the_best_multiset(make_ensemble):
    votes = make_ensemble(members=4, rows=150, skill=1.5).validation

    def loss(counts: np.ndarray) -> float:
        return negative_log_likelihood(decide("weighted", votes.probs_MNK, counts).probs_NK, votes.labels_N)

    every = [np.bincount(c, minlength=4) for n in range(1, 9) for c in combinations_with_replacement(range(4), n)]
    assert loss(hill_climb(votes, rounds=8)) <= min(map(loss, every)) + 2e-3


def test_greedy_prefers_a_member_it_already_has(make_ensemble):
    votes = make_ensemble(members=1).validation
    twins = SplitVotes("validation", np.repeat(votes.probs_MNK, 3, axis=0), votes.labels_N)
    assert np.count_nonzero(hill_climb(twins)) == 1


def test_temperature_against_a_fine_grid(make_ensemble):
    votes = make_ensemble(members=2, rows=400, skill=2.0).validation
    temperatures = fit_temperatures(votes)
    grid = np.geomspace(0.2, 5, 2001)
    for probs, found in zip(votes.probs_MNK, temperatures, strict=True):
        losses = [negative_log_likelihood(apply_temperature(probs, t), votes.labels_N) for t in grid]
        assert found == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)


def test_temperature_undoes_a_temperature(make_ensemble):
    votes = make_ensemble(members=1, rows=400, skill=2.0).validation
    (found,) = fit_temperatures(votes)
    hotter = SplitVotes("validation", apply_temperature(votes.probs_MNK[0], 3.0)[None], votes.labels_N)
    assert fit_temperatures(hotter)[0] == pytest.approx(found / 3, rel=1e-3)


def test_temperature_is_softmax_of_scaled_logits():
    logits = np.array([[2.0, 0.0, -1.0]])
    assert apply_temperature(special.softmax(logits, axis=1), 2.5) == pytest.approx(special.softmax(logits / 2.5))


@pytest.mark.parametrize(("label", "limit"), [(0, 0.05), (1, 20.0)])
def test_temperature_stays_within_its_limits(label, limit):
    assert fit_temperatures(SplitVotes("validation", single([[0.9, 0.1]]), np.array([label])))[0] == limit


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_stacking_without_its_centre_is_scikit_learn(make_ensemble, strength):
    votes = make_ensemble(members=3, rows=250, skill=1.5).validation
    x, labels = features(votes.probs_MNK), votes.labels_N
    theirs = LogisticRegression(C=strength, fit_intercept=False, tol=1e-8, max_iter=5000).fit(x, labels)
    (ours,) = regression_path(x, labels, np.zeros((x.shape[1], 4)), [strength], tolerance=1e-7)
    assert special.softmax(x @ ours, axis=1) == pytest.approx(theirs.predict_proba(x), abs=1e-4)


def test_stacking_shrinks_to_the_geometric_vote(make_ensemble):
    votes = make_ensemble(members=3, rows=250).validation
    centre = geometric_coefficients(3, 4)
    geometric = decide("geometric", votes.probs_MNK).probs_NK
    assert special.softmax(features(votes.probs_MNK) @ centre, axis=1) == pytest.approx(geometric)
    (held,) = regression_path(features(votes.probs_MNK), votes.labels_N, centre, [1e-9])
    assert held == pytest.approx(centre, abs=1e-4)


def test_stacking_learns_a_mix_up_that_no_weights_can_mend(make_ensemble):
    ensemble = make_ensemble(members=3, rows=500, skill=3.0)
    # All members have learned classes 0 and 1 the wrong way round.
    swapped = [
        SplitVotes(votes.split, votes.probs_MNK[..., [1, 0, 2, 3]], votes.labels_N)
        for votes in (ensemble.validation, ensemble.test)
    ]
    stacker = fit_stacker(swapped[0], seed=0)
    stacked = error_rate(stacker.probabilities(swapped[1].probs_MNK).argmax(1), swapped[1].labels_N)
    soft = error_rate(decide("soft", swapped[1].probs_MNK).classes_N, swapped[1].labels_N)
    assert soft > 0.4
    assert stacked < 0.1


def test_cross_fitted_rows_were_not_seen(make_ensemble):
    """With random labels, fitted rows look learnable and held-out rows do not."""
    votes = make_ensemble(members=6, rows=100, classes=4).validation
    labels = np.random.default_rng(0).integers(0, 4, 100)
    noise = SplitVotes("validation", votes.probs_MNK, labels)
    stacker = fit_stacker(noise, seed=0)
    held_out = negative_log_likelihood(stacker.cross_fitted_NK, labels)
    fitted = negative_log_likelihood(stacker.probabilities(votes.probs_MNK), labels)
    assert fitted < held_out
    assert error_rate(stacker.cross_fitted_NK.argmax(1), labels) > 0.55


def test_stacking_with_a_class_that_validation_lacks(make_ensemble):
    votes = make_ensemble(members=2, rows=80).validation
    kept = votes.labels_N != 3
    lacking = SplitVotes("validation", votes.probs_MNK[:, kept], votes.labels_N[kept])
    probs = fit_stacker(lacking, seed=0).probabilities(votes.probs_MNK)
    assert np.isfinite(probs).all()


def test_useless_members_are_found(make_ensemble):
    votes = make_ensemble(members=3, rows=300, skill=3.0).validation
    guessing = np.full((1, 300, 4), 0.25, np.float32)
    together = SplitVotes("validation", np.concatenate([votes.probs_MNK, guessing]), votes.labels_N)
    assert no_better_than_guessing(together).tolist() == [3]
    left = without_members(together, np.array([3]), "soft", None)
    assert (left.validation.probs_NK == decide("soft", votes.probs_MNK).probs_NK).all()
    assert left.needed.tolist() == [0, 1, 2]


def test_very_many_members_are_not_stacked() -> None:
    """The regression would take half an hour for 1,000 members of ten classes."""
    probs = np.random.default_rng(0).dirichlet(np.ones(10), (151, 20))
    votes = SplitVotes("validation", probs, np.arange(20) % 10)
    names = [chosen.name for chosen in choose_votes(votes, "soft", None, 0)]
    assert "stacking" not in names
    assert "stacking" in [chosen.name for chosen in choose_votes(votes.members(range(3)), "soft", None, 0)]
