"""Folds of training rows, and a member for each: the contract, how rows are divided, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ensemble.config import parse_experiment
from ensemble.errors import ConfigError, DataError
from ensemble.methods import build_method, check_rows
from ensemble.methods.folds import folds_of, folds_of_groups
from tests.contracts.method_contract import LABELS_N, NUM_CLASSES, TRAIN_ROWS, MethodContract, play

NAMES = tuple("abcd")


def experiment(members: int = 8, folds: int = 4, **more: Any):
    method = {"name": "cross_validation", "folds": folds}
    return parse_experiment(
        {"name": "t", "num_members": members, "method": method, "model": {"name": "lenet5"}, **more}
    )


def members_of(members: int = 8, folds: int = 4, groups_N=None, **more: Any):
    config = experiment(members, folds, **more)
    return build_method(config, TRAIN_ROWS, LABELS_N, NUM_CLASSES, groups_N=groups_N).ask()


class TestCrossValidation(MethodContract):
    @pytest.fixture(params=[(8, 8), (8, 4), (8, 2)], ids=str)
    def make(self, request):
        return lambda: build_method(experiment(*request.param), TRAIN_ROWS, LABELS_N, NUM_CLASSES)

    def test_members_of_a_round_can_share_a_stack(self, make):
        """Folds differ by a row at most, so there are two sizes of stacks."""
        sizes = {len(member.rows) for members in play(make()) for member in members}
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("members", "folds"), [(5, 5), (12, 4), (2, 2), (134, 134)])
def test_folds_are_disjoint_hold_all_rows_and_every_class_alike(members: int, folds: int) -> None:
    asked = members_of(members, folds)
    for start in range(0, members, folds):
        repeat = asked[start : start + folds]
        np.testing.assert_array_equal(np.sort(np.concatenate([m.vote_rows for m in repeat])), TRAIN_ROWS)
        counts_FK = np.array([np.bincount(LABELS_N[m.vote_rows], minlength=NUM_CLASSES) for m in repeat])
        assert (np.ptp(counts_FK, axis=0) <= 1).all()
        assert np.ptp(counts_FK.sum(axis=1)) <= 1
    for member in asked:
        np.testing.assert_array_equal(member.rows, np.setdiff1d(TRAIN_ROWS, member.vote_rows))
        assert member.own_validation
        assert member.weights is None


def test_repeats_cut_the_rows_anew_and_nothing_else_changes_them() -> None:
    eight, four = members_of(8), members_of(4)
    for one, other in zip(eight[:4], four, strict=True):
        np.testing.assert_array_equal(one.vote_rows, other.vote_rows)
    first, second = ({tuple(m.vote_rows) for m in eight[i : i + 4]} for i in (0, 4))
    assert not first & second
    assert not first & {tuple(member.vote_rows) for member in members_of(4, seed=1)}


def test_groups_of_members_leave_out_the_same_folds() -> None:
    """So that a row is judged by a member of each group."""
    kinds = (
        {"count": 4, "model": {"name": "lenet5"}},
        {"count": 8, "name": "net", "model": {"name": "mlp", "widths": (4,)}},
    )
    config = parse_experiment({"name": "t", "method": {"name": "cross_validation", "folds": 4}, "members": kinds})
    asked = build_method(config, TRAIN_ROWS, LABELS_N, NUM_CLASSES).ask()
    for one, other in zip(asked[:4], asked[4:8], strict=True):
        np.testing.assert_array_equal(one.vote_rows, other.vote_rows)
    assert [member.recipe for member in asked] == ["lenet5"] * 4 + ["net"] * 8
    assert not np.array_equal(asked[4].vote_rows, asked[8].vote_rows)


@pytest.mark.parametrize("seed", range(4))
def test_groups_of_rows_stay_whole_and_folds_still_hold_the_classes_alike(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels_N, groups_N = generator.integers(0, 3, 3000), generator.integers(100, 300, 3000)
    fold_N = folds_of_groups(labels_N, groups_N, 5, generator)
    for group in np.unique(groups_N):
        assert len(np.unique(fold_N[groups_N == group])) == 1
    counts_FK = np.array([np.bincount(labels_N[fold_N == fold], minlength=3) for fold in range(5)])
    assert counts_FK.sum() == 3000
    assert (abs(counts_FK / counts_FK.sum(axis=0) - 0.2) < 0.02).all()


def test_groups_of_one_class_and_of_very_different_sizes_fill_every_fold() -> None:
    sizes = [400, 100, 100, 100, 30, 30, 1, 1, 1]
    groups_N = np.repeat(np.arange(9), sizes)
    labels_N = np.repeat([0, 1, 0, 1, 0, 1, 0, 1, 0], sizes)
    fold_N = folds_of_groups(labels_N, groups_N, 4, np.random.default_rng(0))
    assert set(fold_N.tolist()) == {0, 1, 2, 3}
    assert all(len(np.unique(fold_N[groups_N == group])) == 1 for group in range(9))


def test_a_member_trains_on_no_row_of_a_group_that_it_is_judged_by() -> None:
    groups_N = np.arange(150) // 6
    for member in members_of(8, 4, groups_N):
        assert not np.isin(groups_N[member.vote_rows], groups_N[member.rows]).any()
        np.testing.assert_array_equal(np.union1d(member.rows, member.vote_rows), TRAIN_ROWS)


def test_the_report_says_which_fold_each_member_leaves_out() -> None:
    method = build_method(experiment(8, 4), TRAIN_ROWS, LABELS_N, NUM_CLASSES, np.arange(0, 150, 11))
    told, asked = method.report(), method.ask()
    assert [(one["repeat"], one["fold"]) for one in told["folds"]] == [(r, f) for r in range(2) for f in range(4)]
    assert [one["rows"] for one in told["folds"]] == [len(member.vote_rows) for member in asked]
    assert "4 folds of 136 training rows" in told["notices"][0]
    assert "The validation part (14 rows) is in no fold" in told["notices"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_members": 7}, "num_members is 7, but cross_validation trains a member for each of 5 folds .*expected a multiple of 5"),
        ({"num_members": 3}, "expected a multiple of 5"),
        ({"method": {"name": "cross_validation", "folds": 1}}, "folds"),
        (
            {"num_members": None, "model": None, "members": ({"count": 5, "model": {"name": "lenet5"}}, {"count": 6, "model": {"name": "cnn"}})},
            "members: cnn has count 6, but .*expected a multiple of 5 in every group",
        ),
    ],
)  # fmt: skip
def test_numbers_of_members_that_leave_folds_without_one_are_refused(changes: dict[str, Any], message: str) -> None:
    values = {"name": "t", "num_members": 5, "method": {"name": "cross_validation"}, "model": {"name": "lenet5"}}
    with pytest.raises(ConfigError, match=message):
        parse_experiment({key: value for key, value in {**values, **changes}.items() if value is not None})


def test_rows_that_cannot_be_cut_so_are_refused_before_anything_is_written() -> None:
    check_rows(experiment(4, 4), TRAIN_ROWS, LABELS_N, NAMES, None)
    with pytest.raises(DataError, match=r"found 136 rows to train on.*at most 136 folds"):
        check_rows(experiment(137, 137), TRAIN_ROWS, LABELS_N, NAMES, None)
    with pytest.raises(DataError, match=r"found 3 groups \(data.group_column\) to train on.*at most 3 folds"):
        check_rows(experiment(4, 4), TRAIN_ROWS, LABELS_N, NAMES, np.arange(150) % 3)
    lone_N = np.where(np.arange(150) == TRAIN_ROWS[5], 3, LABELS_N % 3)
    with pytest.raises(DataError, match="all training rows of class d are one"):
        check_rows(experiment(4, 4), TRAIN_ROWS, lone_N, NAMES, None)
    with pytest.raises(DataError, match=r"all training rows of class d are one group \(data.group_column\)"):
        check_rows(experiment(4, 4), TRAIN_ROWS, LABELS_N, NAMES, np.where(LABELS_N == 3, 0, np.arange(150)))


def test_boosting_cuts_rows_as_it_always_did() -> None:
    """The numbers of the first version, which stored runs go by."""
    labels_N = np.repeat([0, 1, 2], [4, 3, 5])
    assert folds_of(labels_N, 3, np.random.default_rng(0)).tolist() == [1, 0, 0, 2, 1, 2, 0, 2, 2, 1, 1, 0]
