"""CIFAR-10 and CIFAR-100 batches through torchvision's reader, with the sums of generated batches in place of the published ones."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from ensemble.config.schema import DataConfig
from ensemble.data import DATASETS, load_dataset
from ensemble.errors import DataError


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """Five training batches and a test batch of 20 images; returns (images_NCHW, labels) of each."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    generator = np.random.default_rng(3)
    drawn, sums = [], []
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        images = generator.integers(0, 256, (20, 3, 32, 32)).astype(np.uint8)
        labels = [int(label) for label in generator.integers(0, 10, 20)]
        content = pickle.dumps({"data": images.reshape(20, 3072), "labels": labels})
        (folder / name).write_bytes(content)
        drawn.append((images, labels))
        sums.append([name, hashlib.md5(content).hexdigest()])
    meta = pickle.dumps({"label_names": list("abcdefghij")})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(meta).hexdigest()})
    return drawn


def config(root) -> DataConfig:
    return DataConfig(name="cifar10", root=str(root), download=False)


def test_batches_come_in_order_with_channels_first(tmp_path, batches):
    dataset = load_dataset(config(tmp_path))
    assert dataset.image_shape == (3, 32, 32)
    assert dataset.flippable
    np.testing.assert_array_equal(dataset.train_images_NCHW, np.concatenate([images for images, _ in batches[:5]]))
    np.testing.assert_array_equal(dataset.train_labels_N, np.concatenate([labels for _, labels in batches[:5]]))
    np.testing.assert_array_equal(dataset.test_images_NCHW, batches[5][0])
    assert dataset.test_labels_N.dtype == np.int64
    assert dataset.train_images_NCHW.flags.c_contiguous
    assert not dataset.train_images_NCHW.flags.writeable


def test_damaged_and_missing_batches_are_named(tmp_path, batches):
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "data_batch_2").write_bytes(b"<html></html>")
    (folder / "data_batch_3").write_bytes(b"short")
    (folder / "test_batch").unlink()
    with pytest.raises(DataError) as caught:
        load_dataset(config(tmp_path))
    message = str(caught.value)
    assert f"{folder / 'data_batch_2'}: found a web page (HTML)" in message
    assert f"{folder / 'data_batch_3'}: found 5 bytes with MD5" in message
    assert f"{folder / 'test_batch'}: found no such file" in message
    assert "data_batch_4" not in message


def test_the_hundred_classes_of_cifar100(tmp_path, monkeypatch):
    """The published files hold data, fine_labels, coarse_labels, filenames and batch_label, of which the fine classes are taken."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    generator = np.random.default_rng(4)
    drawn, sums = {}, {}
    for name, count in (("train", 200), ("test", 100)):
        images = generator.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
        labels = np.arange(count) % 100
        content = pickle.dumps({
            "data": images.reshape(count, 3072), "fine_labels": labels.tolist(), "coarse_labels": (labels // 5).tolist(),
            "filenames": [f"{n}.png" for n in range(count)], "batch_label": f"{name} batch 1 of 1",
        })  # fmt: skip
        (folder / name).write_bytes(content)
        drawn[name], sums[name] = (images, labels), [[name, hashlib.md5(content).hexdigest()]]
    names = DATASETS["cifar100"].class_names
    assert len(set(names)) == 100
    assert list(names) == sorted(names)
    meta = pickle.dumps({"fine_label_names": list(names), "coarse_label_names": ["animals"] * 20})
    (folder / "meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR100, "train_list", sums["train"])
    monkeypatch.setattr(CIFAR100, "test_list", sums["test"])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": hashlib.md5(meta).hexdigest()})
    dataset = load_dataset(DataConfig(name="cifar100", root=str(tmp_path), download=False))
    np.testing.assert_array_equal(dataset.train_images_NCHW, drawn["train"][0])
    np.testing.assert_array_equal(dataset.test_labels_N, drawn["test"][1])
    assert dataset.class_names == names
    (folder / "train").write_bytes(b"short")
    with pytest.raises(DataError, match=r"cifar-100-python/train: found 5 bytes with MD5"):
        load_dataset(DataConfig(name="cifar100", root=str(tmp_path), download=False))
