"""What every method must do. Inherit and give a fixture `make` that builds a fresh one over TRAIN_ROWS, of `num_members` members.

`play` trains nothing: members answer by their index, so that a method hears the same story however often it is told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from ensemble.types import MemberResult, MemberSpec, Votes

NUM_CLASSES = 4
LABELS_N = np.random.default_rng(5).permutation(np.arange(150) % NUM_CLASSES)
# Some rows of the training array are validation rows: positions and row numbers differ.
TRAIN_ROWS = np.setdiff1d(np.arange(150), np.arange(0, 150, 11))


def answer(member: MemberSpec, error: float = 0.3) -> MemberResult:
    """What a member that is wrong on so many of its vote rows leaves behind; a function of its index alone."""
    generator = np.random.default_rng(member.index)
    labels_R = LABELS_N[member.vote_rows]
    wrong_R = generator.random(len(labels_R)) < error
    named_R = np.where(wrong_R, (labels_R + generator.integers(1, NUM_CLASSES, len(labels_R))) % NUM_CLASSES, labels_R)
    probs_RK = np.full((len(labels_R), NUM_CLASSES), 0.1, np.float32)
    probs_RK[np.arange(len(labels_R)), named_R] = 1 - 0.1 * (NUM_CLASSES - 1)
    nothing = np.full((1, NUM_CLASSES), 1 / NUM_CLASSES, np.float32)
    votes = Votes(nothing, nothing, member.vote_rows, probs_RK)
    return MemberResult(member.index, member.recipe, votes, {}, (), 10, 1.0, 1, 1)


def play(method, missing: Sequence[int] = ()) -> list[list[MemberSpec]]:
    """All rounds of a method whose members all finish but the missing ones."""
    rounds = []
    while members := method.ask():
        rounds.append(members)
        assert len(rounds) < 100, "no end"
        method.tell([answer(member) for member in members if member.index not in missing])
    return rounds


def same(ours: Sequence[MemberSpec], theirs: Sequence[MemberSpec]) -> None:
    """Both ask for the same members, to the last bit."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.index, one.recipe, one.round, one.resample) == (
            other.index,
            other.recipe,
            other.round,
            other.resample,
        )
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.vote_rows, other.vote_rows)
        assert (one.weights is None) == (other.weights is None)
        if one.weights is not None:
            np.testing.assert_array_equal(one.weights, other.weights)
        assert (one.filter is None) == (other.filter is None)
        if one.filter is not None:
            assert (one.filter.rule, len(one.filter.judges)) == (other.filter.rule, len(other.filter.judges))


class MethodContract:
    """Behaviour that the run relies on."""

    votes_on_unseen_rows = True
    num_members = 8

    def test_two_of_a_kind_ask_for_the_same(self, make):
        for one, other in zip(play(make()), play(make()), strict=True):
            same(one, other)

    def test_told_from_disk_it_asks_for_what_comes_next(self, make):
        rounds = play(make())
        for cut in range(1, len(rounds) + 1):
            resumed = make()
            for members in rounds[:cut]:
                same(resumed.ask(), members)
                resumed.tell([answer(member) for member in members])
            same(resumed.ask(), rounds[cut] if cut < len(rounds) else [])

    def test_the_order_of_results_does_not_matter(self, make):
        method, forwards = make(), play(make())
        for members in forwards:
            same(method.ask(), members)
            shuffled = np.random.default_rng(len(members)).permutation(len(members))
            method.tell([answer(members[i]) for i in shuffled])
        other = make()
        play(other)
        np.testing.assert_array_equal(method.vote_weights(), other.vote_weights())

    def test_indices_count_up_from_zero_and_all_members_come(self, make):
        rounds = play(make())
        assert [member.index for members in rounds for member in members] == list(range(self.num_members))
        numbers = [{member.round for member in members} for members in rounds]
        assert all(len(number) == 1 for number in numbers)
        assert sorted(number.pop() for number in numbers) == list(range(len(rounds)))

    def test_rows_are_ascending_training_rows(self, make):
        for member in (member for members in play(make()) for member in members):
            assert len(member.rows) >= 1
            assert (np.diff(member.rows) >= 0).all()
            assert np.isin(member.rows, TRAIN_ROWS).all()
            assert (np.diff(member.vote_rows) > 0).all()
            assert np.isin(member.vote_rows, TRAIN_ROWS).all()
            if self.votes_on_unseen_rows:
                assert not np.isin(member.vote_rows, member.rows).any()

    def test_weights_are_finite_not_negative_and_one_per_row(self, make):
        for member in (member for members in play(make()) for member in members):
            if member.weights is None:
                assert not member.resample
                continue
            assert member.weights.shape == member.rows.shape
            assert member.weights.dtype == np.float32
            assert np.isfinite(member.weights).all()
            assert (member.weights >= 0).all()
            assert abs(member.weights.mean() - 1) < 1e-5

    def test_members_of_a_round_can_share_a_stack(self, make):
        for members in play(make()):
            assert len({len(member.rows) for member in members}) == 1

    def test_an_empty_ask_stays_empty(self, make):
        method = make()
        play(method)
        assert method.ask() == []
        assert method.ask() == []

    def test_vote_weights_fit_the_finished_members(self, make):
        for missing in ((), (1,)):
            method = make()
            rounds = play(method, missing)
            finished = [m for members in rounds for m in members if m.index not in missing]
            weights = method.vote_weights()
            if weights is not None:
                assert weights.shape == (len(finished),)
                assert np.isfinite(weights).all()
                assert (weights >= 0).all()
                assert weights.any()

    def test_the_report_is_plain_json_and_names_known_members(self, make):
        method = make()
        rounds = play(method)
        report = method.report()
        assert json.loads(json.dumps(report, allow_nan=False)) == json.loads(json.dumps(report))
        asked = {member.index for members in rounds for member in members}
        for record in (report or {}).get("rounds", []):
            assert set(record["members"]) <= asked
