"""The MNIST family on disk: what is read, and what is said about every sort of damage."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from ensemble.config.schema import DataConfig
from ensemble.data import DATASETS, load_dataset
from ensemble.errors import DataError

# MNIST itself is known by its digests, so generated files can only stand for the others.
GENERATED = ["fashion_mnist", "kmnist", "emnist_digits", "emnist_letters", "qmnist"]
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def offline(root: Path, name: str = "fashion_mnist") -> DataConfig:
    return DataConfig(name=name, root=str(root), download=False)


@pytest.fixture
def fashion(tmp_path, write_dataset):
    """The folder of a sound Fashion-MNIST, to be damaged."""
    write_dataset("fashion_mnist")
    return tmp_path / "FashionMNIST" / "raw"


def refusal(root: Path, name: str = "fashion_mnist") -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(offline(root, name))
    return str(caught.value)


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", GENERATED)
def test_every_layout_is_read_upright_and_from_zero(tmp_path, write_dataset, name, gz):
    drawn = write_dataset(name, gz=gz)
    dataset = load_dataset(offline(tmp_path, name))
    assert dataset.name == name
    assert dataset.class_names == DATASETS[name].class_names
    assert dataset.num_classes == len(dataset.class_names)
    assert dataset.image_shape == (1, 28, 28)
    np.testing.assert_array_equal(dataset.train_images_NCHW[:, 0], drawn["train_images"])
    np.testing.assert_array_equal(dataset.test_images_NCHW[:, 0], drawn["test_images"])
    np.testing.assert_array_equal(dataset.train_labels_N, drawn["train_labels"])
    np.testing.assert_array_equal(dataset.test_labels_N, drawn["test_labels"])


@pytest.mark.parametrize("name", GENERATED)
def test_arrays_are_contiguous_read_only_and_typed(tmp_path, write_dataset, name):
    write_dataset(name)
    dataset = load_dataset(offline(tmp_path, name))
    for images in (dataset.train_images_NCHW, dataset.test_images_NCHW):
        assert images.dtype == np.uint8
        assert images.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            images[0] = 0
    for labels in (dataset.train_labels_N, dataset.test_labels_N):
        assert labels.dtype == np.int64
        with pytest.raises(ValueError, match="read-only"):
            labels[0] = 0


def test_plain_file_is_preferred_to_the_packed_one(tmp_path, fashion, write_dataset):
    (fashion / f"{TRAIN_IMAGES}.gz").write_bytes(b"not gzip")
    assert len(load_dataset(offline(tmp_path)).train_labels_N) == 60


def test_missing_files_are_all_named_with_what_to_do(tmp_path, fashion):
    (fashion / TRAIN_IMAGES).unlink()
    (fashion / "t10k-labels-idx1-ubyte").unlink()
    message = refusal(tmp_path)
    assert str(fashion / TRAIN_IMAGES) in message
    assert str(fashion / "t10k-labels-idx1-ubyte") in message
    assert str(fashion / TRAIN_LABELS) not in message
    for advice in ("data.root", "ENSEMBLE_DATA", "data.download=true", str(tmp_path)):
        assert advice in message


def test_truncated_file(tmp_path, fashion):
    path = fashion / TRAIN_IMAGES
    os.truncate(path, 1000)
    message = refusal(tmp_path)
    assert f"{path}: found 1000 bytes; expected 47056 bytes for the 60 x 28 x 28 images of its header" in message


def test_trailing_bytes(tmp_path, fashion):
    with (fashion / TRAIN_LABELS).open("ab") as file:
        file.write(b"\0\0\0")
    assert "found 71 bytes; expected 68 bytes for the 60 labels" in refusal(tmp_path)


def test_file_shorter_than_its_header(tmp_path, fashion):
    os.truncate(fashion / TRAIN_IMAGES, 7)
    assert "found 7 bytes; expected an idx header of 16 bytes" in refusal(tmp_path)


def test_empty_file(tmp_path, fashion):
    os.truncate(fashion / TRAIN_LABELS, 0)
    assert "found 0 bytes; expected an idx header of 8 bytes" in refusal(tmp_path)


def test_header_that_promises_more_than_memory_can_hold(tmp_path, fashion):
    path = fashion / TRAIN_IMAGES
    path.write_bytes(bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(100))
    assert "4294967295 x 4294967295 x 4294967295 images" in refusal(tmp_path)


def test_truncated_gzip(tmp_path, write_dataset):
    write_dataset("fashion_mnist", gz=True)
    path = tmp_path / "FashionMNIST" / "raw" / f"{TRAIN_IMAGES}.gz"
    os.truncate(path, 500)
    message = refusal(tmp_path)
    assert f"{path}: found 500 bytes that do not unpack" in message
    assert "expected a complete gzip file" in message


def test_damaged_gzip_body(tmp_path, write_dataset):
    write_dataset("fashion_mnist", gz=True)
    path = tmp_path / "FashionMNIST" / "raw" / f"{TRAIN_IMAGES}.gz"
    content = bytearray(path.read_bytes())
    content[2000:2020] = bytes(20)
    path.write_bytes(content)
    assert "do not unpack" in refusal(tmp_path)


def test_wrong_magic_number(tmp_path, fashion):
    path = fashion / TRAIN_IMAGES
    path.write_bytes((fashion / TRAIN_LABELS).read_bytes())
    message = refusal(tmp_path)
    assert "found magic number 2049 (0x00000801); expected 2051 (0x00000803, images)" in message


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_web_page_instead_of_data(tmp_path, fashion, suffix):
    (fashion / TRAIN_IMAGES).unlink()
    path = fashion / (TRAIN_IMAGES + suffix)
    path.write_bytes(b"\n<!DOCTYPE html><html><body>Please log in</body></html>")
    message = refusal(tmp_path)
    assert f"{path}: found a web page (HTML)" in message


def test_labels_out_of_range_show_the_first_five(tmp_path, fashion, encode_idx):
    labels = (np.arange(60) % 10).astype(np.uint8)
    labels[[3, 8, 20, 30, 40, 50]] = [10, 11, 255, 12, 13, 14]
    (fashion / TRAIN_LABELS).write_bytes(encode_idx(labels))
    message = refusal(tmp_path)
    assert "6 labels out of range (row 3: 10, row 8: 11, row 20: 255, row 30: 12, row 40: 13)" in message
    assert "expected labels from 0 to 9" in message


def test_letters_count_from_one(tmp_path, write_dataset, encode_idx):
    write_dataset("emnist_letters")
    path = tmp_path / "EMNIST" / "raw" / "emnist-letters-train-labels-idx1-ubyte"
    path.write_bytes(encode_idx(np.zeros(60, np.uint8)))
    message = refusal(tmp_path, "emnist_letters")
    assert "60 labels out of range (row 0: 0," in message
    assert "expected labels from 1 to 26" in message


def test_counts_that_differ_name_both_files(tmp_path, fashion, encode_idx):
    (fashion / TRAIN_LABELS).write_bytes(encode_idx((np.arange(59) % 10).astype(np.uint8)))
    message = refusal(tmp_path)
    assert f"{fashion / TRAIN_IMAGES}: found 60 images; expected 59" in message
    assert f"{fashion / TRAIN_LABELS}: found 59 labels; expected 60" in message


def test_other_image_size(tmp_path, fashion, encode_idx):
    (fashion / TRAIN_IMAGES).write_bytes(encode_idx(np.zeros((60, 28, 20), np.uint8)))
    assert "found images of 28x20 pixels; expected 28x28" in refusal(tmp_path)


def test_no_images(tmp_path, fashion, encode_idx):
    (fashion / TRAIN_IMAGES).write_bytes(encode_idx(np.zeros((0, 28, 28), np.uint8)))
    assert "found no images; expected at least one" in refusal(tmp_path)


def test_mnist_of_the_right_form_but_other_content_is_refused(tmp_path, write_dataset):
    write_dataset("mnist")
    message = refusal(tmp_path, "mnist")
    assert message.count("found SHA-256") == 4
    assert "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db, that of the original file" in message


def test_several_damaged_files_are_reported_at_once(tmp_path, fashion):
    os.truncate(fashion / TRAIN_IMAGES, 1000)
    os.truncate(fashion / "t10k-images-idx3-ubyte", 1000)
    assert refusal(tmp_path).count("found 1000 bytes") == 2


def test_without_download_a_damaged_file_is_left_as_it_is(tmp_path, fashion):
    os.truncate(fashion / TRAIN_IMAGES, 1000)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in fashion.iterdir())
    refusal(tmp_path)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in fashion.iterdir()) == before


def test_qmnist_labels_need_their_table(tmp_path, write_dataset, encode_idx):
    write_dataset("qmnist")
    path = tmp_path / "QMNIST" / "raw" / "qmnist-test-labels-idx2-int"
    path.write_bytes(encode_idx(np.zeros(30, np.uint8)))
    assert "expected 3074 (0x00000c02, labels)" in refusal(tmp_path, "qmnist")


def test_real_mnist(mnist_root):
    dataset = load_dataset(DataConfig(name="mnist", root=str(mnist_root), download=False))
    assert dataset.train_images_NCHW.shape == (60_000, 1, 28, 28)
    assert dataset.test_images_NCHW.shape == (10_000, 1, 28, 28)
    assert dataset.train_labels_N[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.test_labels_N[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(dataset.test_labels_N).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_one_flipped_bit_of_real_mnist_is_found(mnist_root, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for path in (mnist_root / "MNIST" / "raw").iterdir():
        if path.name == "t10k-labels-idx1-ubyte":
            content = bytearray(path.read_bytes())
            content[5000] ^= 1
            (folder / f"{path.name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / path.name).symlink_to(path)
    message = refusal(tmp_path, "mnist")
    assert message.count("found SHA-256") == 1
    assert "t10k-labels-idx1-ubyte.gz: found SHA-256" in message
