"""Images and labels that are arrays, by the names they have in an .npz file, as the parts of a data set.

    parts = parts_of_arrays({"train_images": ..., "train_labels": ...}, Path("mine.npz"), config)
    outline = Outline.of(arrays, path, config)       # the same but for the pixels, which `prepared_arrays` reads in blocks

train_images: [N, H, W], [N, H, W, C] or [N, C, H, W] (see `channel_axis`; data.layout), whole numbers or floats in
[0, 1] (see `pixel_rule`; data.value_range). train_labels: [N], whole numbers from 0 where class_names says what they
mean; without it any numbers or texts, whose sorted distinct values are the classes. Without test arrays a fixed test
part is split off. With val_images and val_labels these are the validation part, as in the files of MedMNIST.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.config.data import DataConfig, Layout
from ensemble.data.account import Account, PartAccount, Remark, used_by_class
from ensemble.data.channel_axis import described, to_channels_first
from ensemble.data.duplicates import looked_through
from ensemble.data.own_parts import Part, Parts, held_back
from ensemble.data.picture_reading import level_remarks, range_remark
from ensemble.data.pixel_rule import BYTES, Extremes, PixelRule, check_floats, whole_range
from ensemble.data.regular_files import shown
from ensemble.errors import DataError
from ensemble.types import ByteArray, IntArray

Arrays = Mapping[str, npt.NDArray[Any]]
NEEDED = ("train_images", "train_labels")
BLOCK_VALUES = 1 << 20  # that are scaled at a time
OPTIONAL = ("test_images", "test_labels", "val_images", "val_labels", "class_names")


def is_images(name: str) -> bool:
    """Whether an array of this name holds images, by the form of names."""
    return name.endswith("_images")


def check_names(path: Path, found: Collection[str]) -> None:
    """Raises DataError for arrays that are missing, or that nobody would read."""
    missing = [name for name in NEEDED if name not in found]
    for part in ("test", "val"):
        if (f"{part}_images" in found) != (f"{part}_labels" in found):
            missing.append(f"{part}_labels" if f"{part}_images" in found else f"{part}_images")
    if missing:
        names = ", ".join(sorted(found)) or "nothing"
        raise DataError(f"{shown(path)}: {', '.join(missing)} missing; found {names}")
    if unknown := sorted(set(found) - {*NEEDED, *OPTIONAL}):
        raise DataError(
            f"{shown(path)}: unknown arrays {', '.join(unknown)}; expected {', '.join(NEEDED)} and, if wanted, {', '.join(OPTIONAL)}"
        )


def parts_of_arrays(arrays: Arrays, path: Path, config: DataConfig) -> Parts:
    """Training and test part of arrays by their names. path: where they are from, for messages. Raises DataError."""
    outline = Outline.of(arrays, path, config)
    values = {name: outline.channels_first(name, arrays[name]) for name in outline.types}
    rule = outline.rule
    if rule is None:
        own = values["train_images"]
        rule = outline.rule_for(Extremes.of(own if outline.test_N is None else own[~outline.test_N]))
    found, images = dict[str, Extremes](), dict[str, ByteArray]()
    for name, array in values.items():
        found[name] = Extremes.of(array)
        outline.check(name, found[name], rule)
        images[name] = scaled(array, rule)
    train, test = images["train_images"], images.get("test_images")
    if outline.test_N is not None:
        train, test = train[~outline.test_N], train[outline.test_N]
    assert test is not None, "without a test part one is held back"
    levels = int(train.min()), int(train.max())
    if "val_images" in images:
        train = np.concatenate([train, images["val_images"]])
    parts = outline.parts(train, test, rule, outline.remarks(found, rule, levels))
    return looked_through(parts, config.array_rule.duplicates == "leave_out", shown(path))


def scaled(values: npt.NDArray[Any], rule: PixelRule) -> ByteArray:
    """Values as bytes by the rule of the file, [N, C, H, W]; some at a time, since whole numbers are scaled in double precision."""
    if values.dtype == np.uint8 and rule.wide_range == BYTES:
        return values
    levels, rows = np.empty(values.shape, np.uint8), max(1, BLOCK_VALUES // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        block = values[start : start + rows]
        # Small numbers are on the scale of wider ones.
        levels[start : start + rows] = rule.to_bytes(block.astype(np.uint16) if block.dtype == np.uint8 else block)
    return levels


@dataclass(frozen=True, eq=False)
class Outline:
    """All that is known of the arrays of a file without their pixels, checked.

    layouts: which axis holds the channels, by array; None of grey images without such an axis. types: of the pixels, by array, in the
    order of reading. test_N: which training images are held back to test; None where a test part is given.
    """

    path: Path
    config: DataConfig
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    layouts: Mapping[str, Layout | None]
    types: Mapping[str, np.dtype[Any]]
    labels_N: Mapping[str, IntArray]
    test_N: npt.NDArray[np.bool_] | None

    @classmethod
    def of(cls, arrays: Arrays, path: Path, config: DataConfig) -> Outline:
        """Of arrays by their names, of whose images only shape and type are looked at. Raises DataError."""
        given = config.array_rule
        class_names, train_labels_N = _classes(path, arrays)
        training, layout = _values(path, arrays, "train_images", given.layout)
        _same_length(path, "train", training, train_labels_N)
        if "test_images" in arrays and given.test_fraction is not None:
            raise DataError(
                f"data.test_fraction: found {given.test_fraction}, but {shown(path)} holds test_images; remove one"
            )
        layouts = {"train_images": layout if arrays["train_images"].ndim == 4 else None}
        types, labels_N = {"train_images": training.dtype}, {"train": train_labels_N}
        for part in ("test", "val"):
            name = f"{part}_images"
            if name not in arrays:
                continue
            layouts[name] = layout if arrays[name].ndim == 4 else None
            values, _ = _values(path, arrays, name, layouts[name])
            labels_N[part] = _labels(path, arrays, f"{part}_labels", class_names)
            _same_length(path, part, values, labels_N[part])
            types[name] = values.dtype
            if values.shape[1:] != training.shape[1:]:
                raise DataError(
                    f"{shown(path)}: train_images and {name} differ in shape: {training.shape[1:]} and "
                    f"{values.shape[1:]} (channels, height, width); expected the same"
                )
        rows = [str(row) for row in range(len(train_labels_N))]
        test_N = None if "test_images" in arrays else held_back(train_labels_N, rows, class_names, config)
        _, channels, height, width = training.shape
        return cls(path, config, class_names, (channels, height, width), layouts, types, labels_N, test_N)

    def channels_first(self, name: str, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Images of an array, all or some rows of them, as [N, C, H, W], whatever their type; a view."""
        return to_channels_first(images, self.layouts[name], f"{shown(self.path)}: {name}", "data.layout")[0]

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many training images there are without those of a validation part, how many of that, and how many to test."""
        validation = len(self.labels_N.get("val", ()))
        if self.test_N is None:
            return len(self.labels_N["train"]), validation, len(self.labels_N["test"])
        test = int(self.test_N.sum())
        return len(self.test_N) - test, validation, test

    @property
    def rule(self) -> PixelRule | None:
        """The rule for all images of the file; None where it depends on the largest training value, see `rule_for`."""
        given, dtype = self.config.array_rule, self.types["train_images"]
        rule = PixelRule(value_range=given.value_range, ground=given.ground or "white")
        if given.value_range is not None or dtype.kind not in "iu":
            return rule
        return replace(rule, wide_range=BYTES) if dtype == np.uint8 else None

    def rule_for(self, training: Extremes) -> PixelRule:
        """The rule for wide whole numbers. Raises DataError for negative ones."""
        wide = whole_range(training, f"{shown(self.path)}: train_images")
        return PixelRule(ground=self.config.array_rule.ground or "white", wide_range=wide)

    def check(self, name: str, found: Extremes, rule: PixelRule) -> None:
        """Raises DataError for values of an array that the rule has no place for."""
        where, dtype = f"{shown(self.path)}: {name}", self.types[name]
        if found.floats:
            check_floats(found, rule.value_range, where)
        elif dtype.kind in "iu" and rule.exceeded(found, dtype) and rule.wide_range == BYTES:
            raise DataError(
                f"{where}: found whole numbers from {found.low:g} to {found.high:g}, but those of train_images lie in 0..255; "
                "expected the same scale, or data.value_range=[LOW,HIGH]"
            )

    def remarks(self, found: Mapping[str, Extremes], rule: PixelRule, levels: tuple[int, int]) -> list[Remark]:
        """What is said of the pixels. levels: the darkest and the brightest of the training images."""
        return [
            *(
                range_remark(name, found[name], rule, dtype)
                for name, dtype in self.types.items()
                if name != "val_images" and _is_told(dtype, rule)
            ),
            *level_remarks(*levels),
        ]

    def parts(
        self,
        train_NCHW: ByteArray,
        test_NCHW: ByteArray,
        rule: PixelRule,
        remarks: Sequence[Remark],
        duplicates: Mapping[str, IntArray] | None = None,
    ) -> Parts:
        """The parts of these images. duplicates: by part the rows of its array that were left out of it."""
        left_out = dict(duplicates or {})
        train_N = test_N = self.labels_N["train"]
        if self.test_N is not None:
            train_N, test_N = train_N[~self.test_N], test_N[self.test_N]
        else:
            test_N = self.labels_N["test"]
        named = [("train", train_N), ("test", test_N)]
        validation_rows = None
        if (validation_N := self.labels_N.get("val")) is not None:
            named.insert(1, ("validation", validation_N))
            train_N, count = np.concatenate([train_N, validation_N]), len(train_N)
            validation_rows = np.arange(count, len(train_N) - len(left_out.get("validation", ())))
        nothing = np.empty(0, np.int64)
        layout = self.layouts["train_images"]
        form = Remark(f"images of {described(self.image_shape)}" + (f" ({layout})" if layout is not None else ""))
        held_back_text = f"{len(test_N):,} of the images are held back as the test part (data.test_fraction)"
        account = Account(
            tuple(PartAccount(name, used_by_class(own_N.tolist(), self.class_names)) for name, own_N in named),
            (
                form,
                *([Remark(held_back_text)] if self.test_N is not None else []),
                *remarks,
            ),
            {part: len(rows) for part, rows in left_out.items()},
        )
        return Parts(
            Part(train_NCHW, np.delete(train_N, left_out.get("validation", nothing))),
            Part(test_NCHW, np.delete(test_N, left_out.get("test", nothing))),
            self.class_names,
            # Of pictures wider ones have their own.
            rule if rule.wide_range != BYTES else replace(rule, wide_range=None),
            account,
            validation_rows,
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


def _is_told(dtype: np.dtype[Any], rule: PixelRule) -> bool:
    """Whether values of this type were scaled from another range than that of bytes, or floats that of a person's."""
    return rule.value_range is not None or (dtype.kind in "iu" and rule.range_of(dtype) != BYTES)


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
