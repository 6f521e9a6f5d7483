"""`data.name: arrays`: images and labels in one .npz file.

    numpy.savez("mine.npz", train_images=..., train_labels=..., test_images=..., test_labels=..., class_names=[...])

train_images: [N, H, W], [N, H, W, C] or [N, C, H, W] (the channels are the shorter axis), uint8 or floats in [0, 1].
train_labels: [N], whole numbers from 0 where class_names says what they mean; without it any numbers or texts, whose
sorted distinct values are the classes. Without test arrays a fixed test part is split off. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.config.schema import DataConfig
from ensemble.data.own_parts import Part, Parts, divided
from ensemble.errors import DataError
from ensemble.types import ByteArray, IntArray

Arrays = Mapping[str, npt.NDArray[Any]]
NEEDED, OPTIONAL = ("train_images", "train_labels"), ("test_images", "test_labels", "class_names")


def load_array_file(config: DataConfig) -> Parts:
    """Training and test part. Raises DataError naming the file, the array, what was found and expected."""
    assert config.path is not None
    path = Path(config.path).expanduser()
    arrays = _read(path)
    class_names, train_labels_N = _classes(path, arrays)
    train = Part(_images(path, arrays, "train_images"), train_labels_N)
    _same_length(path, "train", train)
    if "test_images" not in arrays:
        return divided(train, [str(row) for row in range(len(train_labels_N))], class_names, config)
    if config.test_fraction is not None:
        raise DataError(f"data.test_fraction: found {config.test_fraction}, but {path} holds test_images; remove one")
    test = Part(_images(path, arrays, "test_images"), _labels(path, arrays, "test_labels", class_names))
    _same_length(path, "test", test)
    if train.images_NCHW.shape[1:] != test.images_NCHW.shape[1:]:
        raise DataError(
            f"{path}: train_images and test_images differ in shape: {train.images_NCHW.shape[1:]} and "
            f"{test.images_NCHW.shape[1:]} (channels, height, width); expected the same"
        )
    return Parts(train, test, class_names)


def _read(path: Path) -> Arrays:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: found a single array; expected an .npz file with {', '.join(NEEDED)}")
        with loaded as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"data.path: no file {path}; expected an .npz file with {', '.join(NEEDED)}") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read as .npz of plain arrays: {error}; write it with numpy.savez, without objects"
        ) from error
    found = ", ".join(sorted(arrays)) or "nothing"
    missing = [name for name in NEEDED if name not in arrays]
    if ("test_images" in arrays) != ("test_labels" in arrays):
        missing.append("test_labels" if "test_images" in arrays else "test_images")
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing; found {found}")
    if unknown := sorted(arrays.keys() - {*NEEDED, *OPTIONAL}):
        raise DataError(
            f"{path}: unknown arrays {', '.join(unknown)}; expected {', '.join(NEEDED)} and, if wanted, {', '.join(OPTIONAL)}"
        )
    return arrays


def _images(path: Path, arrays: Arrays, name: str) -> ByteArray:
    """[N, C, H, W] bytes."""
    images = arrays[name]
    where = f"{path}: {name}"
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(
            f"{where}: found shape {images.shape}; expected [N, H, W], [N, H, W, C] or [N, C, H, W] with at least one image"
            + ("; for rows of features use ensemble.EnsembleClassifier" if images.ndim == 2 else "")
        )
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[3] < images.shape[1]:
        images = images.transpose(0, 3, 1, 2)
    if np.issubdtype(images.dtype, np.floating):
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"{where}: found floats from {low:g} to {high:g}; expected [0, 1], or bytes (uint8) in 0..255"
            )
        images = (images * 255).round().astype(np.uint8)
    elif images.dtype != np.uint8:
        raise DataError(f"{where}: found type {images.dtype}; expected uint8 in 0..255, or floats in [0, 1]")
    return images


def _classes(path: Path, arrays: Arrays) -> tuple[tuple[str, ...], IntArray]:
    """The names of the classes and the training labels as class numbers."""
    labels = arrays["train_labels"]
    if "class_names" in arrays:
        names = tuple(str(name) for name in arrays["class_names"].ravel())
    else:
        _check_label_type(path, "train_labels", labels)
        names = tuple(str(value) for value in np.unique(labels))
    if len(set(names)) != len(names) or len(names) < 2:
        raise DataError(f"{path}: found the classes {', '.join(names[:10])}; expected at least two, each once")
    return names, _labels(path, arrays, "train_labels", names)


def _labels(path: Path, arrays: Arrays, name: str, class_names: tuple[str, ...]) -> IntArray:
    """Class numbers: the labels themselves where class_names was given, else the rank of their value."""
    labels = arrays[name]
    _check_label_type(path, name, labels)
    if "class_names" not in arrays:
        values = np.unique(arrays["train_labels"])
        if labels.dtype.kind != values.dtype.kind and "U" in labels.dtype.kind + values.dtype.kind:
            raise DataError(
                f"{path}: train_labels are of type {values.dtype}, {name} of {labels.dtype}; expected one type"
            )
        numbers = np.searchsorted(values, labels).clip(0, len(values) - 1)
        wrong = np.flatnonzero(values[numbers] != labels)
        expected = "values that train_labels has"
    elif labels.dtype.kind == "U":
        raise DataError(f"{path}: {name}: found texts; expected whole numbers, since class_names is given")
    else:
        numbers = labels
        wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
        expected = f"0 to {len(class_names) - 1}, the positions in class_names"
    if len(wrong):
        examples = ", ".join(f"row {row}: {labels[row]}" for row in wrong[:5])
        raise DataError(f"{path}: {name}: found {len(wrong)} unusable labels ({examples}); expected {expected}")
    return numbers.astype(np.int64)


def _check_label_type(path: Path, name: str, labels: npt.NDArray[Any]) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{path}: {name}: found type {labels.dtype} of shape {labels.shape}; expected whole numbers or texts, shape [N]"
        )


def _same_length(path: Path, name: str, part: Part) -> None:
    if len(part.images_NCHW) != len(part.labels_N):
        raise DataError(
            f"{path}: {len(part.images_NCHW)} {name}_images, but {len(part.labels_N)} {name}_labels; expected as many"
        )
