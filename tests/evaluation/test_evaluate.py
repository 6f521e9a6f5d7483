from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from ensemble.config.schema import AGGREGATORS, WEIGHING
from ensemble.errors import PeekingError, QuorumError, StorageError
from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.evaluate import evaluate
from ensemble.evaluation.out_of_bag import OutOfBag
from ensemble.evaluation.records import Evaluation, MemberFacts
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.statistics import holm, mcnemar_exact, wilson_interval


def judge(ensemble, aggregator="soft", weights=None, asked=None, **more) -> Evaluation:
    names = [f"class {k}" for k in range(ensemble.test.num_classes)]
    asked = len(ensemble.facts) if asked is None else asked
    more.setdefault("out_of_bag", None)
    return evaluate(
        ensemble.validation, ensemble.test, ensemble.facts, aggregator, weights, asked, "other", names, **more
    )


def swap_probs(votes: SplitVotes, probs: np.ndarray) -> SplitVotes:
    return SplitVotes(votes.split, probs, votes.labels_N)


def test_order_of_the_leaderboard(make_ensemble):
    rows = judge(make_ensemble(members=3), aggregator="geometric").leaderboard
    assert [row.name for row in rows[:4]] == ["geometric vote", "soft vote", "hard vote", "weighted vote"]
    assert [row.kind for row in rows] == [
        *["vote"] * 4,
        *["chosen"] * 5,
        "best_member",
        "mean_member",
        *["member"] * 3,
        "oracle",
    ]
    assert [row.headline for row in rows] == [True] + [False] * (len(rows) - 1)
    assert [row.member for row in rows if row.kind == "member"] == [10, 11, 12]


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_the_headline_is_the_vote_on_test(make_ensemble, aggregator):
    ensemble = make_ensemble(members=4, skill=2.0)
    weights = np.array([1.0, 2.0, 0.5, 1.0]) if aggregator in WEIGHING else None
    evaluation = judge(ensemble, aggregator, weights)
    vote = decide(aggregator, ensemble.test.probs_MNK, weights)
    wrong = int((vote.classes_N != ensemble.test.labels_N).sum())
    row = evaluation.headline
    assert (row.wrong, row.test_error, row.ties) == (wrong, wrong / 400, vote.ties)
    assert (row.lower, row.upper) == wilson_interval(wrong, 400)
    assert row.num_parameters == 400
    assert row.train_seconds == pytest.approx(2 + 3 + 4 + 5)
    assert evaluation.size_curve[-1].mean == row.test_error
    assert sum(sum(r) for r in evaluation.confusion) == 400
    assert sum(c.wrong for c in evaluation.classes) == wrong
    assert evaluation.risk_coverage.error[-1] == pytest.approx(row.test_error)
    assert evaluation.calibration.ece_equal_width == row.ece
    if weights is not None:
        assert evaluation.choices[1].values == tuple(weights)


def test_the_reference_is_picked_on_validation_and_the_oracle_on_test(make_ensemble):
    ensemble = make_ensemble(members=5, rows=1000, skill=1.5, seed=3)
    # On test the members change places, so that validation's favourite is not the luckiest.
    ensemble = ensemble._replace(test=ensemble.test.members([1, 2, 3, 4, 0]))
    rows = judge(ensemble).leaderboard
    members = [row for row in rows if row.kind == "member"]
    best, oracle = (next(row for row in rows if row.kind == kind) for kind in ("best_member", "oracle"))
    assert best.validation_error == min(row.validation_error for row in members)
    assert oracle.test_error == min(row.test_error for row in members)
    assert oracle.member != best.member
    assert oracle.test_error < best.test_error
    assert "picked on test" in oracle.name
    mean = next(row for row in rows if row.kind == "mean_member")
    assert mean.test_error == pytest.approx(np.mean([row.test_error for row in members]))
    assert mean.lower < mean.test_error < mean.upper


def test_p_values_are_exact_mcnemar_against_the_reference(make_ensemble):
    ensemble = make_ensemble(members=4, skill=1.5)
    evaluation = judge(ensemble)
    labels = ensemble.test.labels_N
    position = next(row.member for row in evaluation.leaderboard if row.kind == "best_member") - 10
    reference_wrong = ensemble.test.probs_MNK[position].argmax(1) != labels
    vote_wrong = decide("soft", ensemble.test.probs_MNK).classes_N != labels
    b, c = int((vote_wrong & ~reference_wrong).sum()), int((~vote_wrong & reference_wrong).sum())
    row = evaluation.headline
    assert (row.only_this_wrong, row.only_best_wrong) == (b, c)
    assert row.p_value == row.p_holm == mcnemar_exact(b, c)
    for other in evaluation.leaderboard[1:]:
        untested = other.kind in ("best_member", "mean_member", "oracle") or other.member == position + 10
        assert math.isnan(other.p_value) == untested, other.name
        assert math.isnan(other.p_holm) == untested, other.name
        assert untested or other.p_holm >= other.p_value


def test_the_headline_is_no_part_of_the_family_of_tests(make_ensemble):
    rows = judge(make_ensemble(members=4, skill=1.5)).leaderboard
    family = holm([row.p_value for row in rows[1:]])
    assert [row.p_holm for row in rows[1:]] == pytest.approx(family.tolist(), nan_ok=True)
    assert family[~np.isnan(family)].min() < 1


def test_verdict_better(make_ensemble):
    verdict = judge(make_ensemble(members=8, rows=1500, skill=2.0)).verdict
    assert verdict.outcome == "better"
    assert verdict.p_value < 0.05
    assert verdict.difference == pytest.approx(verdict.vote_error - verdict.member_error)
    assert verdict.difference_lower < verdict.difference < verdict.difference_upper < 0
    assert "is better than the single model that validation picks" in verdict.sentence
    assert f"{100 * verdict.vote_error:.2f} %" in verdict.sentence


def test_verdict_not_distinguishable(make_ensemble):
    verdict = judge(make_ensemble(members=2, rows=60, skill=4.0)).verdict
    assert verdict.outcome == "not distinguishable"
    assert verdict.p_value >= 0.05
    assert "is not distinguishable from" in verdict.sentence


def test_verdict_worse(make_ensemble):
    ensemble = make_ensemble(members=5, rows=800, skill=3.0)
    probs = [votes.probs_MNK.copy() for votes in (ensemble.validation, ensemble.test)]
    for p in probs:
        p[1:] = p[1:, :, [1, 2, 3, 0]]  # all but the first have the classes mixed up
    mixed = ensemble._replace(
        validation=swap_probs(ensemble.validation, probs[0]), test=swap_probs(ensemble.test, probs[1])
    )
    evaluation = judge(mixed)
    assert evaluation.verdict.outcome == "worse"
    assert evaluation.verdict.member == 10
    assert sum("no better than guessing" in warning for warning in evaluation.warnings) == 4
    without = next(row for row in evaluation.leaderboard if row.name == "soft vote without 4 flagged")
    assert without.test_error == evaluation.verdict.member_error
    # One member predicts, but all five had to be trained to find that out.
    assert without.num_parameters == 100
    assert without.train_seconds == pytest.approx(2 + 3 + 4 + 5 + 6)


def test_one_member_has_nothing_to_compare_with(make_ensemble):
    evaluation = judge(make_ensemble(members=1))
    assert evaluation.verdict.outcome == "not distinguishable"
    assert "only one member" in evaluation.verdict.sentence
    assert evaluation.verdict.p_value == 1.0
    assert math.isnan(evaluation.contributions[0].gain)
    assert math.isnan(evaluation.gain_per_second)
    assert Evaluation.from_json(evaluation.to_json()).to_json() == evaluation.to_json()


def test_json_keeps_every_bit_and_nan_becomes_null(make_ensemble):
    evaluation = judge(make_ensemble(members=3, skill=6.0, rows=50))
    record = evaluation.to_json()
    text = json.dumps(record, allow_nan=False)
    again = Evaluation.from_json(json.loads(text))
    assert again.to_json() == record
    assert again.headline.nll == evaluation.headline.nll
    mean = next(row for row in record["leaderboard"] if row["kind"] == "mean_member")
    assert mean["p_value"] is None
    assert math.isnan(next(row for row in again.leaderboard if row.kind == "mean_member").p_value)
    assert isinstance(record["leaderboard"][0]["wrong"], int)


def test_foreign_json_is_refused(make_ensemble):
    record = judge(make_ensemble(members=2, rows=50)).to_json()
    with pytest.raises(StorageError, match="version"):
        Evaluation.from_json({**record, "version": 99})
    with pytest.raises(StorageError, match="surprise"):
        Evaluation.from_json({**record, "surprise": 1})
    with pytest.raises(StorageError, match="dataset"):
        Evaluation.from_json({key: value for key, value in record.items() if key != "dataset"})


def test_the_order_of_the_members_changes_no_figure(make_ensemble):
    ensemble = make_ensemble(members=5, skill=1.5)
    order = [3, 0, 4, 2, 1]
    shuffled = ensemble._replace(
        validation=ensemble.validation.members(order),
        test=ensemble.test.members(order),
        facts=[ensemble.facts[m] for m in order],
    )
    one, other = judge(ensemble), judge(shuffled)
    assert one.verdict == other.verdict
    unseeded = ("vote", "best_member", "mean_member", "oracle")
    for row, twin in zip(one.leaderboard, other.leaderboard, strict=True):
        if row.kind in unseeded:
            assert (row.name, row.wrong, row.ties) == (twin.name, twin.wrong, twin.ties)
            assert row.nll == pytest.approx(twin.nll, abs=1e-12, nan_ok=True)
    gains = [{c.member: c.gain for c in evaluation.contributions} for evaluation in (one, other)]
    assert gains[0] == gains[1]
    assert one.confusion == other.confusion


def test_poisoned_test_votes_change_no_choice(make_ensemble):
    ensemble = make_ensemble(members=5, skill=1.5)
    rng = np.random.default_rng(9)
    poison = rng.dirichlet(np.full(4, 0.2), (5, 400)).astype(np.float32)
    labels = rng.integers(0, 4, 400)
    poisoned = ensemble._replace(test=SplitVotes("test", poison, labels))
    one, other = judge(ensemble), judge(poisoned)
    assert one.choices == other.choices
    assert [row.validation_error for row in one.leaderboard[:-1]] == [
        row.validation_error for row in other.leaderboard[:-1]
    ]
    assert one.verdict.member == other.verdict.member
    assert one.verdict.vote_error != other.verdict.vote_error


def test_test_votes_cannot_pass_for_validation(make_ensemble):
    ensemble = make_ensemble()
    with pytest.raises(PeekingError):
        judge(ensemble._replace(validation=ensemble.test))


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_member_does_not_vote(make_ensemble, split, value):
    ensemble = make_ensemble(members=4)
    votes = getattr(ensemble, split)
    probs = votes.probs_MNK.copy()
    probs[2, 5:8] = value
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    evaluation = judge(ensemble._replace(**{split: swap_probs(votes, probs)}), "weighted", weights)
    others = [0, 1, 3]
    survivors = ensemble._replace(
        validation=ensemble.validation.members(others),
        test=ensemble.test.members(others),
        facts=[ensemble.facts[m] for m in others],
    )
    alone = judge(survivors, "weighted", weights[others])
    assert [(member.index, member.reason) for member in evaluation.excluded] == [
        (12, f"non-finite probabilities on 3 {split} rows")
    ]
    assert evaluation.degraded
    assert not alone.degraded
    assert [(row.name, row.wrong, str(row.nll)) for row in evaluation.leaderboard] == [
        (row.name, row.wrong, str(row.nll))
        for row in alone.leaderboard  # NaN for a hard vote
    ]
    assert evaluation.verdict == alone.verdict
    assert any("member 12 does not vote" in warning for warning in evaluation.warnings)


def test_nobody_left_to_vote(make_ensemble):
    ensemble = make_ensemble(members=2)
    broken = swap_probs(ensemble.test, np.full_like(ensemble.test.probs_MNK, np.nan))
    with pytest.raises(QuorumError, match="none of the 2 members"):
        judge(ensemble._replace(test=broken))


def test_fewer_members_than_asked_is_degraded(make_ensemble):
    assert judge(make_ensemble(members=3), asked=4).degraded
    assert not judge(make_ensemble(members=3), asked=3).degraded


def test_identical_members_are_noticed(make_ensemble):
    ensemble = make_ensemble(members=3)
    twins = [0, 1, 0]
    doubled = ensemble._replace(validation=ensemble.validation.members(twins), test=ensemble.test.members(twins))
    assert any("members 10, 12 have identical votes" in warning for warning in judge(doubled).warnings)
    assert judge(ensemble).warnings == ()


def test_weights_that_are_all_zero_become_equal_with_a_warning(make_ensemble):
    evaluation = judge(make_ensemble(members=3), "weighted", np.zeros(3))
    assert evaluation.choices[1].values == (1.0, 1.0, 1.0)
    assert any("all zero" in warning for warning in evaluation.warnings)


def test_without_choosing_only_the_quick_lines(make_ensemble):
    evaluation = judge(make_ensemble(members=3), choose=False)
    assert "chosen" not in {row.kind for row in evaluation.leaderboard}
    assert len(evaluation.choices) == 2


def test_vote_temperature_changes_confidence_but_no_class(make_ensemble):
    evaluation = judge(make_ensemble(members=4, rows=800, skill=2.0))
    scaled = next(row for row in evaluation.leaderboard if row.name == "temperature after the soft vote")
    assert scaled.wrong == evaluation.headline.wrong
    assert scaled.nll < evaluation.headline.nll
    assert scaled.ece < evaluation.headline.ece


def test_disputed_rows_name_every_vote(make_ensemble):
    ensemble = make_ensemble(members=5, skill=1.5)
    evaluation = judge(ensemble)
    assert len(evaluation.disputed) == 24
    for item in evaluation.disputed:
        classes = ensemble.test.probs_MNK[:, item.row].argmax(-1)
        assert item.member_classes == tuple(classes)
        assert item.votes == tuple(np.bincount(classes, minlength=4))
        assert item.label == ensemble.test.labels_N[item.row]
    information = [item.mutual_information for item in evaluation.disputed]
    assert information == sorted(information, reverse=True)


def test_identities_in_the_record(make_ensemble):
    evaluation = judge(make_ensemble(members=4))
    for terms in evaluation.ambiguity:
        assert terms.combined == pytest.approx(terms.members - terms.ambiguity, abs=1e-6)
    doubt = evaluation.uncertainty
    assert doubt.total == pytest.approx(doubt.aleatoric + doubt.epistemic, abs=1e-9)
    assert doubt.epistemic_wrong > doubt.epistemic_right


def test_out_of_bag_goes_with_the_members_that_vote(make_ensemble):
    ensemble = make_ensemble(members=2)
    sure = np.eye(4, dtype=np.float32)
    bags = OutOfBag([np.array([0, 1]), np.array([1, 2])], [sure[[0, 1]], sure[[1, 3]]], np.arange(4), np.arange(4))
    result = judge(ensemble, out_of_bag=bags).out_of_bag
    assert (result.rows, result.wrong, result.never_out) == (3, 1, 1)
    probs = ensemble.test.probs_MNK.copy()
    probs[1, 0] = np.nan
    result = judge(ensemble._replace(test=swap_probs(ensemble.test, probs)), out_of_bag=bags).out_of_bag
    assert (result.rows, result.wrong, result.never_out) == (2, 0, 2)


def test_reviewed_labels_on_real_mnist(mnist_root):
    raw = np.fromfile(mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", np.uint8)[8:].astype(np.int64)
    perfect = np.full((2, 10_000, 10), 0.01, np.float32)
    perfect[:, np.arange(10_000), raw] = 0.91
    facts = [MemberFacts(m, "lenet5", 61_706, 1.0, 1) for m in range(2)]
    validation = SplitVotes("validation", perfect[:, :100], raw[:100])
    test = SplitVotes("test", perfect, raw)
    evaluation = evaluate(validation, test, facts, "soft", None, 2, "mnist", list("0123456789"), None)
    assert evaluation.headline.test_error == 0
    review = evaluation.label_review
    assert (review.rows, review.wrong, review.corrected, review.left_out) == (9995, 10, 10, 5)
    assert evaluation.headline.reviewed_error == review.error
    assert review.wrong_on_doubted == 0


@pytest.mark.timed
def test_a_hundred_members_are_judged_in_seconds(make_ensemble):
    ensemble = make_ensemble(members=100, rows=10_000, classes=10, skill=3.0)
    begin = time.process_time()
    evaluation = judge(ensemble, choose=False)
    # About 2 s on one core; the slack is for slow or busy machines.
    assert time.process_time() - begin < 8
    assert evaluation.size_curve[-1].size == 100
    assert len(json.dumps(evaluation.to_json())) < 500_000


def test_votes_that_are_counted_have_no_log_loss(make_ensemble):
    """Nor one that a temperature is fitted to: what nobody voted for is not impossible."""
    evaluation = judge(make_ensemble(members=5), "hard")
    counted = [row for row in evaluation.leaderboard if "hard vote" in row.name]
    assert len(counted) >= 2
    assert all(np.isnan(row.nll) for row in counted)
    assert all(np.isfinite(row.nll) for row in evaluation.leaderboard if row not in counted)
    stored = evaluation.to_json()
    assert {row["nll"] for row in stored["leaderboard"] if "hard vote" in row["name"]} == {None}
    assert Evaluation.from_json(stored).headline.test_error == evaluation.headline.test_error


def test_certain_and_right_is_a_loss_of_zero_without_a_sign(make_ensemble):
    ensemble = make_ensemble(members=3, skill=400.0)
    evaluation = judge(ensemble)
    assert evaluation.headline.nll == 0.0
    assert "-0.0" not in json.dumps(evaluation.to_json()["leaderboard"])
