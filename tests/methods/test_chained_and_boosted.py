"""Snapshot, fast geometric, filter boosting and gradient boosting: the contract, and what is theirs alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ensemble.config import parse_experiment
from ensemble.errors import ConfigError
from ensemble.evaluation.aggregation import additive, decide
from ensemble.methods import build_method
from ensemble.methods.gradient_boosting import LONGEST_STEP, GradientBoosting, line_search
from ensemble.types import Votes
from tests.contracts.method_contract import LABELS_N, NUM_CLASSES, TRAIN_ROWS, MethodContract, answer, play

VALIDATION_ROWS = np.setdiff1d(np.arange(150), TRAIN_ROWS)
MOVES = {"training": {"augmentation": {"shift": 0.1}}}


def experiment(method, members=8, **more):
    values = {"name": "t", "num_members": members, "method": method, "model": {"name": "lenet5"}, **more}
    return parse_experiment(values)


def build(method, members=8, **more):
    rows = VALIDATION_ROWS
    return build_method(experiment(method, members, **more), TRAIN_ROWS, LABELS_N, NUM_CLASSES, rows)


class TestSnapshot(MethodContract):
    @pytest.fixture(params=[1, 2, 8])
    def make(self, request):
        return lambda: build({"name": "snapshot", "chains": request.param})


class TestFastGeometric(MethodContract):
    @pytest.fixture(params=[1, 4])
    def make(self, request):
        return lambda: build({"name": "fast_geometric", "chains": request.param})


class TestFilterBoosting(MethodContract):
    num_members = 9

    @pytest.fixture
    def make(self):
        return lambda: build({"name": "filter_boosting"}, self.num_members, **MOVES)


class TestGradientBoosting(MethodContract):
    votes_on_unseen_rows = False  # residuals need the outputs on the rows a network was fitted to

    @pytest.fixture(params=["training", "none"])
    def make(self, request):
        return lambda: build({"name": "gradient_boosting", "line_search": request.param})


def with_weights(member, value):
    return replace(answer(member), weights={"w": np.full(2, value, np.float32)})


def test_every_snapshot_begins_with_its_own_chain_s_last_weights():
    method = build({"name": "snapshot", "chains": 2}, 6)
    first = method.ask()
    assert [(m.index, m.start) for m in first] == [(0, None), (1, None)]
    method.tell([with_weights(m, m.index + 10.0) for m in reversed(first)])
    second = method.ask()
    assert [(m.index, m.start["w"][0]) for m in second] == [(2, 10.0), (3, 11.0)]
    method.tell([with_weights(second[1], 13.0)])  # chain 0 lost its network
    third = method.ask()
    assert [(m.index, m.start["w"][0]) for m in third] == [(5, 13.0)]
    method.tell([with_weights(third[0], 15.0)])
    assert method.ask() == []
    assert method.report()["ended_early"] == [
        "chain 0 ended with 1 of 3 members: its next one failed, and nothing can begin from it"
    ]


def test_fast_geometric_trains_once_and_cycles_then():
    config = experiment(
        {"name": "fast_geometric", "chains": 2, "cycle_epochs": 3, "cycle_lr": 0.02, "low_fraction": 0.1}, 6,
        training={"epochs": 20, "lr": 1e-3},
    )  # fmt: skip
    first, cycles = config.groups
    assert (first.count, first.training.epochs, first.training.schedule.name) == (2, 20, "constant")
    assert (cycles.name, cycles.count, cycles.training.epochs, cycles.training.lr) == ("lenet5_cycle", 4, 3, 0.02)
    assert (cycles.training.schedule.name, cycles.training.schedule.low_fraction) == ("triangular", 0.1)
    rounds = play(build_method(config, TRAIN_ROWS, LABELS_N, NUM_CLASSES))
    assert [[m.recipe for m in members] for members in rounds] == [
        ["lenet5"] * 2,
        ["lenet5_cycle"] * 2,
        ["lenet5_cycle"] * 2,
    ]
    assert config.total_members == 6
    assert [g.count for g in experiment({"name": "fast_geometric", "chains": 2}, 2).groups] == [2]


def test_snapshot_takes_a_falling_cycle():
    assert experiment({"name": "snapshot"}).training.schedule.name == "cosine"
    with pytest.raises(ConfigError, match=r"expected training\.schedule cosine, found step"):
        experiment({"name": "snapshot"}, training={"schedule": {"name": "step"}})


def facts(looked_at, distinct):
    return {"filter_looked_at": float(looked_at), "filter_distinct": float(distinct)}


def test_later_networks_are_chosen_for_by_the_earlier_ones_of_their_chain():
    method = build({"name": "filter_boosting", "max_passes": 7}, 6, **MOVES)
    count = len(TRAIN_ROWS)
    first = method.ask()
    assert [(m.index, m.filter) for m in first] == [(0, None), (1, None)]
    method.tell([with_weights(m, m.index) for m in first])
    second = method.ask()
    for member, judge in zip(second, (0.0, 1.0), strict=True):
        assert (member.filter.rule, member.filter.count, member.filter.passes) == ("half_wrong", count, 7)
        assert [judged["w"][0] for judged in member.filter.judges] == [judge]
    method.tell([replace(with_weights(m, m.index), facts=facts(999, 40)) for m in second])
    third = method.ask()
    assert [m.filter.rule for m in third] == ["disagree", "disagree"]
    assert [[judged["w"][0] for judged in m.filter.judges] for m in third] == [[0.0, 2.0], [1.0, 3.0]]
    method.tell([replace(with_weights(m, m.index), facts=facts(500, count)) for m in third])
    assert method.ask() == []
    report = method.report()
    assert [r["members"] for r in report["rounds"]] == [[0], [1], [2], [3], [4], [5]]
    assert report["rounds"][2]["filter_looked_at"] == 999
    assert len(report["notices"]) == 2  # members 2 and 3 found fewer images than they train on
    assert "member 2: 40 distinct images found among 999" in report["notices"][0]


def test_a_chain_of_filters_ends_with_its_network():
    method = build({"name": "filter_boosting"}, 6, **MOVES)
    first = method.ask()
    method.tell([with_weights(first[1], 1.0)])
    assert [m.index for m in method.ask()] == [3]
    assert "chain 0 ended with 0 of 3 networks" in method.report()["ended_early"][0]


def test_filter_boosting_needs_deformed_images_and_threes():
    with pytest.raises(ConfigError, match=r"switch on some of training\.augmentation"):
        experiment({"name": "filter_boosting"}, 3)
    with pytest.raises(ConfigError, match="expected a multiple of 3"):
        experiment({"name": "filter_boosting"}, 4, **MOVES)


# Gradient boosting


def outputs(seed, rows):
    return np.random.default_rng(seed).normal(size=(rows, NUM_CLASSES))


def grown(method, seed):
    """The next network answers with made-up outputs; returns its targets and those outputs."""
    (member,) = method.ask()
    on_train, on_validation = outputs(seed, len(TRAIN_ROWS)), outputs(seed + 50, len(VALIDATION_ROWS))
    on_train[np.arange(len(on_train)), LABELS_N[TRAIN_ROWS]] += 2  # better than guessing
    on_validation[np.arange(len(on_validation)), LABELS_N[VALIDATION_ROWS]] += 2
    probs = [softmax(f, axis=1).astype(np.float32) for f in (on_validation, on_train)]
    votes = Votes(probs[0], probs[0][:1], member.vote_rows, probs[1])
    method.tell([replace(answer(member), votes=votes)])
    return member.targets_RK, on_train, on_validation


def loss(scores, labels):
    return float(-log_softmax(scores, axis=1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("search", ["validation", "training", "none"])
def test_targets_steps_and_scores_are_friedman_s(search):
    """Three rounds against the recursion written out with scipy."""
    method = build({"name": "gradient_boosting", "shrinkage": 0.3, "line_search": search}, 3)
    labels, held = LABELS_N[TRAIN_ROWS], LABELS_N[VALIDATION_ROWS]
    F, G = np.zeros((len(labels), NUM_CLASSES)), np.zeros((len(held), NUM_CLASSES))
    weights = []
    for number in range(3):
        targets, f, g = grown(method, number)
        np.testing.assert_allclose(targets, np.eye(NUM_CLASSES)[labels] - softmax(F, axis=1), atol=1e-6)
        at = {"validation": (G, g, held), "training": (F, f, labels)}.get(search)
        step = 1.0 if at is None else float(
            minimize_scalar(lambda s, at=at: loss(at[0] + s * at[1], at[2]), bounds=(0, 100), method="bounded", options={"xatol": 1e-10}).x
        )  # fmt: skip
        weights.append(0.3 * step)
        F, G = F + weights[-1] * f, G + weights[-1] * g
        record = method.report()["rounds"][number]
        assert record["step"] == pytest.approx(step, abs=1e-5)
        assert record["train_loss"] == pytest.approx(loss(F, labels), abs=1e-5)
        assert record["validation_error"] == pytest.approx((G.argmax(1) != held).mean())
    np.testing.assert_allclose(method.vote_weights(), weights, atol=1e-5)
    assert method.ask() == []


def test_the_additive_vote_is_the_softmax_of_the_sum_of_outputs():
    f_MNK = np.random.default_rng(3).normal(size=(4, 30, NUM_CLASSES)) * 3
    weights = np.array([0.5, 2.0, 0.0, 0.7])
    votes = softmax(f_MNK, axis=2).astype(np.float32)
    expected = softmax(np.tensordot(weights, f_MNK, 1), axis=1)
    np.testing.assert_allclose(additive(votes, weights), expected, atol=1e-5)
    np.testing.assert_array_equal(decide("additive", votes, weights).classes_N, expected.argmax(1))


def test_line_search_ends():
    labels = np.array([0, 1, 2])
    right = np.eye(NUM_CLASSES)[labels]
    assert line_search(np.zeros((3, NUM_CLASSES)), -right, labels) == 0.0  # uphill
    assert line_search(np.zeros((3, NUM_CLASSES)), right, labels) > 30  # downhill until the loss is 0 to the last bit
    assert line_search(np.zeros((3, NUM_CLASSES)), 1e-3 * right, labels) == LONGEST_STEP  # never far enough
    half = right.copy()
    half[0] = np.eye(NUM_CLASSES)[1]  # one of three wrong: the best step makes p(named) = 2/3
    step = line_search(np.zeros((3, NUM_CLASSES)), half, labels)
    assert np.exp(step) / (np.exp(step) + 3) == pytest.approx(2 / 3, abs=1e-9)


def test_a_network_that_does_not_help_ends_it():
    labels = LABELS_N[TRAIN_ROWS]
    config = experiment({"name": "gradient_boosting", "line_search": "training"}).method
    method = GradientBoosting(config, 5, "r", TRAIN_ROWS, labels, labels[:0], NUM_CLASSES)
    (member,) = method.ask()
    wrong = np.full((len(labels), NUM_CLASSES), 0.3, np.float32)
    wrong[np.arange(len(labels)), labels] = 0.1
    method.tell([replace(answer(member), votes=Votes(wrong[:0], wrong[:0], member.vote_rows, wrong))])
    assert method.ask() == []
    assert method.vote_weights().tolist() == [0.0]
    assert "no step along the last network lowers the loss" in method.report()["ended_early"][0]


def test_additive_belongs_to_gradient_boosting():
    assert experiment({"name": "gradient_boosting"}).aggregator == "additive"
    assert experiment({"name": "gradient_boosting"}, aggregator="soft").aggregator == "soft"
    with pytest.raises(ConfigError, match="additive belongs to gradient_boosting"):
        experiment({"name": "bagging"}, aggregator="additive")
