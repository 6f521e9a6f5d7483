from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import gmean
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from ensemble.config.schema import WEIGHING
from ensemble.evaluation.aggregation import AGGREGATORS, decide, decide_scores

WEIGHTS = {"soft": None, "hard": None, "geometric": None, "weighted": np.array([1.0, 2.0, 1.0])}
# Three members, two rows, three classes. Row 0: favourites 0, 1, 1. Row 1: favourites 2, 0, 1, a three-way tie.
HAND = np.array(
    [
        [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]],
        [[0.4, 0.5, 0.1], [0.5, 0.4, 0.1]],
        [[0.4, 0.5, 0.1], [0.1, 0.8, 0.1]],
    ],
    np.float32,
)


def probabilities(most_members: int = 5) -> st.SearchStrategy[np.ndarray]:
    """Votes with many exact ties and zeros: small integers, normalised."""
    shapes = st.tuples(st.integers(1, most_members), st.integers(1, 6), st.integers(2, 4))
    counts = shapes.flatmap(lambda shape: hnp.arrays(np.int64, shape, elements=st.integers(0, 3)))
    positive = counts.map(lambda c: c + (c.sum(axis=-1, keepdims=True) == 0))
    return positive.map(lambda c: c / c.sum(axis=-1, keepdims=True))


def test_soft_by_hand():
    vote = decide("soft", HAND)
    assert vote.probs_NK == pytest.approx(np.array([[1.4, 1.3, 0.3], [0.7, 1.4, 0.9]]) / 3)
    assert vote.classes_N.tolist() == [0, 1]
    assert vote.ties == 0


def test_hard_by_hand_breaks_a_tie_by_mean_probability():
    vote = decide("hard", HAND)
    assert vote.probs_NK == pytest.approx(np.array([[1, 2, 0], [1, 1, 1]]) / 3)
    assert vote.classes_N.tolist() == [1, 1]
    assert vote.tied_N.tolist() == [False, True]


def test_weighted_by_hand():
    vote = decide("weighted", HAND, np.array([3.0, 0.0, 1.0]))
    assert vote.probs_NK == pytest.approx(np.array([[2.2, 1.4, 0.4], [0.4, 1.4, 2.2]]) / 4)
    assert vote.classes_N.tolist() == [0, 2]


def test_geometric_against_scipy():
    means = gmean(HAND.astype(np.float64), axis=0)
    assert decide("geometric", HAND).probs_NK == pytest.approx(means / means.sum(axis=1, keepdims=True))


def test_geometric_survives_certain_members():
    certain = np.array([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]], np.float32)
    vote = decide("geometric", certain)
    assert np.isfinite(vote.probs_NK).all()
    assert vote.probs_NK.sum() == pytest.approx(1)
    assert vote.classes_N.tolist() == [1]


def test_a_tie_in_everything_goes_to_the_lowest_class():
    opposed = np.array([[[0.1, 0.7, 0.2]], [[0.1, 0.2, 0.7]]], np.float32)
    for name in ("soft", "hard", "geometric"):
        vote = decide(name, opposed)
        assert vote.classes_N.tolist() == [1], name
        assert vote.ties == 1, name


def test_tie_break_looks_only_at_the_tied_classes():
    # Class 0 has the highest second score, but is not tied for the first place.
    vote = decide_scores(np.array([[0.2, 0.4, 0.4]]), np.array([[0.9, 0.03, 0.07]]))
    assert vote.classes_N.tolist() == [2]
    assert vote.ties == 1


def test_rounding_does_not_untie():
    # 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last bit.
    probs = np.array([[[0.1, 0.3, 0.6]], [[0.2, 0.2, 0.6]], [[0.3, 0.1, 0.6]]])[:, :, [0, 1]]
    assert decide("soft", probs).ties == 1
    assert decide("soft", probs).classes_N.tolist() == [0]


@pytest.mark.parametrize("voting", ["soft", "hard"])
def test_votes_match_scikit_learn(voting):
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(300, 4)), rng.integers(0, 3, 300)
    models = [("a", LogisticRegression()), ("b", GaussianNB()), ("c", DecisionTreeClassifier(max_depth=3))]
    theirs = VotingClassifier(models, voting=voting).fit(features, labels)
    probs = np.stack([model.predict_proba(features) for model in theirs.estimators_])
    ours = decide(voting, probs)
    untied = ~ours.tied_N
    assert (ours.classes_N == theirs.predict(features))[untied].all()
    assert untied.sum() > 200
    if voting == "soft":
        assert ours.probs_NK == pytest.approx(theirs.predict_proba(features))
    else:
        # Where three members name three classes scikit-learn takes the lowest; the count of ties is the same.
        favourites = np.sort(probs.argmax(-1), axis=0)
        assert ours.ties == int((np.diff(favourites, axis=0) != 0).all(axis=0).sum()) > 0


@settings(max_examples=60, deadline=None)
@given(probs=probabilities(), seed=st.integers(0, 99))
def test_the_order_of_the_members_changes_nothing(probs, seed):
    order = np.random.default_rng(seed).permutation(len(probs))
    weights = 1.0 + np.arange(len(probs))
    for name in AGGREGATORS:
        w = weights if name in WEIGHING else None
        before, after = decide(name, probs, w), decide(name, probs[order], None if w is None else w[order])
        assert before.probs_NK == pytest.approx(after.probs_NK, abs=1e-12)
        assert before.classes_N.tolist() == after.classes_N.tolist()
        assert before.tied_N.tolist() == after.tied_N.tolist()


@settings(max_examples=60, deadline=None)
@given(probs=probabilities())
def test_every_vote_is_a_distribution_and_picks_a_top_class(probs):
    for name in AGGREGATORS:
        vote = decide(name, probs, np.ones(len(probs)) if name in WEIGHING else None)
        assert (vote.probs_NK >= 0).all()
        assert vote.probs_NK.sum(axis=1) == pytest.approx(1)
        chosen = vote.probs_NK[np.arange(len(vote.classes_N)), vote.classes_N]
        assert chosen == pytest.approx(vote.probs_NK.max(axis=1), abs=1e-11)


@settings(max_examples=40, deadline=None)
@given(probs=probabilities())
def test_equal_weights_are_no_weights(probs):
    weights = np.full(len(probs), 0.3)
    for name in ("soft", "hard", "geometric"):
        plain, weighted = decide(name, probs), decide(name, probs, weights)
        assert plain.probs_NK == pytest.approx(weighted.probs_NK, abs=1e-12)
        assert plain.classes_N.tolist() == weighted.classes_N.tolist()


@settings(max_examples=30, deadline=None)
@given(probs=probabilities(most_members=1))
def test_one_member_votes_like_itself(probs):
    for name in AGGREGATORS:
        vote = decide(name, probs, np.ones(1) if name in WEIGHING else None)
        assert vote.classes_N.tolist() == probs[0].argmax(-1).tolist()


def test_a_member_without_weight_has_no_say():
    vote = decide("weighted", HAND, np.array([0.0, 1.0, 0.0]))
    assert vote.probs_NK == pytest.approx(HAND[1])


@pytest.mark.parametrize("weights", [[0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [np.nan, 1.0, 1.0], [1.0, 1.0]])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(AssertionError, match="weights"):
        decide("weighted", HAND, np.array(weights))


def test_weighted_needs_weights():
    with pytest.raises(AssertionError, match="one weight per member"):
        decide("weighted", HAND)


def test_float32_votes_are_summed_in_float64():
    probs = np.full((3, 1, 2), 0.1, np.float32)
    assert decide("soft", probs).probs_NK.dtype == np.float64
    assert decide("soft", probs).probs_NK == pytest.approx(np.full((1, 2), np.float64(np.float32(0.1))), abs=1e-16)
