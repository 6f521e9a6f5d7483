"""The scikit-learn estimator: the library's own checks, searches, images and kept folders."""

from __future__ import annotations

import os
import tempfile
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ensemble import EnsembleClassifier, load_ensemble
from ensemble.data.fitted_range import fitted_range
from ensemble.storage import RunFolder


@pytest.fixture(autouse=True)
def _quick_temporary_folders(monkeypatch):
    """Hundreds of small fits, each of which waits for the disk: in memory, where there is such a place."""
    if os.access("/dev/shm", os.W_OK):
        monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")


EXPECTED_FAILURES: dict[str, str] = {}  # none


@parametrize_with_checks(
    [EnsembleClassifier(num_members=2, epochs=8, lr=1e-2)], expected_failed_checks=lambda _estimator: EXPECTED_FAILURES
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def easy():
    return make_classification(240, 6, n_informative=5, n_redundant=0, n_classes=3, class_sep=2, random_state=0)


def test_learns_scores_and_clones(easy):
    X, y = easy
    names = np.array(["ant", "bee", "cat"])[y]
    first = EnsembleClassifier(num_members=3, random_state=0).fit(X[:180], names[:180])
    assert first.score(X[180:], names[180:]) > 0.85
    probs = first.predict_proba(X[180:])
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(first.classes_[probs.argmax(1)], first.predict(X[180:]))
    again = clone(first).fit(X[:180], names[:180])
    np.testing.assert_array_equal(again.predict_proba(X[180:]), probs)
    other = clone(first).set_params(random_state=1).fit(X[:180], names[:180])
    assert not np.array_equal(other.predict_proba(X[180:]), probs)


def test_grid_search_and_pipeline(easy):
    X, y = easy
    search = GridSearchCV(
        make_pipeline(StandardScaler(), EnsembleClassifier(num_members=1, epochs=10, random_state=0)),
        {"ensembleclassifier__lr": [1e-5, 1e-2]},
        cv=2,
    ).fit(X, y)
    assert search.best_params_ == {"ensembleclassifier__lr": 1e-2}
    scores = cross_val_score(EnsembleClassifier("deep_ensemble", num_members=1, epochs=10, random_state=0), X, y, cv=2)
    assert scores.min() > 0.7


def test_levels_ignore_the_units_of_a_feature(easy):
    X, y = easy
    scaled = X * np.array([1e-6, 1, 1e6, 50, 3, 1]) + np.array([0, 1e3, -1e7, 0, 5, 5])
    one, two = (EnsembleClassifier(num_members=1, epochs=3, random_state=0).fit(A, y) for A in (X, scaled))
    assert np.abs(one.predict_proba(X) - two.predict_proba(scaled)).max() < 0.02


@pytest.mark.parametrize("flat", [True, False])
def test_images_with_a_convolutional_network(flat):
    digits = load_digits()
    X = digits.data if flat else digits.images
    network = {"name": "cnn", "widths": [8], "fully_connected": [32]}
    classifier = EnsembleClassifier(
        num_members=2, model=network, epochs=4, image_shape=(1, 8, 8) if flat else None, random_state=0
    )
    classifier.fit(X[:1200], digits.target[:1200])
    assert classifier.ensemble_.image_shape == (1, 8, 8)
    assert classifier.score(X[1200:], digits.target[1200:]) > 0.85


def test_bytes_are_taken_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3)).astype(np.uint8)
    classifier = EnsembleClassifier(num_members=1, epochs=1).fit(images, np.arange(40) % 2)
    assert classifier.low_ is None
    assert classifier.layout_ == "channels_last"
    np.testing.assert_array_equal(classifier._levels(images.astype(int) - 1), np.maximum(images, 1) - 1)


TYPES = ("uint8", "int16", "int64", "float32", "float64")


def levels_by_hand(images, low, high):
    """What the classifier is said to make of values: cut off at what was fitted, scaled, rounded."""
    unit = (np.asarray(images, np.float64).clip(low, high) - low) / (high - low)
    return (unit * 255).round().astype(np.uint8)


@pytest.mark.parametrize("fitted_as", TYPES)
@pytest.mark.parametrize("asked_as", TYPES)
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1, -1), (1, 40), (2, -60)])
def test_values_beyond_what_was_fitted_are_cut_off(fitted_as, asked_as, scale, shift):
    """Whatever type fit had and whatever type predict has: as cutting off by hand."""
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4))
    images[:, 0, 0], images[:, 0, 1] = 0, 255
    classifier = EnsembleClassifier()
    first = images.astype(fitted_as)[:, None]
    classifier.low_, classifier.high_ = fitted_range(first, images=True)
    asked = images * scale + shift
    if asked_as == "uint8":
        asked = asked.clip(0, 255)
    np.testing.assert_array_equal(
        classifier._levels(asked.astype(asked_as)[:, None])[:, 0], levels_by_hand(asked, 0, 255)
    )


@pytest.mark.parametrize("count", [5, 40, 500])
@pytest.mark.parametrize("hot", [1e6, -1e6])
def test_one_hot_pixel_does_no_harm(count, hot):
    images = np.random.default_rng(0).random((count, 1, 6, 6)) * 16
    low, high = fitted_range(images, images=True)
    assert (low[0], high[0]) == (images.min(), images.max())
    images[count // 2, 0, 3, 3] = hot
    with pytest.warns(UserWarning, match=r"what lies beyond is cut off"):
        low, high = fitted_range(images, images=True)
    assert -0.5 < low[0] < 1
    assert 15 < high[0] < 16.5


def test_hot_pixels_in_many_images_are_told_of():
    images = np.random.default_rng(0).random((50, 1, 20, 20)) * 16
    images[:, 0, 3, 3] = 1e6
    with pytest.warns(UserWarning, match=r"99 % of the pixels lie between .* and become 1 of 256 levels"):
        fitted_range(images, images=True)
    sparse = np.zeros((50, 1, 20, 20))
    sparse[:, 0, 3, 3] = 1e6
    assert fitted_range(sparse, images=True)[1] == 1e6  # few different values: nothing is lost


@pytest.mark.parametrize("fitted", [np.uint8, np.float64])
def test_fractions_of_what_was_fitted_are_told_of(fitted):
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 6)).astype(fitted)
    classifier = EnsembleClassifier(num_members=1, epochs=1, random_state=0).fit(images, np.arange(60) % 2)
    with pytest.warns(UserWarning, match=r"found values from 0 to 1, but those of fit were from 0 to 255; scale them"):
        classifier.predict(images / 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (images, images.astype(np.float32), images[:3] * 0, (images > 99) * 1.0):
            classifier.predict(same)


@pytest.mark.parametrize("shape", [(12, 4), (12, 4, 4), (12, 4, 4, 3)])
def test_a_layout_that_there_is_not_is_refused_whatever_the_data(shape):
    with pytest.raises(ValueError, match=r"layout='last': expected one of channels_first, channels_last, or None"):
        EnsembleClassifier(layout="last").fit(np.zeros(shape), np.arange(12) % 2)


def test_labels_of_several_types_are_named():
    labels = np.array([1 if i % 2 else "a" for i in range(12)], object)
    with pytest.raises(ValueError, match=r"y: .*(int, str|string and number)"):
        EnsembleClassifier().fit(np.zeros((12, 4)), labels)


def test_axes_are_asked_for_and_kept():
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 7, 5)).astype(np.uint8)
    with pytest.raises(ValueError, match=r"found shape \[40, 6, 7, 5\], which may be .*; say which by layout="):
        EnsembleClassifier(num_members=1, epochs=1).fit(images, np.arange(40) % 2)
    classifier = EnsembleClassifier(num_members=1, epochs=1, layout="channels_last").fit(images, np.arange(40) % 2)
    assert classifier.ensemble_.image_shape == (5, 6, 7)
    with pytest.raises(ValueError, match=r"found images of \[5, 6, 6\] .*; expected \[5, 6, 7\]"):
        classifier.predict(images[:, :, :6])


def test_a_kept_folder_is_a_run_and_is_taken_up_again(easy, tmp_path):
    X, y = easy
    classifier = EnsembleClassifier(num_members=2, epochs=2, random_state=0, folder=str(tmp_path)).fit(X, y)
    (path,) = tmp_path.iterdir()
    levels = classifier._levels(X[:, :, None, None])
    np.testing.assert_allclose(load_ensemble(path).predict_proba(levels), classifier.predict_proba(X), atol=1e-6)
    before = RunFolder.read(path).read_bytes("members/0001/member.json")
    again = clone(classifier).fit(X, y)
    assert RunFolder.read(path).read_bytes("members/0001/member.json") == before  # not trained again
    np.testing.assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))
    clone(classifier).fit(X[:200], y[:200])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "baging"}, "expected one of .*did you mean bagging"),
        ({"training": {"epoch": 3}}, "training.epoch: unknown key"),
        ({"num_members": 0}, "num_members = 0"),
        ({"model": "lenet5"}, "too small"),
        ({"image_shape": (1, 2, 2)}, "found 6 features; expected 4"),
    ],
)
def test_settings_that_cannot_mean_anything_are_value_errors(easy, settings, message):
    with pytest.raises(ValueError, match=message):
        EnsembleClassifier(**settings).fit(*easy)


def test_rare_and_single_classes_are_value_errors():
    X, y = make_blobs(30, random_state=0)
    with pytest.raises(ValueError, match="only one class"):
        EnsembleClassifier().fit(X, np.zeros(30))
    y[:] = 0
    y[3] = 1
    with pytest.raises(ValueError, match="class 1 has 1"):
        EnsembleClassifier().fit(X, y)


def test_members_that_fail_are_told_of(easy):
    X, y = easy
    broken = EnsembleClassifier(num_members=2, lr=1e30, epochs=2, training={"optimizer": "sgd"}, random_state=0)
    with (
        pytest.warns(ConvergenceWarning, match="member 0: diverged.*member 1: diverged"),
        pytest.raises(Exception, match="0 of 2 members"),
    ):
        broken.fit(X, y)


@pytest.mark.parametrize(
    "compute",
    [
        {"executor": "ray", "slots": 4},
        {"executor": "accelerate"},
        {"parallel": "data"},
        {"slots": 3},
        {"gpus_per_task": 2.0},
    ],
)
def test_what_this_process_does_not_do_is_refused(compute: dict[str, object]) -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(ValueError, match="EnsembleClassifier trains one task after the other in this process"):
        EnsembleClassifier(num_members=1, epochs=1, compute=compute).fit(X, np.arange(40) % 2)
