"""SVHN and STL-10 from files of the published form, with the sums of generated files in place of the published ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import STL10, SVHN

from ensemble.config.schema import DataConfig
from ensemble.data import DATASETS, load_dataset
from ensemble.errors import DataError


def svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images [N, C, H, W] and labels of both parts, written as MATLAB keeps them: X [32, 32, 3, N], y [N, 1] with 10 for a zero."""
    generator, drawn, listed = np.random.default_rng(0), {}, dict(SVHN.split_list)
    for part, count in (("train", 40), ("test", 20)):
        images = generator.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
        labels = np.arange(count) % 10
        path = root / f"{part}_32x32.mat"
        numbers = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": numbers}, do_compression=True)
        listed[part] = [SVHN.split_list[part][0], path.name, hashlib.md5(path.read_bytes()).hexdigest()]
        drawn[part] = (images, labels)
    monkeypatch.setattr(SVHN, "split_list", listed)
    return drawn


def test_house_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = svhn(tmp_path, monkeypatch)
    dataset = load_dataset(DataConfig(name="svhn", root=str(tmp_path), download=False))
    for images, labels, part in (
        (dataset.train_images_NCHW, dataset.train_labels_N, "train"),
        (dataset.test_images_NCHW, dataset.test_labels_N, "test"),
    ):
        np.testing.assert_array_equal(images, drawn[part][0])
        np.testing.assert_array_equal(labels, drawn[part][1])
    assert dataset.train_images_NCHW.flags.c_contiguous
    assert not dataset.flippable
    (tmp_path / "test_32x32.mat").write_bytes(b"<html>")
    with pytest.raises(
        DataError,
        match=rf"(?s){tmp_path}/test_32x32\.mat: found a web page.*put the original files into {tmp_path}, or",
    ):
        load_dataset(DataConfig(name="svhn", root=str(tmp_path), download=False))


def stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Written as published: each channel column by column, classes from 1; and torchvision's list without the images of no class."""
    folder = root / "stl10_binary"
    folder.mkdir()
    generator, drawn = np.random.default_rng(1), {}
    for part, count in (("train", 20), ("test", 30)):
        images = generator.integers(0, 256, (count, 3, 96, 96)).astype(np.uint8)
        labels = np.arange(count) % 10
        (folder / f"{part}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{part}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
        sums = [[f.name, hashlib.md5(f.read_bytes()).hexdigest()] for f in sorted(folder.glob(f"{part}_?.bin"))]
        monkeypatch.setattr(STL10, f"{part}_list", sums)
        drawn[part] = (images, labels)
    (folder / "class_names.txt").write_text("".join(f"{name}\n" for name in DATASETS["stl10"].class_names))
    return drawn


def test_photographs_of_ten_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = stl10(tmp_path, monkeypatch)
    dataset = load_dataset(DataConfig(name="stl10", root=str(tmp_path), download=False))
    np.testing.assert_array_equal(dataset.train_images_NCHW, drawn["train"][0])
    np.testing.assert_array_equal(dataset.test_labels_N, drawn["test"][1])
    theirs = STL10(str(tmp_path), split="test")
    np.testing.assert_array_equal(dataset.test_images_NCHW, theirs.data)
    np.testing.assert_array_equal(dataset.test_labels_N, theirs.labels)
    assert tuple(theirs.classes) == dataset.class_names
    (tmp_path / "stl10_binary/train_y.bin").unlink()
    with pytest.raises(DataError, match=r"stl10_binary/train_y\.bin: found no such file"):
        load_dataset(DataConfig(name="stl10", root=str(tmp_path), download=False))


@pytest.mark.parametrize("name", ["svhn", "stl10", "cifar100"])
def test_missing_files_are_all_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as error:
        load_dataset(DataConfig(name=name, root=str(tmp_path), download=False))
    for file in {
        "svhn": ["train_32x32.mat", "test_32x32.mat"],
        "stl10": ["train_X.bin", "test_y.bin"],
        "cifar100": ["train", "meta"],
    }[name]:
        assert f"{file}: found no such file" in str(error.value)
