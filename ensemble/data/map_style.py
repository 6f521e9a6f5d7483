"""PyTorch data sets as arrays: anything with a length and `[row]` that gives (image, class number).

    arrays = arrays_of(train, test)               # as `dataset_of_arrays` takes them
    arrays = given_arrays({"train": train}, "data")    # whatever people give in place of a file

A data set is asked for each row once. Random transforms belong into `training.augmentation`: what they gave that one time would stay.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.data.given_array import as_array
from ensemble.errors import ConfigError, DataError
from ensemble.outside.long_work import working
from ensemble.types import IntArray

# The parts by the names that people give them, and their names in an .npz file.
PARTS = {"train": "train", "validation": "val", "test": "test"}
EXPECTED = "a data set with a length, whose rows are (image, class number)"


def is_map_style(data: object) -> bool:
    """True for what PyTorch calls a map-style data set, for a list of (image, class number), and for nothing that is an array or
    another sequence of Python's.
    """
    if isinstance(data, list | tuple):
        return _is_list_of_rows(data)
    if isinstance(data, str | bytes | Sequence | Mapping | np.ndarray) or not hasattr(data, "__getitem__"):
        return False
    return hasattr(data, "__len__") and not hasattr(data, "dtype")


def _is_list_of_rows(data: Sequence[Any]) -> bool:
    """By the first of them: a pair whose second is one whole number, and whose first is none."""
    first = data[0] if len(data) else None
    return isinstance(first, list | tuple) and len(first) == 2 and _is_number(first[1]) and not _is_number(first[0])


def _is_number(value: Any) -> bool:
    try:
        operator.index(value)  # also an integer of numpy, and an array or tensor of one
    except TypeError:
        return False
    return True


def given_arrays(data: Any, where: str) -> dict[str, npt.NDArray[Any]] | None:
    """Arrays by the names they have in an .npz file, of whatever form they are given in; None for no such thing.

    A data set, or (training images, labels), alone, as a pair with the test part, or by the names train, validation and test; four
    arrays in a row; or a mapping with the names of an .npz file. Raises ConfigError for other names or numbers of parts.
    """
    if is_map_style(data):
        return arrays_of(data)
    if isinstance(data, Mapping):
        if "train_images" in data:
            return {str(name): as_array(array, str(name)) for name, array in data.items()}
        if "train" not in data and not any(map(is_map_style, data.values())):
            return None
        if "train" not in data or set(data) - set(PARTS):
            raise ConfigError(
                f"{where}: found data sets by the names {', '.join(map(str, data))}; expected train and, if there is one, test (and validation)"
            )
        return _of_parts(data, where)
    if not isinstance(data, tuple | list):
        return None
    if len(data) == 2 and all(map(is_map_style, data)):
        return arrays_of(*data)
    if len(data) not in (2, 4):
        raise ConfigError(
            f"{where}: found {len(data)} arrays; expected (train_images, train_labels) or (train_images, train_labels, test_images, test_labels)"
        )
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return {name: as_array(array, name) for name, array in zip(names, data, strict=False)}


def arrays_of(train: Any, test: Any = None, validation: Any = None) -> dict[str, npt.NDArray[Any]]:
    """The images and labels of these parts, by the names of an .npz file, with class names where the data set tells them (`classes`).

    A row may also be a mapping with image (or img) and label, as Hugging Face's data sets give it. An image is a PIL picture, or an array or tensor [H, W], [C, H, W] or [H, W, C], all of one shape and type. Raises DataError
    naming the row at fault.
    """
    return _of_parts({"train": train, "test": test, "validation": validation}, "data")


def _of_parts(data: Mapping[str, Any], where: str) -> dict[str, npt.NDArray[Any]]:
    """The parts by their names, each a data set or (images, labels)."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, part in data.items():
        if part is None:
            continue
        if is_map_style(part):
            images, labels_N = _read(part, name)
        elif isinstance(part, tuple | list) and len(part) == 2:
            images, labels_N = (
                as_array(each, f"{where}: {what} of {name}")
                for each, what in zip(part, ("images", "labels"), strict=True)
            )
        else:
            raise ConfigError(f"{where}: {name}: found {type(part).__name__}; expected {EXPECTED}, or (images, labels)")
        arrays[f"{PARTS[name]}_images"], arrays[f"{PARTS[name]}_labels"] = images, labels_N
    names = getattr(data["train"], "classes", None)
    if isinstance(names, Sequence) and not isinstance(names, str) and len(names) > int(arrays["train_labels"].max()):
        arrays["class_names"] = np.array([str(name) for name in names])
    return arrays


def _read(data: Any, part: str) -> tuple[npt.NDArray[Any], IntArray]:
    count = len(data)
    if not count:
        raise DataError(f"data ({part}): found no rows; expected {EXPECTED}")
    images: npt.NDArray[Any] | None = None
    labels_N = np.empty(count, np.int64)
    with working(f"reading the {part} data set", count) as done:
        for row in range(count):
            image, labels_N[row] = _row(data, part, row)
            if images is None:
                images = np.empty((count, *image.shape), image.dtype)
            if image.shape != images.shape[1:] or image.dtype != images.dtype:
                raise DataError(
                    f"data ({part}), row {row}: found an image of {image.dtype} {image.shape}, but row 0 is {images.dtype} {images.shape[1:]}; "
                    "expected one shape and type: bring all to one size in the data set's transform"
                )
            images[row] = image
            done()
    assert images is not None
    return images, labels_N


def _row(data: Any, part: str, row: int) -> tuple[npt.NDArray[Any], int]:
    try:
        found = data[row]
    except Exception as error:  # the data set is not ours
        raise DataError(
            f"data ({part}), row {row}: cannot be read, and the data set must give every row: {type(error).__name__}: {error}"
        ) from error
    if isinstance(found, Mapping):  # of Hugging Face's data sets
        found = [found[key] for key in ("image", "img", "label") if key in found]
    if not isinstance(found, tuple | list) or len(found) != 2:
        keys = f" with {', '.join(map(str, data[row]))}" if isinstance(data[row], Mapping) else ""
        raise DataError(
            f"data ({part}), row {row}: found {type(data[row]).__name__}{keys}; expected (image, class number), or image and label by these names"
        )
    image, label = found
    if isinstance(getattr(image, "mode", None), str) and hasattr(image, "convert"):
        image = _picture(image)
    try:
        pixels = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    except (TypeError, ValueError) as error:  # such as torch.bfloat16
        raise DataError(
            f"data ({part}), row {row}: the image is no array: {error}; expected bytes or floats in [0, 1]"
        ) from error
    if pixels.dtype == object or pixels.ndim not in (2, 3):
        raise DataError(
            f"data ({part}), row {row}: found {type(image).__name__} of shape {pixels.shape}; expected a picture, or an array [H, W], [C, H, W] or [H, W, C]"
        )
    number = label.item() if hasattr(label, "item") and np.asarray(label).size == 1 else label
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 31:
        raise DataError(
            f"data ({part}), row {row}: found the label {label!r}; expected the number of a class, from 0 (a target_transform can give it)"
        )
    return pixels, number


def _picture(image: Any) -> Any:
    """A PIL picture whose values can be taken as they are: grey, colour, or wider numbers; transparent parts lie on white."""
    from ensemble.data.pictures import Decoded, plain
    from ensemble.data.pixel_rule import PixelRule

    if image.mode in ("L", "RGB", "F") or image.mode.startswith("I"):
        return image
    return plain(Decoded("picture", image, None, None, 1), PixelRule())
