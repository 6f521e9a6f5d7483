"""PyTorch data sets from Python: the arrays they are, and every odd row named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

import ensemble
from ensemble.data.map_style import arrays_of, given_arrays, is_map_style
from ensemble.data.pixel_rule import PixelRule
from ensemble.errors import ConfigError, DataError
from ensemble.inference.images import as_batch

LABELS_N = np.arange(40) % 3
IMAGES_NHWC = np.random.default_rng(0).integers(0, 256, (40, 8, 10, 3)).astype(np.uint8)
GREY_NHW = IMAGES_NHWC[..., 0]


class Rows:
    """A data set of these rows; `classes` only where they are given."""

    def __init__(self, rows: list[Any], classes: Any = None) -> None:
        self.rows = rows
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        return self.rows[row]


def rows_as(kind: str) -> Any:
    pairs = list(zip(IMAGES_NHWC, LABELS_N.tolist(), strict=True))
    if kind == "pictures":
        return Rows([(Image.fromarray(image), label) for image, label in pairs])
    if kind == "mappings":
        return Rows([{"img": Image.fromarray(image), "label": label} for image, label in pairs])
    if kind == "tensors":
        return TensorDataset(torch.from_numpy(IMAGES_NHWC).permute(0, 3, 1, 2), torch.from_numpy(LABELS_N))
    return Subset(Rows([(image, np.int32(label)) for image, label in pairs]), range(40))


def test_a_list_of_rows_is_a_data_set() -> None:
    pairs = [(Image.fromarray(image), label) for image, label in zip(IMAGES_NHWC, LABELS_N.tolist(), strict=True)]
    expected = arrays_of(Rows(pairs), Rows(pairs[:9]))
    for form in (list, tuple):
        for rows in (form(pairs), form([list(pair) for pair in pairs])):
            for given in ((rows, rows[:9]), [rows, rows[:9]], {"train": rows, "test": rows[:9]}):
                found = given_arrays(given, "data")
                assert found is not None
                assert set(found) == set(expected)
                for name in expected:
                    np.testing.assert_array_equal(found[name], expected[name])
    alone = given_arrays(pairs, "data")
    assert alone is not None
    np.testing.assert_array_equal(alone["train_images"], IMAGES_NHWC)
    two = given_arrays(pairs[:2], "data")
    assert two is not None, "a list of two rows is no pair of parts"
    np.testing.assert_array_equal(two["train_labels"], LABELS_N[:2])


@pytest.mark.parametrize(
    "other", [[], [1, 2], [[1, 2], [3, 4]], [IMAGES_NHWC, LABELS_N], [list(IMAGES_NHWC[:2]), [0, 1]], [("a", "b")]]
)
def test_other_lists_are_none(other: Any) -> None:
    assert not is_map_style(other)


@pytest.mark.parametrize("kind", ["pictures", "mappings", "tensors", "a part of one"])
def test_every_form_gives_the_same_arrays(kind):
    arrays = arrays_of(rows_as(kind), rows_as(kind))
    for part in ("train", "test"):
        images = arrays[f"{part}_images"]
        expected = IMAGES_NHWC.transpose(0, 3, 1, 2) if kind == "tensors" else IMAGES_NHWC
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(arrays[f"{part}_labels"], LABELS_N)
    assert set(arrays) == {"train_images", "train_labels", "test_images", "test_labels"}


def test_names_of_classes_are_taken_where_they_fit():
    rows = list(zip(GREY_NHW, LABELS_N.tolist(), strict=True))
    assert arrays_of(Rows(rows, ["cat", "dog", "eel"]))["class_names"].tolist() == ["cat", "dog", "eel"]
    for wrong in (["cat", "dog"], "cde", 3):
        assert "class_names" not in arrays_of(Rows(rows, wrong))


def test_what_is_a_data_set_and_what_is_not():
    assert is_map_style(rows_as("tensors"))
    assert is_map_style(rows_as("pictures"))
    for other in (GREY_NHW, torch.zeros(3), [1, 2], (1, 2), {"train": 1}, "mnist", b"x", None, 3, {1, 2}):
        assert not is_map_style(other)


def trained(tmp_path, name: str, data: Any) -> Any:
    return ensemble.train(
        data=data, model="mlp", method="bagging", num_members=2, name=name, output_dir=tmp_path,
        training={"epochs": 2, "batch_size": 8}, compute={"executor": "inline"},
    )  # fmt: skip


def test_training_on_data_sets_is_training_on_their_arrays(tmp_path):
    held_out = TensorDataset(torch.from_numpy(GREY_NHW[:12].copy()), torch.from_numpy(LABELS_N[:12]))
    whole = TensorDataset(torch.from_numpy(GREY_NHW), torch.from_numpy(LABELS_N))
    trained(tmp_path, "arrays", (GREY_NHW, LABELS_N, GREY_NHW[:12], LABELS_N[:12]))
    for name, data in (("pair", (whole, held_out)), ("names", {"train": whole, "test": held_out})):
        trained(tmp_path, name, data)
        for member in (0, 1):
            mine, theirs = (
                (tmp_path / each / f"members/000{member}/votes.npz").read_bytes() for each in (name, "arrays")
            )
            assert mine == theirs
    trained(tmp_path, "alone", whole)
    with np.load(tmp_path / "alone/labels.npz") as labels:
        assert len(labels["test_labels_N"]) == 9  # a fifth of each class is held back
        assert len(labels["train_labels_N"]) == 31


def test_floats_of_a_transform_are_read_and_normalised_ones_refused(tmp_path):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(IMAGES_NHWC[i]).save(tmp_path / "photos" / name / f"{i}.png")
    plain = ImageFolder(str(tmp_path / "photos"), Compose([Resize((8, 8)), ToTensor()]))
    arrays = arrays_of(plain)
    assert arrays["train_images"].shape == (20, 3, 8, 8)
    assert arrays["class_names"].tolist() == ["a", "b"]
    trained(tmp_path, "plain", plain)
    shifted = ImageFolder(str(tmp_path / "photos"), Compose([Resize((8, 8)), ToTensor(), Normalize(0.5, 0.5)]))
    with pytest.raises(DataError, match=r"floats from -.*expected \[0, 1\]"):
        trained(tmp_path, "shifted", shifted)
    with pytest.raises(DataError, match=r"row 1: found an image of float32 .*, but row 0 is"):
        arrays_of(Rows([(np.zeros((8, 8), np.float32), 0), (np.zeros((8, 9), np.float32), 1)]))


ODD = {
    "no pair": ((GREY_NHW[0],), "expected .image, class number."),
    "text for a label": ((GREY_NHW[0], "cat"), "found the label 'cat'"),
    "negative label": ((GREY_NHW[0], -1), "found the label -1"),
    "fraction": ((GREY_NHW[0], 0.5), "found the label 0.5"),
    "truth": ((GREY_NHW[0], True), "found the label True"),
    "an endless label": ((GREY_NHW[0], 2**70), "found the label 1180591620717411303424"),
    "half floats of another kind": ((torch.zeros(8, 10, dtype=torch.bfloat16), 0), "the image is no array"),
    "a mapping of other names": ({"pixels": GREY_NHW[0], "label": 0}, "found dict with pixels, label"),
    "no image": (("cat.png", 0), "found str of shape"),
    "a vector": ((GREY_NHW[0, 0], 0), "found ndarray of shape"),
    "a mapping without labels": ({"image": GREY_NHW[0]}, "found dict with image; expected"),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_rows_are_named(odd):
    row, expected = ODD[odd]
    with pytest.raises(DataError, match=rf"data \(train\), row 1: .*{expected}"):
        arrays_of(Rows([(GREY_NHW[0], 0), row]))


def test_pictures_of_other_modes_keep_what_they_show():
    levels = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    wide = (np.arange(64).reshape(8, 8) * 900).astype(np.int32)
    for image, expected in (
        (Image.fromarray(levels), levels),
        (Image.fromarray(wide), wide),
        (Image.fromarray(wide.astype(np.uint16)), wide),
        (Image.fromarray(GREY_NHW[0] > 127), np.where(GREY_NHW[0] > 127, 255, 0)),
        (Image.fromarray(IMAGES_NHWC[0]).convert("P", palette=Image.Palette.ADAPTIVE, colors=256), IMAGES_NHWC[0]),
    ):
        np.testing.assert_array_equal(arrays_of(Rows([(image, 0)]))["train_images"][0], expected)
    clear = Image.fromarray(np.concatenate([IMAGES_NHWC[0], np.zeros((8, 10, 1), np.uint8)], 2), "RGBA")
    assert (arrays_of(Rows([(clear, 0)]))["train_images"] == 255).all()


def test_failing_and_empty_data_sets_are_named():
    with pytest.raises(DataError, match=r"data \(train\): found no rows"):
        arrays_of(Rows([]))

    class Failing(Rows):
        def __getitem__(self, row: int) -> Any:
            raise OSError("disk gone")

    with pytest.raises(
        DataError,
        match=r"data \(test\), row 0: cannot be read, and the data set must give every row: OSError: disk gone",
    ):
        arrays_of(rows_as("pictures"), Failing([1]))
    with pytest.raises(ConfigError, match="found data sets by the names train, val; expected train"):
        ensemble.train(data={"train": rows_as("pictures"), "val": rows_as("pictures")})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([np.zeros((8, 8)), np.zeros((9, 9))], "found entries of several shapes; expected one shape for all"),
        ([[1, 2], [3]], "found entries of several shapes"),
        (torch.zeros(2, 8, 8, requires_grad=True), "no array can be made of it: .*requires grad"),
    ],
    ids=["images of two sizes", "ragged lists", "a tensor with gradients"],
)
def test_what_is_no_array_is_named(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in (
        {"train_images": given, "train_labels": [0, 1]},
        (given, [0, 1]),
        {"train": (given, [0, 1])},
    ):
        with pytest.raises(DataError, match=rf"(train_images|images of train): {said}"):
            ensemble.train(data=data)
    with pytest.raises(DataError, match=rf"images: {said}"):
        as_batch(given, (1, 8, 8))


def test_bytes_beyond_a_range_of_bytes_are_cut_off_as_those_of_pictures_are() -> None:
    rule = PixelRule(value_range=(10.0, 240.0))
    levels = np.array([0, 10, 125, 240, 255], np.uint8).reshape(1, 1, 1, 5)
    assert as_batch(levels, (1, 1, 5), rule).ravel().tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(DataError, match=r"from -3 to 125; expected 10 to 240, as this ensemble was trained$"):
        as_batch(np.array([-3, 125], np.int16).reshape(1, 1, 1, 2), (1, 1, 2), rule)
