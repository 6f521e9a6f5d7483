"""AdaBoost for networks: the contract in all its forms, the recursion behind it, and each way a chain can end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.config import parse_experiment
from ensemble.errors import ConfigError, QuorumError
from ensemble.methods import build_method, samme
from tests.contracts.method_contract import LABELS_N, NUM_CLASSES, TRAIN_ROWS, MethodContract, answer, play, same

ROWS = len(TRAIN_ROWS)
LABELS = LABELS_N[TRAIN_ROWS]


def experiment(members=8, aggregator=None, **method):
    values = {"name": "t", "seed": 3, "num_members": members, "model": {"name": "lenet5"}}
    values |= {"method": {"name": "adaboost", "min_effective_share": 0.0, **method}}
    return parse_experiment(values | ({"aggregator": aggregator} if aggregator else {}))


def build(members=8, **method):
    return build_method(experiment(members, **method), TRAIN_ROWS, LABELS_N, NUM_CLASSES)


FORMS = [
    {"use_weights": "resample"},
    {"use_weights": "resample_every_epoch", "folds": 2, "chains": 2},
    {"use_weights": "loss", "folds": 8},
    {"error_rows": "out_of_bag", "use_weights": "resample", "chains": 2},
    {"error_rows": "out_of_bag", "use_weights": "loss"},
]


class TestAdaBoost(MethodContract):
    @pytest.fixture(params=FORMS, ids=lambda form: " ".join(map(str, form.values())))
    def make(self, request):
        return lambda: build(**request.param)


class TestAdaBoostOnTrainingRows(MethodContract):
    votes_on_unseen_rows = False

    @pytest.fixture
    def make(self):
        return lambda: build(error_rows="training")


def wrong_on(member, missed):
    """A result that is right everywhere but on the given rows."""
    labels_R = LABELS_N[member.vote_rows]
    named_R = np.where(np.isin(member.vote_rows, missed), (labels_R + 1) % NUM_CLASSES, labels_R)
    probs_RK = np.eye(NUM_CLASSES, dtype=np.float32)[named_R]
    result = answer(member)
    return replace(result, votes=replace(result.votes, rows_RK=probs_RK))


def everything_wrong(member):
    return wrong_on(member, TRAIN_ROWS)


def test_folds_of_a_round_judge_every_row_once_and_stay_the_same():
    rounds = play(build())
    for members in rounds:
        np.testing.assert_array_equal(np.sort(np.concatenate([m.vote_rows for m in members])), TRAIN_ROWS)
    for first, second in zip(*rounds, strict=True):
        np.testing.assert_array_equal(first.vote_rows, second.vote_rows)


def test_chains_divide_the_rows_differently():
    (members, *_) = play(build(folds=2, chains=2))
    assert not np.array_equal(members[0].vote_rows, members[2].vote_rows)


@pytest.mark.parametrize("learning_rate", [1.0, 0.3])
def test_alphas_and_weights_are_those_of_samme_on_out_of_fold_votes(learning_rate):
    method = build(16, learning_rate=learning_rate, use_weights="loss", folds=4)
    rounds = play(method)
    named_MN = np.empty((4, ROWS), np.int64)
    for number, members in enumerate(rounds):
        for member in members:
            positions = np.searchsorted(TRAIN_ROWS, member.vote_rows)
            named_MN[number, positions] = answer(member).votes.rows_RK.argmax(axis=1)
    steps = samme.recursion(named_MN, LABELS, NUM_CLASSES, learning_rate)
    assert len(steps) == 4
    expected = np.repeat([step.alpha / 4 for step in steps], 4)
    np.testing.assert_allclose(method.vote_weights(), expected, rtol=1e-12)
    report = method.report()
    np.testing.assert_allclose([r["weighted_error"] for r in report["rounds"]], [s.error for s in steps], rtol=1e-12)
    np.testing.assert_allclose([r["error"] for r in report["rounds"]], (named_MN != LABELS).mean(axis=1))
    for record, step, staged_NK in zip(
        report["rounds"], steps, samme.staged_scores(named_MN, [s.alpha for s in steps], NUM_CLASSES), strict=True
    ):
        weights = np.exp(step.log_weights_N)
        assert record["effective_size"] == pytest.approx(1 / (weights**2).sum(), rel=1e-10)
        assert record["staged_error"] == pytest.approx((staged_NK.argmax(axis=1) != LABELS).mean())
        heavy = record["heaviest"]
        assert len(heavy) == 10
        np.testing.assert_allclose([row["weight"] for row in heavy], np.sort(weights)[::-1][:10], rtol=1e-10)
        assert [row["label"] for row in heavy] == LABELS_N[[row["row"] for row in heavy]].tolist()
    # What the last round was trained with are the weights the round before left.
    member = rounds[3][0]
    expected_weights = np.exp(steps[2].log_weights_N)[np.searchsorted(TRAIN_ROWS, member.rows)]
    np.testing.assert_allclose(member.weights, expected_weights / expected_weights.mean(), rtol=1e-5)


def test_out_of_bag_only_judged_rows_move():
    method = build(2, error_rows="out_of_bag", use_weights="loss", learning_rate=1.0)
    (first,) = method.ask()
    missed = first.vote_rows[:5]
    method.tell([wrong_on(first, missed)])
    (second,) = method.ask()
    error = 5 / len(first.vote_rows)
    weight_of = dict(zip(second.rows.tolist(), second.weights.tolist(), strict=True))
    heavy = [weight_of[row] for row in missed.tolist() if row in weight_of]
    light = [weight for row, weight in weight_of.items() if row not in missed]
    assert heavy, "the seed must put one of the missed rows into the second bag"
    np.testing.assert_allclose(np.array(heavy) / light[0], (1 - error) / error * (NUM_CLASSES - 1), rtol=1e-5)
    np.testing.assert_allclose(light, light[0])


def test_more_weight_means_more_draws():
    method = build(8, use_weights="resample", learning_rate=1.0)
    members = method.ask()
    missed = np.concatenate([member.vote_rows[:2] for member in members])
    method.tell([wrong_on(member, missed) for member in members])
    for member in method.ask():
        share = np.isin(member.rows, missed).mean()
        # SAMME leaves the missed rows 1 - 1/K of the weight; a network may draw those of three folds out of four.
        assert 0.6 < share < 0.85


def test_a_perfect_round_has_a_finite_alpha_a_notice_and_goes_on():
    method = build(8, learning_rate=1.0)
    first = method.ask()
    method.tell([wrong_on(member, []) for member in first])
    second = method.ask()
    assert len(second) == 4
    assert "no error on the 136 rows" in method.report()["notices"][0]
    alpha = np.log(2 * ROWS - 1) + np.log(NUM_CLASSES - 1)
    np.testing.assert_allclose(method.vote_weights(), np.full(4, alpha / 4))
    assert method.report()["rounds"][0]["effective_size"] == pytest.approx(ROWS)


def test_perfect_on_training_rows_says_to_measure_elsewhere():
    method = build(2, error_rows="training")
    method.tell([wrong_on(member, []) for member in method.ask()])
    assert "method.error_rows=held_out" in method.report()["notices"][0]


def test_no_better_than_guessing_ends_the_chain_and_does_not_vote():
    method = build(12, redraws=0)
    method.tell([answer(member) for member in method.ask()])
    method.tell([everything_wrong(member) for member in method.ask()])
    assert method.ask() == []
    report = method.report()
    assert report["dropped"] == [4, 5, 6, 7]
    assert report["ended_early"][0].startswith("boosting chain 0 ended with 1 of 3 rounds: weighted error 1.0000")
    weights = method.vote_weights()
    assert (weights[:4] > 0).all()
    assert not weights[4:].any()


def test_a_refused_round_is_drawn_again_with_new_streams():
    method = build(8, redraws=1, use_weights="resample")
    refused = method.ask()
    method.tell([everything_wrong(member) for member in refused])
    again = method.ask()
    assert [member.index for member in again] == [4, 5, 6, 7]
    assert not np.array_equal(again[0].rows, refused[0].rows)
    method.tell([answer(member) for member in again])
    method.tell([answer(member) for member in method.ask()])
    assert method.ask() == []
    report = method.report()
    assert report["dropped"] == [0, 1, 2, 3]
    assert not report["ended_early"]
    assert [record["members"] for record in report["rounds"]] == [(4, 5, 6, 7), (8, 9, 10, 11)]


def test_nobody_to_vote_is_an_error_with_the_figure():
    method = build(8, redraws=0)
    members = method.ask()
    with pytest.raises(QuorumError, match=r"(?s)no network may vote.*weighted error 1\.0000, and guessing has 0\.7500"):
        method.tell([everything_wrong(member) for member in members])
    method = build(8, redraws=0)
    method.ask()
    with pytest.raises(QuorumError, match="every network of the round failed"):
        method.tell([])


def test_one_chain_may_end_while_others_go_on():
    method = build(8, redraws=0, folds=2, chains=2)
    members = method.ask()
    method.tell([everything_wrong(m) if m.index < 2 else answer(m) for m in members])
    second = method.ask()
    assert [member.index for member in second] == [4, 5]
    np.testing.assert_array_equal(second[0].vote_rows, members[2].vote_rows)
    method.tell([answer(member) for member in second])
    assert method.ask() == []
    assert len(method.report()["ended_early"]) == 1


def test_a_failed_network_alone_is_drawn_again():
    method = build(8, redraws=1)
    members = method.ask()
    method.tell([answer(member) for member in members if member.index != 2])
    (again,) = method.ask()
    assert again.index == 4
    np.testing.assert_array_equal(again.vote_rows, members[2].vote_rows)
    assert len(again.rows) == len(members[2].rows)
    method.tell([answer(again)])
    assert [record["members"] for record in method.report()["rounds"]] == [(0, 1, 3, 4)]
    assert len(method.ask()) == 4


def test_without_tries_left_the_round_counts_with_those_that_finished_and_the_chain_ends():
    method = build(8, redraws=0, learning_rate=1.0)
    members = method.ask()
    method.tell([wrong_on(member, member.vote_rows[:5]) for member in members if member.index != 2])
    assert method.ask() == []
    (record,) = method.report()["rounds"]
    voted = ROWS - len(members[2].vote_rows)
    assert record["members"] == (0, 1, 3)
    assert record["voted_rows"] == voted
    assert record["weighted_error"] == pytest.approx(15 / voted)
    np.testing.assert_allclose(method.vote_weights(), np.full(3, record["alpha"] / 3))
    assert "networks of the last round failed" in method.report()["ended_early"][0]


def test_votes_that_are_not_finite_count_as_failed_and_do_not_vote():
    method = build(4, redraws=0)
    results = [answer(member) for member in method.ask()]
    results[1].votes.rows_RK[0, 0] = np.nan
    method.tell(results)
    assert method.report()["dropped"] == [1]
    assert method.vote_weights()[1] == 0
    assert (method.vote_weights()[[0, 2, 3]] > 0).all()


def test_weights_on_too_few_rows_end_the_chain_but_keep_its_members():
    method = build(12, learning_rate=1.0, min_effective_share=0.05)
    members = method.ask()
    method.tell([wrong_on(member, TRAIN_ROWS[:2]) for member in members])
    assert method.ask() == []
    assert (method.vote_weights() > 0).all()
    # Two rows with 3/8 each, and 134 that share 1/4: effectively 3.5 rows.
    assert "3.5 effective rows" in method.report()["ended_early"][0]


def test_members_may_be_told_only_once_asked():
    method = build()
    members = method.ask()
    with pytest.raises(AssertionError, match="tell the results"):
        method.ask()
    with pytest.raises(AssertionError, match="not asked for"):
        method.tell([answer(replace(members[0], index=99))])


def test_resuming_after_a_failure_asks_for_the_same_again():
    rounds = play(build(12), missing=(1, 6))
    resumed = build(12)
    for members in rounds:
        same(resumed.ask(), members)
        resumed.tell([answer(member) for member in members if member.index not in (1, 6)])
    assert resumed.ask() == []


def test_the_weighted_vote_is_the_headline_unless_the_user_says_otherwise():
    assert experiment().aggregator == "weighted"
    assert experiment(aggregator="soft").aggregator == "soft"


@pytest.mark.parametrize(
    ("members", "method", "expected"),
    [
        (7, {}, "num_members is 7, but adaboost trains 1 chain.s. of 4 network.s. per round: expected a multiple of 4"),
        (8, {"chains": 3, "folds": 2}, "expected a multiple of 6"),
        (8, {"error_rows": "training", "folds": 2}, "folds has no effect with error_rows: training"),
        (8, {"use_weights": "guess"}, "expected one of resample, resample_every_epoch, loss"),
        (8, {"learning_rate": 0.0}, "more than 0"),
    ],
)
def test_configurations_that_cannot_mean_anything(members, method, expected):
    with pytest.raises(ConfigError, match=expected):
        experiment(members, **method)


def test_groups_are_refused():
    values = {"name": "t", "method": {"name": "adaboost"}, "members": ({"count": 4, "model": {"name": "lenet5"}},)}
    with pytest.raises(ConfigError, match="adaboost needs members of one kind"):
        parse_experiment(values)
