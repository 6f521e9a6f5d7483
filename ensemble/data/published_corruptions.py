"""MNIST-C and CIFAR-10-C as they were published, where somebody has the files.

parts = published_parts("mnist_c", Path("mnist_c"), dataset.test_labels_N, (1, 28, 28))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from ensemble.data.corruptions import RECIPES, Corruption
from ensemble.errors import DataError
from ensemble.types import ByteArray, IntArray

FROST = "frost"  # of which there is a file, but no recipe that could be drawn
SEVERITIES = 5


def published_parts(
    recipe: Literal["mnist_c", "cifar10_c"], folder: Path, labels_N: IntArray, image_shape: tuple[int, int, int]
) -> list[tuple[Corruption, ByteArray]]:
    """Every part of the benchmark and its images [N, C, H, W], mapped from the files.

    labels_N: of the test images that the files must belong to, in their order. Raises DataError naming the file that is missing, of
    another form, or of other images.
    """
    parts = _mnist_c(folder, labels_N) if recipe == "mnist_c" else _cifar10_c(folder, labels_N)
    for corruption, images in parts:
        if images.shape != (len(labels_N), *image_shape):
            raise DataError(
                f"{folder}: {corruption.label}: found images of {list(images.shape)}; expected {[len(labels_N), *image_shape]}, as the run's test images"
            )
    return parts


def _mnist_c(folder: Path, labels_N: IntArray) -> list[tuple[Corruption, ByteArray]]:
    found = []
    for corruption in RECIPES["mnist_c"]:
        place = folder / corruption.name.rpartition("/")[2]
        _require_labels(_array(place / "test_labels.npy"), labels_N, place / "test_labels.npy")
        found.append((corruption, _channels_first(_array(place / "test_images.npy"), place)))
    return found


def _cifar10_c(folder: Path, labels_N: IntArray) -> list[tuple[Corruption, ByteArray]]:
    labels = _array(folder / "labels.npy")
    _require_labels(labels, np.tile(labels_N, SEVERITIES), folder / "labels.npy")
    found = []
    for name in (*dict.fromkeys(one.name for one in RECIPES["cifar10_c"]), f"cifar10_c/{FROST}"):
        file = folder / f"{name.rpartition('/')[2]}.npy"
        images, rows = _channels_first(_array(file), file), len(labels_N)
        if len(images) != SEVERITIES * rows:
            raise DataError(f"{file}: found {len(images):,} images; expected {SEVERITIES} severities of {rows:,}")
        for severity in range(1, SEVERITIES + 1):
            found.append((Corruption(name, severity), images[(severity - 1) * rows : severity * rows]))
    return found


def _array(file: Path) -> npt.NDArray[np.generic]:
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(
            f"{file}: not there; expected a file of the published benchmark, or no key files, which draws the corruptions"
        ) from error
    except Exception as error:  # damaged files make numpy raise nearly anything
        raise DataError(f"{file}: cannot be read: {error}; expected an array as the benchmark was published") from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{file}: found an archive of arrays; expected a single one")
    return found


def _channels_first(array: npt.NDArray[np.generic], file: Path) -> ByteArray:
    """Images [N, H, W] or [N, H, W, C] as [N, C, H, W]; a view."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise DataError(f"{file}: found {array.dtype} {list(array.shape)}; expected bytes [N, H, W] or [N, H, W, C]")
    return cast(ByteArray, array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2))


def _require_labels(found: npt.NDArray[np.generic], expected: IntArray | Sequence[int], file: Path) -> None:
    if not np.array_equal(found, expected):
        raise DataError(
            f"{file}: its labels are not those of the run's test images, in their order; expected the benchmark of that data set"
        )
