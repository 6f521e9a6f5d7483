"""Images and labels that are arrays, by the names they have in an .npz file, as the parts of a data set.

    parts = parts_of_arrays({"train_images": ..., "train_labels": ...}, Path("mine.npz"), config)

train_images: [N, H, W], [N, H, W, C] or [N, C, H, W] (see `channel_axis`; data.layout), whole numbers or floats in
[0, 1] (see `pixel_rule`; data.value_range). train_labels: [N], whole numbers from 0 where class_names says what they
mean; without it any numbers or texts, whose sorted distinct values are the classes. Without test arrays a fixed test
part is split off. With val_images and val_labels these are the validation part, as in the files of MedMNIST.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.config.data import ArrayRule, DataConfig, Layout
from ensemble.data.account import Account, PartAccount, Remark, used_by_class
from ensemble.data.channel_axis import described, to_channels_first
from ensemble.data.duplicates import looked_through
from ensemble.data.own_parts import Part, Parts, held_back, parts_of
from ensemble.data.picture_reading import level_remarks, range_remark
from ensemble.data.pixel_rule import BYTES, Extremes, PixelRule, check_floats, whole_range
from ensemble.data.regular_files import shown
from ensemble.errors import DataError
from ensemble.types import IntArray

Arrays = Mapping[str, npt.NDArray[Any]]
NEEDED = ("train_images", "train_labels")
OPTIONAL = ("test_images", "test_labels", "val_images", "val_labels", "class_names")


def check_names(path: Path, arrays: Arrays) -> None:
    """Raises DataError for arrays that are missing, or that nobody would read."""
    names = ", ".join(sorted(arrays)) or "nothing"
    missing = [name for name in NEEDED if name not in arrays]
    for part in ("test", "val"):
        if (f"{part}_images" in arrays) != (f"{part}_labels" in arrays):
            missing.append(f"{part}_labels" if f"{part}_images" in arrays else f"{part}_images")
    if missing:
        raise DataError(f"{shown(path)}: {', '.join(missing)} missing; found {names}")
    if unknown := sorted(arrays.keys() - {*NEEDED, *OPTIONAL}):
        raise DataError(
            f"{shown(path)}: unknown arrays {', '.join(unknown)}; expected {', '.join(NEEDED)} and, if wanted, {', '.join(OPTIONAL)}"
        )


def parts_of_arrays(arrays: Arrays, path: Path, config: DataConfig) -> Parts:
    """Training and test part of arrays by their names. path: where they are from, for messages. Raises DataError."""
    return looked_through(_parts(arrays, path, config), config.array_rule.duplicates == "leave_out", shown(path))


def _parts(arrays: Arrays, path: Path, config: DataConfig) -> Parts:
    if "val_images" in arrays:
        return _with_validation(arrays, path, config)
    given = config.array_rule
    class_names, train_labels_N = _classes(path, arrays)
    values, layout = _values(path, arrays, "train_images", given.layout)
    _same_length(path, "train", values, train_labels_N)
    if "test_images" not in arrays:
        test_N = held_back(train_labels_N, [str(row) for row in range(len(train_labels_N))], class_names, config)
        rule = _rule(path, values[~test_N], given)
        train, test = parts_of(_bytes(path, "train_images", values, rule), train_labels_N, test_N)
        split = [Remark(f"{len(test.labels_N):,} of the images are held back as the test part (data.test_fraction)")]
        found = {"train_images": values}
    else:
        if given.test_fraction is not None:
            raise DataError(
                f"data.test_fraction: found {given.test_fraction}, but {shown(path)} holds test_images; remove one"
            )
        test_values, _ = _values(path, arrays, "test_images", layout if arrays["test_images"].ndim == 4 else None)
        test_labels_N = _labels(path, arrays, "test_labels", class_names)
        _same_length(path, "test", test_values, test_labels_N)
        if values.shape[1:] != test_values.shape[1:]:
            raise DataError(
                f"{shown(path)}: train_images and test_images differ in shape: {values.shape[1:]} and "
                f"{test_values.shape[1:]} (channels, height, width); expected the same"
            )
        rule = _rule(path, values, given)
        train = Part(_bytes(path, "train_images", values, rule), train_labels_N)
        test = Part(_bytes(path, "test_images", test_values, rule), test_labels_N)
        found, split = {"train_images": values, "test_images": test_values}, []
    account = Account(
        (
            PartAccount("train", used_by_class(train.labels_N.tolist(), class_names)),
            PartAccount("test", used_by_class(test.labels_N.tolist(), class_names)),
        ),
        (
            Remark(f"images of {described(values)}" + (f" ({layout})" if arrays["train_images"].ndim == 4 else "")),
            *split,
            *_range_remarks(found, rule),
            *level_remarks(int(train.images_NCHW.min()), int(train.images_NCHW.max())),
        ),
    )
    kept = rule if rule.wide_range != BYTES else replace(rule, wide_range=None)  # of pictures wider ones have their own
    return Parts(train, test, class_names, kept, account)


def _with_validation(arrays: Arrays, path: Path, config: DataConfig) -> Parts:
    """The parts where a validation part is given: it follows the training images, which lose a test part where none is given."""
    parts = _parts({k: array for k, array in arrays.items() if not k.startswith("val_")}, path, config)
    training, layout = _values(path, arrays, "train_images", config.array_rule.layout)
    values, _ = _values(path, arrays, "val_images", layout if arrays["val_images"].ndim == 4 else None)
    labels_N = _labels(path, arrays, "val_labels", parts.class_names)
    _same_length(path, "val", values, labels_N)
    if values.shape[1:] != training.shape[1:]:
        raise DataError(
            f"{shown(path)}: train_images and val_images differ in shape: {training.shape[1:]} and {values.shape[1:]} (channels, "
            "height, width); expected the same"
        )
    rule, count = parts.pixels, len(parts.train.labels_N)
    if rule.value_range is None and rule.wide_range is None and training.dtype.kind in "iu":
        rule = replace(rule, wide_range=BYTES)  # which is not kept with a run
    images = np.concatenate([parts.train.images_NCHW, _bytes(path, "val_images", values, rule)])
    own, *others = parts.account.parts
    validation = PartAccount("validation", used_by_class(labels_N.tolist(), parts.class_names))
    return replace(
        parts,
        train=Part(images, np.concatenate([parts.train.labels_N, labels_N])),
        validation_rows=np.arange(count, count + len(labels_N)),
        account=replace(parts.account, parts=(own, validation, *others)),
    )


def _values(path: Path, arrays: Arrays, name: str, layout: Layout | None) -> tuple[npt.NDArray[Any], Layout]:
    """The images as [N, C, H, W], whatever their type, and how their axes were read."""
    images = arrays[name]
    where = f"{shown(path)}: {name}"
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(
            f"{where}: found shape {images.shape}; expected [N, H, W], [N, H, W, C] or [N, C, H, W] with at least one image"
            + ("; for rows of features use ensemble.EnsembleClassifier" if images.ndim == 2 else "")
        )
    if images.dtype.kind not in "biuf":
        raise DataError(f"{where}: found type {images.dtype}; expected whole numbers, or floats in [0, 1]")
    return to_channels_first(images, layout, where, "data.layout")


def _rule(path: Path, values: npt.NDArray[Any], given: ArrayRule) -> PixelRule:
    """The rule for all images of the file, chosen from the training images."""
    rule = PixelRule(value_range=given.value_range, ground=given.ground or "white")
    if given.value_range is not None or values.dtype.kind not in "iu":
        return rule
    wide = BYTES if values.dtype == np.uint8 else whole_range(Extremes.of(values), f"{shown(path)}: train_images")
    return replace(rule, wide_range=wide)


def _bytes(path: Path, name: str, values: npt.NDArray[Any], rule: PixelRule) -> npt.NDArray[np.uint8]:
    where, found = f"{shown(path)}: {name}", Extremes.of(values)
    if values.dtype == np.uint8 and rule.wide_range != BYTES:  # small numbers on the scale of wider ones
        values = values.astype(np.uint16)
    if found.floats:
        check_floats(found, rule.value_range, where)
    elif values.dtype.kind in "iu" and rule.exceeded(found, values.dtype) and rule.wide_range == BYTES:
        raise DataError(
            f"{where}: found whole numbers from {found.low:g} to {found.high:g}, but those of train_images lie in 0..255; "
            "expected the same scale, or data.value_range=[LOW,HIGH]"
        )
    return rule.to_bytes(values)


def _range_remarks(found: Mapping[str, npt.NDArray[Any]], rule: PixelRule) -> list[Remark]:
    """Where values were scaled: from which range."""
    said = []
    for name, values in found.items():
        if (values.dtype.kind in "iu" and rule.range_of(values.dtype) != BYTES) or rule.value_range is not None:
            said.append(range_remark(name, Extremes.of(values), rule, values.dtype))
    return said


def _classes(path: Path, arrays: Arrays) -> tuple[tuple[str, ...], IntArray]:
    """The names of the classes and the training labels as class numbers."""
    labels = arrays["train_labels"]
    if "class_names" in arrays:
        given = arrays["class_names"]
        if given.dtype.kind not in "iuU":
            raise DataError(f"{shown(path)}: class_names: found type {given.dtype}; expected texts, one per class")
        names = tuple(str(name) for name in given.ravel())
    else:
        _check_label_type(path, "train_labels", labels)
        names = tuple(str(value) for value in np.unique(labels))
    if len(set(names)) != len(names) or len(names) < 2:
        raise DataError(f"{shown(path)}: found the classes {', '.join(names[:10])}; expected at least two, each once")
    return names, _labels(path, arrays, "train_labels", names)


def _labels(path: Path, arrays: Arrays, name: str, class_names: tuple[str, ...]) -> IntArray:
    """Class numbers: the labels themselves where class_names was given, else the rank of their value."""
    labels = arrays[name]
    _check_label_type(path, name, labels)
    if "class_names" not in arrays:
        values = np.unique(arrays["train_labels"])
        if labels.dtype.kind != values.dtype.kind and "U" in labels.dtype.kind + values.dtype.kind:
            raise DataError(
                f"{shown(path)}: train_labels are of type {values.dtype}, {name} of {labels.dtype}; expected one type"
            )
        numbers = np.searchsorted(values, labels).clip(0, len(values) - 1)
        wrong = np.flatnonzero(values[numbers] != labels)
        expected = "values that train_labels has"
    elif labels.dtype.kind == "U":
        raise DataError(f"{shown(path)}: {name}: found texts; expected whole numbers, since class_names is given")
    else:
        numbers = labels
        wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
        expected = f"0 to {len(class_names) - 1}, the positions in class_names"
    if len(wrong):
        examples = ", ".join(f"row {row}: {labels[row]}" for row in wrong[:5])
        raise DataError(f"{shown(path)}: {name}: found {len(wrong)} unusable labels ({examples}); expected {expected}")
    return numbers.astype(np.int64)


def _check_label_type(path: Path, name: str, labels: npt.NDArray[Any]) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{shown(path)}: {name}: found type {labels.dtype} of shape {labels.shape}; expected whole numbers or texts, shape [N]"
        )


def _same_length(path: Path, name: str, images: npt.NDArray[Any], labels_N: IntArray) -> None:
    if len(images) != len(labels_N):
        raise DataError(
            f"{shown(path)}: {len(images)} {name}_images, but {len(labels_N)} {name}_labels; expected as many"
        )
