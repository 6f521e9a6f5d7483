"""Own pictures: torchvision's folder convention, the fixed test part, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset, split_of
from ensemble.errors import DataError

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def write_pictures(root: Path, per_class: int = 10, size: tuple[int, int] = (12, 8), suffix: str = "png") -> None:
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            Image.new("RGB", size, tuple(min(255, c + i) for c in colour)).save(root / name / f"{i:02d}.{suffix}")


def folder(root: Path, **keys: object) -> DataConfig:
    return DataConfig(name="image_folder", root=str(root), **{"image_size": 8, **keys})


def test_classes_and_order_are_torchvisions(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "green" / "deeper").mkdir()
    Image.new("RGB", (9, 9), (0, 255, 77)).save(tmp_path / "green" / "deeper" / "x.JPG")
    (tmp_path / "green" / "Thumbs.db").write_bytes(b"not a picture")
    data = load_dataset(folder(tmp_path, test_fraction=0.3))
    theirs = ImageFolder(str(tmp_path))
    assert list(data.class_names) == theirs.classes == ["blue", "green", "red"]
    labels = np.concatenate([data.train_labels_N, data.test_labels_N])
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(theirs.targets))
    assert data.image_shape == (3, 8, 8)
    for images, numbers in (
        (data.train_images_NCHW, data.train_labels_N),
        (data.test_images_NCHW, data.test_labels_N),
    ):
        brightest = images[:, :, 4, 4].argmax(1)  # blue is channel 2, green 1, red 0
        np.testing.assert_array_equal(brightest, 2 - numbers)
    assert data.name == f"{tmp_path.name} (image_folder)"
    assert not data.train_images_NCHW.flags.writeable


def test_test_part_is_stratified_and_stays_when_pictures_are_added(tmp_path):
    write_pictures(tmp_path, per_class=20)
    before = load_dataset(folder(tmp_path))
    np.testing.assert_array_equal(np.bincount(before.test_labels_N), [4, 4, 4])
    again = load_dataset(folder(tmp_path))
    np.testing.assert_array_equal(before.test_images_NCHW, again.test_images_NCHW)
    Image.new("RGB", (8, 8), (99, 99, 255)).save(tmp_path / "blue" / "new.png")
    after = load_dataset(folder(tmp_path))
    held = [{image.tobytes() for image in data.test_images_NCHW} for data in (before, after)]
    assert len(held[0] & held[1]) >= 11


def test_given_parts_are_used(tmp_path):
    write_pictures(tmp_path / "train")
    write_pictures(tmp_path / "test", per_class=2)
    for path in (tmp_path / "test" / "green").iterdir():
        path.unlink()
    (tmp_path / "test" / "green").rmdir()
    data = load_dataset(folder(tmp_path, channels=1))
    assert len(data.train_labels_N) == 30
    np.testing.assert_array_equal(data.test_labels_N, [0, 0, 2, 2])
    assert data.image_shape == (1, 8, 8)
    assert data.test_images_NCHW[0, 0, 0, 0] == 29  # pure blue by ITU-R 601: 0.114 * 255
    with pytest.raises(DataError, match=r"test_fraction: found 0\.5, but .*test is the test part"):
        load_dataset(folder(tmp_path, test_fraction=0.5))
    (tmp_path / "val" / "blue").mkdir(parents=True)
    with pytest.raises(DataError, match="val: found no folder of green, red; expected one of every class"):
        load_dataset(folder(tmp_path))


@pytest.mark.parametrize("given", [("train", "val"), ("train", "valid", "test"), ("Training", "Validation", "Testing")])
def test_a_given_validation_part_is_the_one_to_choose_by(given, tmp_path):
    counts = dict(zip(given, (10, 3, 2), strict=False))
    for name, count in counts.items():
        write_pictures(tmp_path / name, count, suffix="bmp")
    data = load_dataset(folder(tmp_path))
    tests = 6  # two of each class, given or a fifth of ten held back
    assert (len(data.train_labels_N), len(data.test_labels_N)) == (30 + 9 - (0 if len(given) == 3 else tests), tests)
    for seed in (0, 1):
        split = split_of(data, folder(tmp_path), seed)
        files = [data.train_files[row] for row in split.validation_rows]
        assert [Path(file).parts[0] for file in files] == [given[1]] * 9
        assert not {data.train_files[row] for row in split.train_rows} & set(files)
        assert len(split.train_rows) + 9 == len(data.train_labels_N)


def test_a_class_may_be_called_train(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "red").rename(tmp_path / "train")
    assert load_dataset(folder(tmp_path)).class_names == ("blue", "green", "train")


def test_middle_of_a_wide_picture_is_kept(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = np.zeros((8, 24), np.uint8)
            pixels[:, 8:16] = 200 + i
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    data = load_dataset(folder(tmp_path, channels=1))
    assert data.train_images_NCHW.min() >= 200


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "red" / "bad.png").write_bytes(b"hello"), "1 of 31 pictures cannot be used"),
        (lambda root: (root / "red" / "bad.png").write_bytes(b""), "found an empty file"),
        (lambda root: (root / "purple").mkdir(), "no pictures in purple"),
        (lambda root: [p.unlink() for p in sorted((root / "red").iterdir())[2:]], "red has 2.*expected at least 3"),
    ],
)
def test_faults_are_named(tmp_path, spoil, message):
    write_pictures(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=f"(?s){message}"):
        load_dataset(folder(tmp_path))


def test_missing_and_empty_roots(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        load_dataset(folder(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="found none; expected at least two folders"):
        load_dataset(folder(tmp_path))


def test_classes_only_in_the_test_part_are_refused(tmp_path):
    write_pictures(tmp_path / "train")
    write_pictures(tmp_path / "test", per_class=1)
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "rde")
    with pytest.raises(DataError, match=r"does not have: 'rde'; expected only .*; rename these folders"):
        load_dataset(folder(tmp_path))
