"""The embedded digits: sizes, the fixed test part, and the enlargement against an independent interpolation."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ensemble.config.schema import DataConfig
from ensemble.data import DATASETS, load_dataset
from ensemble.data.digits import enlarge, load_digits_28


@pytest.fixture(scope="module")
def digits():
    return load_dataset(DataConfig(name="digits"))


def test_sizes_are_those_of_the_catalogue(digits):
    info = DATASETS["digits"]
    assert digits.train_images_NCHW.shape == (info.train_images, *info.image_shape)
    assert digits.test_images_NCHW.shape == (info.test_images, *info.image_shape)
    assert len(digits.train_labels_N) + len(digits.test_labels_N) == 1797


def test_test_part_is_stratified(digits):
    share_K = np.bincount(digits.test_labels_N) / np.bincount(load_digits().target)
    assert share_K.min() > 0.19
    assert share_K.max() <= 0.2


def test_the_set_is_fixed_for_ever(digits):
    digest = hashlib.sha256()
    for array in (
        digits.train_images_NCHW,
        digits.train_labels_N,
        digits.test_images_NCHW,
        digits.test_labels_N,
    ):
        digest.update(array.tobytes())
    assert digest.hexdigest() == "7a4f68ae08f26db16219c29ce8b2250acc81b1d74b877f4cc8cf859351519ccb"


def test_the_file_and_scikit_learn_s_function_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    read = load_digits_28()
    monkeypatch.setattr("ensemble.data.digits.find_spec", lambda _: None)  # as where the file lies elsewhere
    for ours, theirs in zip(read, load_digits_28(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_constant_images_stay_constant():
    images = np.stack([np.full((8, 8), value) for value in (0, 4, 16)])
    np.testing.assert_array_equal(enlarge(images)[:, 13, 5], [0, 64, 255])
    assert np.ptp(enlarge(images), axis=(1, 2)).tolist() == [0, 0, 0]


def test_linear_ramps_stay_linear_inside():
    """Catmull-Rom reproduces straight lines; only pixels that reach over the border differ."""
    ramp = np.broadcast_to(np.arange(8) * 2, (1, 8, 8)).astype(np.int64)
    place = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    inside = (place >= 1) & (place <= 6)
    expected = place[inside] * 2 / 16 * 255
    assert np.abs(enlarge(ramp)[0, 10, inside] - expected).max() <= 0.5 + 1e-9


def test_enlargement_agrees_with_cubic_convolution_in_floating_point():
    images = np.random.default_rng(0).integers(0, 17, (5, 8, 8))

    def kernel(t):
        t = np.abs(t)
        return np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0.0))

    place = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)), mode="edge")
    weights = kernel(place[:, None] - np.arange(-2, 10))
    expected = np.clip(np.einsum("iy,nyx,jx->nij", weights, padded, weights) / 16 * 255, 0, 255)
    assert np.abs(enlarge(images) - expected).max() <= 0.5 + 1e-9
