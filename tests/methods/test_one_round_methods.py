"""Deep ensembles and bagging: the contract, and what is theirs alone."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.config import parse_experiment
from ensemble.config.method import MethodJob
from ensemble.errors import ConfigError
from ensemble.methods import build_method
from ensemble.methods.one_round import BaggingConfig
from tests.contracts.method_contract import LABELS_N, NUM_CLASSES, TRAIN_ROWS, MethodContract, play


def experiment(method, seed=7, **more):
    values = {"name": "t", "seed": seed, "num_members": 8, "method": method, "model": {"name": "lenet5"}, **more}
    return parse_experiment(values)


def build(method, **more):
    return build_method(experiment(method, **more), TRAIN_ROWS, LABELS_N, NUM_CLASSES)


class TestDeepEnsemble(MethodContract):
    @pytest.fixture
    def make(self):
        return lambda: build({"name": "deep_ensemble"})


class TestBagging(MethodContract):
    @pytest.fixture(params=[{}, {"sample_fraction": 0.4, "replacement": False}, {"sample_fraction": 2.0}], ids=str)
    def make(self, request):
        return lambda: build({"name": "bagging", **request.param})


def test_a_deep_ensemble_fits_every_member_to_all_rows():
    ((*members,),) = play(build({"name": "deep_ensemble"}))
    for member in members:
        np.testing.assert_array_equal(member.rows, TRAIN_ROWS)
        assert member.weights is None
        assert not len(member.vote_rows)


def test_groups_of_a_mixed_ensemble_keep_their_order():
    groups = (
        {"count": 2, "model": {"name": "lenet5"}},
        {"count": 1, "name": "net", "model": {"name": "mlp", "widths": (4,)}},
    )
    config = parse_experiment({"name": "t", "method": {"name": "deep_ensemble"}, "members": groups})
    (members,) = play(build_method(config, TRAIN_ROWS, LABELS_N, NUM_CLASSES))
    assert [member.recipe for member in members] == ["lenet5", "lenet5", "net"]


def bags(rows, seed=0, count=20, **options):
    none = np.empty(0, np.int64)
    job = MethodJob(("r",) * count, np.arange(rows), none, none, NUM_CLASSES, seed)
    return BaggingConfig(name="bagging", **options).build(job).ask()


@pytest.mark.parametrize("options", [{}, {"replacement": False, "sample_fraction": 0.3}, {"sample_fraction": 0.5}])
def test_out_of_bag_rows_are_the_complement(options):
    for member in bags(400, **options):
        assert set(member.vote_rows.tolist()) == set(range(400)) - set(member.rows.tolist())


def test_a_bootstrap_sample_holds_63_2_percent_of_the_rows():
    """1 - (1 - 1/N)^N; the share's standard deviation is sqrt(e^-1 - 2 e^-2) / sqrt(N) = 0.312 / sqrt(N) per bag."""
    shares = [len(np.unique(member.rows)) / 5000 for member in bags(5000, count=40)]
    assert all(len(member.rows) == 5000 for member in bags(5000, count=2))
    assert abs(np.mean(shares) - (1 - (1 - 1 / 5000) ** 5000)) < 4 * 0.312 / np.sqrt(5000 * 40)
    assert np.std(shares) == pytest.approx(0.312 / np.sqrt(5000), rel=0.5)


def test_every_row_is_drawn_equally_often():
    drawn = np.bincount(np.concatenate([member.rows for member in bags(50, count=400)]), minlength=50)
    assert drawn.sum() == 50 * 400
    assert np.abs(drawn - 400).max() < 5 * np.sqrt(400)


def test_without_replacement_no_row_stands_twice():
    for member in bags(200, replacement=False, sample_fraction=0.75):
        assert len(member.rows) == len(np.unique(member.rows)) == 150


def test_the_fraction_sets_the_size_of_a_bag():
    assert {len(member.rows) for member in bags(200, sample_fraction=0.1)} == {20}
    assert {len(member.rows) for member in bags(200, sample_fraction=3.0)} == {600}
    assert {len(member.rows) for member in bags(200, sample_fraction=1e-4)} == {1}


def test_bags_depend_on_seed_and_member_only():
    eight, three = bags(300, count=8), bags(300, count=3)
    for one, other in zip(eight[:3], three, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
    assert not np.array_equal(eight[0].rows, eight[1].rows)
    assert not np.array_equal(eight[0].rows, bags(300, seed=1)[0].rows)


def test_all_rows_without_replacement_are_refused():
    with pytest.raises(ConfigError, match="sample_fraction must be below 1 without replacement"):
        experiment({"name": "bagging", "replacement": False})
