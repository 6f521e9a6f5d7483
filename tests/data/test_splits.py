"""Training and validation rows, and the pixel statistics taken from the former."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.config.schema import DataConfig
from ensemble.data import Dataset, Split, normalization, split_rows
from ensemble.errors import DataError


def config(fraction: float = 0.1, limit: int | None = None) -> DataConfig:
    return DataConfig(name="digits", validation_fraction=fraction, max_train_rows=limit)


@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=12),
    fraction=st.floats(0.01, 0.99),
    limit=st.none() | st.integers(20, 400),
    seed=st.integers(0, 2**40),
)
def test_split_is_disjoint_stratified_and_within_its_limits(counts, fraction, limit, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    split = split_rows(labels, len(counts), config(fraction, limit), seed)
    train, validation = split.train_rows, split.validation_rows
    for rows in (train, validation):
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        assert set(labels[rows]) == set(range(len(counts)))
    assert not set(train) & set(validation)
    if limit is None:
        assert len(train) + len(validation) == len(labels)
    else:
        assert len(train) <= limit
    if (fraction * np.array(counts) >= 1).all() and ((1 - fraction) * np.array(counts) >= 1).all():
        assert len(validation) == round(fraction * len(labels))
        held_out_K = np.bincount(labels[validation])
        assert np.abs(held_out_K - len(validation) * np.array(counts) / len(labels)).max() < 1


def test_shares_by_hand():
    """Of 6 rows in proportion 5 : 3 : 2 of 20 rows: ideal 3.0, 1.8, 1.2, so the spare one goes to the second class."""
    labels = np.repeat([0, 1, 2], [10, 6, 4])
    split = split_rows(labels, 3, config(0.3), seed=1)
    assert np.bincount(labels[split.validation_rows]).tolist() == [3, 2, 1]
    assert np.bincount(labels[split.train_rows]).tolist() == [7, 4, 3]


def test_seed_alone_decides():
    labels = np.arange(200) % 10
    first, again, other = (split_rows(labels, 10, config(), seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.validation_rows, again.validation_rows)
    assert first.validation_rows.tolist() != other.validation_rows.tolist()


def test_limit_keeps_the_validation_rows_and_is_exact():
    labels = np.arange(1000) % 10
    full, thin = (split_rows(labels, 10, config(0.2, limit), 3) for limit in (None, 95))
    np.testing.assert_array_equal(full.validation_rows, thin.validation_rows)
    assert len(thin.train_rows) == 95
    assert set(thin.train_rows) <= set(full.train_rows)
    assert set(np.bincount(labels[thin.train_rows])) == {9, 10}


def test_limit_above_the_data_changes_nothing():
    labels = np.arange(100) % 10
    np.testing.assert_array_equal(
        split_rows(labels, 10, config(), 3).train_rows, split_rows(labels, 10, config(0.1, 10_000), 3).train_rows
    )


def test_class_too_rare_for_both_parts():
    labels = np.array([0] * 30 + [1] + [2] * 30)
    with pytest.raises(DataError, match="class 1 has 1, class 3 has 0 training images, expected at least 2"):
        split_rows(labels, 4, config(), 0)


def test_limit_below_the_number_of_classes():
    with pytest.raises(DataError, match=r"data\.max_train_rows: found 20, expected at least 26"):
        split_rows(np.arange(520) % 26, 26, config(0.1, 20), 0)


def dataset(images: np.ndarray) -> Dataset:
    labels = np.zeros(len(images), np.int64)
    return Dataset("digits", images, labels, images[:1], labels[:1], ("only",), False)


def test_normalization_is_that_of_the_training_rows():
    images = np.random.default_rng(0).integers(0, 256, (9000, 3, 4, 5)).astype(np.uint8)
    rows = np.arange(0, 9000, 2)
    mean_C, std_C = normalization(dataset(images), Split(rows, np.array([1])))
    pixels = images[rows].astype(np.float64) / 255
    np.testing.assert_allclose(mean_C, pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std_C, pixels.std((0, 2, 3)), rtol=1e-6)
    assert mean_C.dtype == std_C.dtype == np.float32


def test_normalization_does_not_see_validation_rows():
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4)).astype(np.uint8)
    split = Split(np.arange(10), np.arange(10, 20))
    before = normalization(dataset(images), split)
    images[10:] = 255
    assert normalization(dataset(images), split) == before


def test_constant_channel_does_not_divide_by_zero():
    images = np.full((4, 1, 2, 2), 51, np.uint8)
    mean_C, std_C = normalization(dataset(images), Split(np.arange(4), np.arange(0)))
    assert mean_C.tolist() == [np.float32(0.2)]
    assert std_C.tolist() == [1.0]


def test_normalization_of_real_mnist_is_near_the_published_values(mnist_root):
    from ensemble.data import load_dataset

    mnist = load_dataset(DataConfig(name="mnist", root=str(mnist_root), download=False))
    split = split_rows(mnist.train_labels_N, 10, DataConfig(name="mnist"), 0)
    assert (len(split.train_rows), len(split.validation_rows)) == (54_000, 6_000)
    mean_C, std_C = normalization(mnist, split)
    assert mean_C.item() == pytest.approx(0.1307, abs=5e-4)  # of all 60,000 images
    assert std_C.item() == pytest.approx(0.3081, abs=5e-4)


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_calibration_rows_are_drawn_by_class_and_are_nobody_elses(fraction):
    labels_N = np.repeat(np.arange(3), (60, 120, 30))
    config = DataConfig(name="digits", calibration_fraction=fraction, validation_fraction=0.2)
    split = split_rows(labels_N, 3, config, seed=4)
    parts = (split.train_rows, split.validation_rows, split.calibration_rows)
    assert sorted(np.concatenate(parts).tolist()) == list(range(210))
    np.testing.assert_array_equal(np.bincount(labels_N[split.calibration_rows]), fraction * np.array([60, 120, 30]))
    without = split_rows(labels_N, 3, config.model_copy(update={"calibration_fraction": 0.0}), seed=4)
    np.testing.assert_array_equal(without.validation_rows, split.validation_rows)
    assert set(split.train_rows) < set(without.train_rows)


def test_calibration_takes_whole_groups():
    groups_N = np.repeat(np.arange(30), 4)  # a patient each, with pictures of both classes
    labels_N = np.tile([0, 1, 0, 1], 30)
    config = DataConfig(name="digits", calibration_fraction=0.2, validation_fraction=0.2)
    for seed in range(20):
        split = split_rows(labels_N, 2, config, seed, groups_N=groups_N)
        groups = [set(groups_N[rows]) for rows in (split.train_rows, split.validation_rows, split.calibration_rows)]
        assert sorted(map(len, groups)) == [6, 6, 18]
        assert sum(map(len, groups)) == len(set().union(*groups))


def test_a_calibration_part_that_leaves_nothing_is_refused():
    labels_N = np.repeat([0, 1], (40, 3))
    config = DataConfig(name="digits", calibration_fraction=0.6, validation_fraction=0.3)
    with pytest.raises(
        DataError, match=r"data.calibration_fraction is 0.6, but beside the validation rows class 1 has 2"
    ):
        split_rows(labels_N, 2, config, seed=0)
