"""The division of training rows into those that members are fitted to, those that choose, and those that calibrate.

    split = split_rows(labels_N, num_classes, config.data, seed)

The same seed always divides the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ensemble import seeding
from ensemble.config.data import DataConfig
from ensemble.data.grouping import grouped, lacking, whole_groups
from ensemble.data.picture_tree import few
from ensemble.errors import DataError
from ensemble.types import IntArray

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of the training array for fitting, for choosing and for calibration: ascending, distinct and disjoint."""

    train_rows: IntArray
    validation_rows: IntArray
    calibration_rows: IntArray = field(default_factory=lambda: np.empty(0, np.int64))


def split_rows(
    labels_N: IntArray,
    num_classes: int,
    config: DataConfig,
    seed: int,
    class_names: Sequence[str] = (),
    validation_rows: IntArray | None = None,
    groups_N: IntArray | None = None,
) -> Split:
    """Divides the training rows by class, as validation_fraction, calibration_fraction and max_train_rows say.

    All parts hold every class, in proportion (largest remainders); max_train_rows thins the training part only, so that runs
    with fewer rows are judged on the same validation rows.
    class_names: for messages. validation_rows: those that are given for it; then none is drawn. groups_N: number of each row's
    group; groups are drawn whole, so that the parts hold the classes nearly in proportion. Raises DataError when a class is too
    rare for all parts.
    """
    counts_K = np.bincount(labels_N, minlength=num_classes)
    names = class_names or [str(k) for k in range(num_classes)]
    if rare := [f"class {names[k]} has {count}" for k, count in enumerate(counts_K) if count < 2]:
        raise DataError(
            f"data set {config.name}: training and validation each need an image of every class; found "
            f"{few(rare)} training images, expected at least 2 of each. Add images of these classes, or leave the classes out"
        )
    generator = seeding.split_generator(seed)
    validation_N = _given_or_grouped(labels_N, num_classes, config, generator, names, validation_rows, groups_N)
    if validation_N is None:
        validation = max(round(config.validation_fraction * len(labels_N)), num_classes)
        validation_K = np.minimum(_shares(counts_K, validation), counts_K - 1)
    else:
        validation_K = np.bincount(labels_N[validation_N], minlength=num_classes)
    calibration_N = _calibration_groups(labels_N, num_classes, config, generator, names, validation_N, groups_N)
    if calibration_N is None:
        calibration_K = _calibration_counts(config, counts_K, counts_K - validation_K, names)
    else:
        calibration_K = np.bincount(labels_N[calibration_N], minlength=num_classes)
    train_K = _thinned(counts_K - validation_K - calibration_K, config)
    parts: tuple[list[IntArray], ...] = ([], [], [])
    for k in range(num_classes):
        rows = generator.permutation(np.flatnonzero(labels_N == k))
        if validation_N is not None:
            rows = np.concatenate([rows[validation_N[rows]], rows[~validation_N[rows]]])
        held_out, rest = np.split(rows, [validation_K[k]])
        if calibration_N is not None:
            rest = np.concatenate([rest[~calibration_N[rest]], rest[calibration_N[rest]]])
        trained, calibration = np.split(rest, [len(rest) - calibration_K[k]])
        for part, own in zip(parts, (trained[: train_K[k]], held_out, calibration), strict=True):
            part.append(own)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


def _given_or_grouped(
    labels_N: IntArray,
    num_classes: int,
    config: DataConfig,
    generator: np.random.Generator,
    names: Sequence[str],
    validation_rows: IntArray | None,
    groups_N: IntArray | None,
) -> Mask | None:
    """The validation rows that are given, or whole groups; None where they are drawn one by one."""
    if validation_rows is not None:
        chosen_N = np.zeros(len(labels_N), bool)
        chosen_N[validation_rows] = True
    elif groups_N is not None:
        wanted_K = np.maximum(np.round(config.validation_fraction * np.bincount(labels_N, minlength=num_classes)), 1)
        order_G = generator.permutation(int(groups_N.max()) + 1)
        chosen_N = whole_groups(labels_N, groups_N, order_G, wanted_K.astype(np.int64))
    else:
        return None
    if lost := lacking(labels_N, chosen_N, num_classes):
        together = "whole groups (data.group_column)" if grouped(config) else "all rows of a file together"
        what = "the given validation part" if validation_rows is not None else together
        raise DataError(
            f"data set {config.name}: training and validation each need an image of every class, but with {what} one of them has "
            f"none of {few([names[k] for k in lost])}; add images of these classes, or divide the data in another way"
        )
    return chosen_N


def _calibration_groups(
    labels_N: IntArray,
    num_classes: int,
    config: DataConfig,
    generator: np.random.Generator,
    names: Sequence[str],
    validation_N: Mask | None,
    groups_N: IntArray | None,
) -> Mask | None:
    """Whole groups of calibration rows among those that validation leaves; None where they are drawn one by one, or not at all."""
    if not config.calibration_fraction or groups_N is None:
        return None
    taken_N = np.zeros(len(labels_N), bool) if validation_N is None else validation_N
    order_G = generator.permutation(int(groups_N.max()) + 1)
    order_G = order_G[~np.isin(order_G, groups_N[taken_N])]
    wanted_K = np.maximum(np.round(config.calibration_fraction * np.bincount(labels_N, minlength=num_classes)), 1)
    chosen_N = whole_groups(labels_N, groups_N, order_G, wanted_K.astype(np.int64))
    if lost := lacking(labels_N[~taken_N], chosen_N[~taken_N], num_classes):
        raise DataError(
            f"data set {config.name}: training and calibration each need an image of every class, but with "
            f"{'whole groups (data.group_column)' if grouped(config) else 'all rows of a file together'} one of them has none of {few([names[k] for k in lost])}; add images of these classes, or leave "
            "data.calibration_fraction out"
        )
    return chosen_N


def _calibration_counts(config: DataConfig, counts_K: IntArray, left_K: IntArray, names: Sequence[str]) -> IntArray:
    """Calibration rows of each class. counts_K: all rows. left_K: those that validation leaves, of which one must stay."""
    if not config.calibration_fraction:
        return np.zeros_like(left_K)
    wanted_K = _shares(counts_K, max(round(config.calibration_fraction * int(counts_K.sum())), len(counts_K)))
    if short := [f"class {names[k]} has {left_K[k]}" for k in np.flatnonzero(wanted_K >= left_K).tolist()]:
        raise DataError(
            f"data set {config.name}: data.calibration_fraction is {config.calibration_fraction:g}, but beside the validation rows "
            f"{few(short)} training images, of which none would be left to train on; choose smaller fractions, or add images"
        )
    return wanted_K


def _thinned(counts_K: IntArray, config: DataConfig) -> IntArray:
    """Training rows of each class, at most data.max_train_rows in all."""
    if config.max_train_rows is None:
        return counts_K
    if config.max_train_rows < len(counts_K):
        raise DataError(
            f"data.max_train_rows: found {config.max_train_rows}, expected at least {len(counts_K)}, one training "
            f"image of every class of {config.name}"
        )
    thinned_K: IntArray = np.minimum(_shares(counts_K, min(config.max_train_rows, int(counts_K.sum()))), counts_K)
    return thinned_K


def _shares(counts_K: IntArray, total: int) -> IntArray:
    """`total` divided in proportion to counts_K, whole, at least 1 each: floors, then the largest remainders."""
    ideal_K = total * counts_K / counts_K.sum()
    shares_K: IntArray = np.maximum(np.floor(ideal_K).astype(np.int64), 1)
    for _ in range(int(shares_K.sum()) - total):  # classes lifted to 1 are paid for by the largest
        shares_K[np.argmax(shares_K)] -= 1
    left = total - int(shares_K.sum())
    shares_K[np.argsort(-(ideal_K - shares_K), kind="stable")[:left]] += 1
    return shares_K
