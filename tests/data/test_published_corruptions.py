"""The published benchmarks' files: every part in its place, and what does not belong to the run's images refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.data.corruptions import RECIPES
from ensemble.data.published_corruptions import published_parts
from ensemble.errors import DataError

LABELS = np.arange(20) % 10


def mnist_c(folder: Path) -> Path:
    """Files as MNIST-C has them, every image of a constant that tells the corruption."""
    for k, corruption in enumerate(RECIPES["mnist_c"]):
        place = folder / corruption.name.removeprefix("mnist_c/")
        place.mkdir(parents=True)
        np.save(place / "test_images.npy", np.full((20, 28, 28, 1), k, np.uint8))
        np.save(place / "test_labels.npy", LABELS)
    return folder


def cifar10_c(folder: Path) -> Path:
    """As CIFAR-10-C has them: five severities behind each other, every image of a constant that tells severity and place."""
    names = [*dict.fromkeys(one.name.removeprefix("cifar10_c/") for one in RECIPES["cifar10_c"]), "frost"]
    for name in names:
        constants = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
        np.save(folder / f"{name}.npy", np.broadcast_to(constants, (100, 32, 32, 3)))
    np.save(folder / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))
    return folder


def test_mnist_c(tmp_path):
    parts = published_parts("mnist_c", mnist_c(tmp_path), LABELS, (1, 28, 28))
    assert [corruption for corruption, _ in parts] == list(RECIPES["mnist_c"])
    for k, (_, images) in enumerate(parts):
        assert images.shape == (20, 1, 28, 28)
        assert (images == k).all()


def test_cifar10_c_and_its_severities(tmp_path):
    parts = published_parts("cifar10_c", cifar10_c(tmp_path), LABELS, (3, 32, 32))
    assert len(parts) == 75
    assert [corruption.label for corruption, _ in parts[-5:]] == [f"frost {severity}" for severity in range(1, 6)]
    for corruption, images in parts:
        np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(20) + 20 * (int(corruption.level) - 1))


def test_what_does_not_belong_is_named(tmp_path):
    with pytest.raises(DataError, match=r"shot_noise/test_labels\.npy: not there; expected a file of the published"):
        published_parts("mnist_c", tmp_path, LABELS, (1, 28, 28))
    folder = mnist_c(tmp_path / "m")
    with pytest.raises(DataError, match="its labels are not those of the run's test images"):
        published_parts("mnist_c", folder, LABELS[::-1].copy(), (1, 28, 28))
    with pytest.raises(DataError, match=r"found images of \[20, 1, 28, 28\]; expected \[20, 1, 32, 32\]"):
        published_parts("mnist_c", folder, LABELS, (1, 32, 32))
    (folder / "fog/test_images.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"fog/test_images\.npy: cannot be read"):
        published_parts("mnist_c", folder, LABELS, (1, 28, 28))
    np.save(folder / "fog/test_images.npy", np.zeros((20, 28, 28), np.float32))
    with pytest.raises(DataError, match=r"found float32 \[20, 28, 28\]; expected bytes"):
        published_parts("mnist_c", folder, LABELS, (1, 28, 28))
