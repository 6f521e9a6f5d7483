"""Own arrays in an .npz file: shapes, kinds of labels, the fixed test part, and what is refused."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.config import parse_experiment
from ensemble.config.schema import DataConfig
from ensemble.data import images_digest, load_dataset, split_of
from ensemble.errors import ConfigError, DataError
from tests.amounts import examples

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 6, 5)).astype(np.uint8)
LABELS = np.arange(40) % 4


@pytest.fixture
def load(tmp_path):
    def load(config=None, **arrays):
        np.savez(tmp_path / "mine.npz", **arrays)
        return load_dataset(DataConfig(name="arrays", path=str(tmp_path / "mine.npz"), **(config or {})))

    return load


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (IMAGES, (3, 6, 5)),
        (IMAGES.transpose(0, 2, 3, 1), (3, 6, 5)),
        (IMAGES[:, 0], (1, 6, 5)),
        (IMAGES / 255.0, (3, 6, 5)),
        ((IMAGES / 255.0).astype(np.float32), (3, 6, 5)),
    ],
)
def test_image_forms_give_the_same_bytes(load, images, shape):
    data = load(train_images=images, train_labels=LABELS, test_images=images[:8], test_labels=LABELS[:8])
    assert data.image_shape == shape
    np.testing.assert_array_equal(data.train_images_NCHW, IMAGES[:, : shape[0]])
    np.testing.assert_array_equal(data.train_labels_N, LABELS)
    assert data.name == "mine.npz (arrays)"


def test_labels_may_be_numbers_texts_or_positions(load):
    names = np.array(["ant", "bee", "cat", "dog"])
    rest = {"train_images": IMAGES, "test_images": IMAGES[:4]}
    plain = load(train_labels=LABELS * 10 + 5, test_labels=[35, 5, 5, 15], **rest)
    assert plain.class_names == ("5", "15", "25", "35")
    np.testing.assert_array_equal(plain.test_labels_N, [3, 0, 0, 1])
    texts = load(train_labels=names[LABELS], test_labels=names[[3, 0, 0, 1]], **rest)
    assert texts.class_names == tuple(names)
    np.testing.assert_array_equal(texts.test_labels_N, [3, 0, 0, 1])
    named = load(train_labels=LABELS, test_labels=[3, 0, 0, 1], class_names=names, **rest)
    assert named.class_names == tuple(names)
    np.testing.assert_array_equal(named.train_labels_N, LABELS)


def test_a_fixed_stratified_test_part_is_split_off(load):
    data = load(train_images=IMAGES, train_labels=LABELS)
    np.testing.assert_array_equal(np.bincount(data.test_labels_N), [2, 2, 2, 2])
    both = np.concatenate([data.train_images_NCHW, data.test_images_NCHW])
    assert {image.tobytes() for image in both} == {image.tobytes() for image in IMAGES}
    half = load({"test_fraction": 0.5}, train_images=IMAGES, train_labels=LABELS)
    np.testing.assert_array_equal(np.bincount(half.test_labels_N), [5, 5, 5, 5])
    assert images_digest(data) != images_digest(half)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_images": IMAGES}, "train_labels missing; found train_images"),
        ({"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES}, "test_labels missing"),
        ({"train_images": IMAGES, "train_labels": LABELS, "trian": LABELS}, "unknown arrays trian"),
        ({"train_images": IMAGES, "train_labels": LABELS[:30]}, "40 train_images, but 30 train_labels"),
        ({"train_images": IMAGES.astype(int) - 300, "train_labels": LABELS}, "whole numbers from -300 .*value_range"),
        ({"train_images": IMAGES * 1j, "train_labels": LABELS}, "found type complex128; expected whole numbers"),
        ({"train_images": IMAGES * 1.0, "train_labels": LABELS}, "found floats from 0 to 255"),
        ({"train_images": IMAGES.reshape(40, -1), "train_labels": LABELS}, "for rows of features use"),
        ({"train_images": IMAGES, "train_labels": LABELS * 1.0}, "found type float64 of shape"),
        ({"train_images": IMAGES, "train_labels": LABELS * 0}, "expected at least two"),
        ({"train_images": IMAGES, "train_labels": LABELS, "class_names": ["a", "b", "c"]}, "row 3: 3.*expected 0 to 2"),
        (
            {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES, "test_labels": LABELS + 1},
            "10 unusable labels.*row 3: 4",
        ),
        (
            {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:, :1], "test_labels": LABELS},
            "differ in shape",
        ),
        ({"train_images": IMAGES, "train_labels": np.array([object()] * 40)}, "without objects"),
    ],
)
def test_faults_are_named(load, arrays, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        load(**arrays)


@pytest.mark.parametrize(
    ("train", "test", "config", "expected"),
    [
        (IMAGES.astype(np.uint16) * 16, None, {}, (0.0, 4095.0)),
        (IMAGES.astype(np.int64) * 16, IMAGES, {}, (0.0, 4095.0)),  # small numbers of another type, on the same scale
        (IMAGES.astype(np.int32), IMAGES, {}, None),
        (IMAGES > 127, None, {}, None),
        (IMAGES * 2.0 - 100, None, {"value_range": (-100.0, 410.0)}, None),
        (IMAGES.astype(np.int16) - 100, None, {"value_range": (-100.0, 155.0)}, None),
    ],
)
def test_whole_numbers_and_floats_of_any_range(load, train, test, config, expected):
    test = train if test is None else test
    data = load(config, train_images=train, train_labels=LABELS, test_images=test, test_labels=LABELS)
    low, high = config.get("value_range") or expected or ((0, 1) if train.dtype == bool else (0, 255))
    for images, seen in ((train, data.train_images_NCHW), (test, data.test_images_NCHW)):
        by_hand = ((images.astype(float) - low) / (high - low) * 255).round()
        np.testing.assert_array_equal(seen, by_hand)
    assert data.pixels.wide_range == expected


def test_a_test_part_on_another_scale_is_refused(load):
    rest = {"train_labels": LABELS, "test_labels": LABELS}
    with pytest.raises(
        DataError, match=r"test_images: found whole numbers from .* to 4080, but those of train_images lie"
    ):
        load(train_images=IMAGES, test_images=IMAGES.astype(int) * 16, **rest)


@given(
    st.sampled_from(
        ["bool", "int8", "uint16", "int64", "float16", "float64", "complex64", "U3", "S2", "M8[s]", "m8[s]"]
    ),
    st.lists(st.integers(0, 5), min_size=0, max_size=5),
    st.sampled_from(["bool", "int8", "uint64", "float32", "U3", "S2", "M8[s]"]),
    st.sampled_from([None, "int8", "U3", "S2", "float64", "M8[s]"]),
)
@settings(max_examples=examples(150), deadline=None)
def test_arrays_of_any_type_and_shape_are_read_or_refused(kind, shape, labels, names):
    """What is no image and no label is a DataError that names the file, nothing else."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        path = Path(place) / "mine.npz"
        numbers = np.arange(math.prod(shape)).reshape(shape) % 7
        arrays = {
            "train_images": numbers.astype(kind),
            "train_labels": (np.arange(shape[0] if shape else 1) % 2).astype(labels),
        }
        np.savez(path, **arrays, **({} if names is None else {"class_names": np.arange(2).astype(names)}))
        try:
            data = load_dataset(DataConfig(name="arrays", path=str(path)))
        except DataError as error:
            said = str(error)
        else:
            said = data.name
        assert "mine.npz" in said or "too few images of a class" in said


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="no file"):
        load_dataset(DataConfig(name="arrays", path=str(tmp_path / "no.npz")))
    (tmp_path / "no.npz").write_text("<html>")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load_dataset(DataConfig(name="arrays", path=str(tmp_path / "no.npz")))
    np.save(tmp_path / "one.npy", LABELS)
    with pytest.raises(DataError, match="found a single array"):
        load_dataset(DataConfig(name="arrays", path=str(tmp_path / "one.npy")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "digits", "root": "x"}, "root has no effect with data set digits, which takes none"),
        ({"name": "mnist", "path": "x"}, "path has no effect with data set mnist, which takes root"),
        (
            {"name": "arrays", "path": "x", "image_size": 8},
            "image_size has no effect.*takes path, storage, layout, test_fraction",
        ),
        ({"name": "arrays"}, "arrays needs path"),
        ({"name": "image_folder", "root": "x"}, "image_folder needs root.*and image_size"),
    ],
)
def test_keys_that_do_not_fit_the_data_set_are_refused(data, message):
    values = {"name": "t", "num_members": 2, "method": {"name": "bagging"}, "model": {"name": "mlp"}, "data": data}
    with pytest.raises(ConfigError, match=message):
        parse_experiment(values)


@pytest.mark.parametrize("kind", ["bytes", "floats", "12 bits", "grey, by columns"])
@pytest.mark.parametrize("tested", [True, False], ids=["test given", "test held back"])
def test_a_validation_part_as_in_the_files_of_medmnist(load, kind, tested):
    images, labels = {
        "bytes": (IMAGES, LABELS), "floats": (IMAGES / 255.0, LABELS), "12 bits": (IMAGES.astype(np.uint16) * 16, LABELS),
        "grey, by columns": (IMAGES[:, 0], LABELS[:, None].astype(np.uint8)),
    }[kind]  # fmt: skip
    parts = {"train": slice(0, 24), "val": slice(24, 32)} | ({"test": slice(32, 40)} if tested else {})
    given = {
        f"{name}_{what}": array[rows]
        for name, rows in parts.items()
        for what, array in (("images", images), ("labels", labels))
    }
    data = load(**given)
    plain = load(**{name: array for name, array in given.items() if not name.startswith("val")})
    expected = IMAGES[:, :1] if kind.startswith("grey") else IMAGES
    if kind == "12 bits":
        expected = np.round(IMAGES * 16.0 / 4095 * 255).astype(np.uint8)
    np.testing.assert_array_equal(data.train_images_NCHW[-8:], expected[24:32])
    np.testing.assert_array_equal(data.train_images_NCHW[:-8], plain.train_images_NCHW)
    np.testing.assert_array_equal(data.test_images_NCHW, plain.test_images_NCHW)
    np.testing.assert_array_equal(data.train_labels_N[-8:], LABELS[24:32])
    config = DataConfig(name="arrays", path="mine.npz")
    split = split_of(data, config, 0)
    count = len(plain.train_labels_N)
    assert split.validation_rows.tolist() == list(range(count, count + 8))
    assert split.train_rows.tolist() == list(range(count))
    assert [part.name for part in data.account.parts] == ["train", "validation", "test"]


def test_an_odd_validation_part_is_named(load):
    rest = {"train_images": IMAGES, "train_labels": LABELS}
    for wrong, expected in (
        ({"val_images": IMAGES[:4]}, "val_labels missing"),
        ({"val_labels": LABELS[:4]}, "val_images missing"),
        ({"val_images": IMAGES[:4], "val_labels": LABELS[:3]}, "4 val_images, but 3 val_labels"),
        ({"val_images": IMAGES[:4], "val_labels": LABELS[:4] + 9}, "val_labels: found 4 unusable labels"),
        ({"val_images": IMAGES[:4, :, :3], "val_labels": LABELS[:4]}, "train_images and val_images differ in shape"),
        ({"val_images": IMAGES[:4] * 16.0, "val_labels": LABELS[:4]}, "val_images: found floats from"),
    ):
        with pytest.raises(DataError, match=expected):
            load(**rest, **wrong)
