"""What a folder of pictures, a file of arrays or a named set holds, seen quickly: for a first configuration.

survey("photos").image_shape    # (3, 64, 64)

Of a folder only some pictures are opened; training reads all of them, and says what cannot be used.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.data.array_file import ArrayFile
from ensemble.data.catalogue import DATASETS
from ensemble.data.class_folders import find_layout
from ensemble.data.picture_reading import in_threads
from ensemble.data.picture_tree import pictures_below
from ensemble.data.pictures import Decoded, decode, quiet_decoding
from ensemble.data.regular_files import list_folder, shown
from ensemble.errors import DataError
from ensemble.outside.paths import given_path

SAMPLE = 48  # pictures that are opened
SIDES = (64, 48, 32, 28, 24, 16, 8, 4)  # of which the largest is proposed that pictures have
ALIKE = 0.05  # pictures whose proportions differ by no more than this share are of one shape
NEARLY_SQUARE = 1.15  # longer side over shorter one
MOST_PIXELS = 256  # of a longer side that is proposed
_GREY_MODES = ("1", "L", "LA", "I", "F")


@dataclass(frozen=True)
class Survey:
    """data: keys of the data section, as YAML has them. image_shape: (C, H, W). flippable: a mirrored image may keep its class. test_images: None where no test part is given."""

    name: str
    data: dict[str, str | int | list[int]]
    image_shape: tuple[int, int, int]
    num_classes: int
    train_images: int
    test_images: int | None
    flippable: bool = True
    notes: tuple[str, ...] = ()


def survey(source: str) -> Survey:
    """Look at a folder with one folder of pictures per class, at an .npz file, or at a set of `ensemble datasets`.

    Raises DataError for what is none of them, or cannot be trained on.
    """
    info = DATASETS.get(source)
    if info is not None and os.path.isdir(source):  # noqa: PTH112
        raise DataError(
            f"{source} is a data set of `ensemble datasets` and a folder here; write ./{source} for the folder"
        )
    if info is not None:
        rows, tests = info.train_images, info.test_images
        return Survey(source, {"name": source}, info.image_shape, len(info.class_names), rows, tests, info.flippable)
    path = given_path(source, "SOURCE")
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises where the way there may not be looked at
        return _folder(path)
    if path.suffix.lower() == ".npz":
        parts = ArrayFile(name="arrays", path=str(path)).parts()
        shape = parts.train.images_NCHW.shape
        rows, tests = len(parts.train.labels_N), len(parts.test.labels_N)
        data: dict[str, str | int | list[int]] = {"name": "arrays", "path": str(path)}
        return Survey(path.stem, data, (shape[1], shape[2], shape[3]), len(parts.class_names), rows, tests)
    found = "a file that is no .npz" if os.path.exists(path) else "no such file or folder"  # noqa: PTH110
    raise DataError(
        f"{shown(path)}: {found}; expected a folder with one folder of pictures per class, an .npz file with train_images and train_labels, or one of {', '.join(DATASETS)}"
    )


def _folder(root: Path) -> Survey:
    list_folder(root)
    layout = find_layout(root)
    files = {name: pictures_below(folder).files for name, folder in layout.train.items()}
    tests = sum(len(pictures_below(folder).files) for folder in layout.test.values())
    total = sum(map(len, files.values()))
    if len(files) < 2 or not total:
        raise DataError(
            f"{shown(layout.train_root)}: found {len(files)} classes with {total} pictures; expected a folder per class, at least two, with pictures in them"
        )
    opened, notes = _opened([file for each in files.values() for file in _spread(each, max(1, SAMPLE // len(files)))])
    height, width = _size(opened)
    channels = 1 if all(map(_is_grey, opened)) else 3
    data: dict[str, str | int | list[int]] = {
        "name": "image_folder", "root": str(root), "image_size": height if height == width else [height, width],
        "channels": channels,
    }  # fmt: skip
    rare, most = (pick(len(each) for each in files.values()) for pick in (min, max))
    if most >= 3 * max(1, rare):
        notes.append(f"classes are of unequal size: {rare:,} to {most:,} pictures")
    if not all(_alike(_ratio(each), width / height) for each in opened):
        notes.append(
            "of pictures of other proportions the middle is cut out; data.resize: pad keeps all of them between bars, squash distorts them"
        )
    shape = (channels, height, width)
    name = root.resolve().name or "pictures"
    return Survey(name, data, shape, len(files), total, tests if layout.test_root else None, notes=tuple(notes))


def _size(opened: Sequence[Decoded]) -> tuple[int, int]:
    """Height and width to propose: of pictures that are all of one shape, and no square, theirs; else equal.

    The shorter side is the largest of SIDES that pictures have, the longer one a multiple of 4.
    """
    side = int(statistics.median(min(each.picture.size) for each in opened))
    shorter = next((proposed for proposed in SIDES if proposed <= side), SIDES[-1])
    ratio = statistics.median(map(_ratio, opened))
    if not all(_alike(_ratio(each), ratio) for each in opened) or 1 / NEARLY_SQUARE < ratio < NEARLY_SQUARE:
        return shorter, shorter
    longer = min(round(shorter * max(ratio, 1 / ratio) / 4) * 4, MOST_PIXELS)
    return (shorter, longer) if ratio > 1 else (longer, shorter)


def _ratio(decoded: Decoded) -> float:
    """Width over height."""
    width, height = decoded.picture.size
    return width / height


def _alike(ratio: float, other: float) -> bool:
    return abs(math.log(ratio / other)) <= ALIKE


def _spread(files: Sequence[Path], most: int) -> list[Path]:
    """So many of them at equal distances."""
    if len(files) <= most:
        return list(files)
    return [files[number * len(files) // most] for number in range(most)]


def _opened(files: Sequence[Path]) -> tuple[list[Decoded], list[str]]:
    """Those that can be read, and a note about the others. Raises DataError where none can."""

    def attempt(file: Path) -> Decoded | DataError:
        try:
            return decode(file)
        except DataError as error:
            return error

    with quiet_decoding():
        found = in_threads(attempt, files[:SAMPLE], "looking at pictures")
    good = [each for each in found if isinstance(each, Decoded)]
    bad = [each for each in found if isinstance(each, DataError)]
    if not good:
        raise DataError(f"none of {len(found)} pictures looked at could be read; the first: {bad[0]}")
    note = f"{len(bad)} of {len(found)} pictures looked at cannot be read: data.on_bad_image says what happens then"
    return good, [note] if bad else []


def _is_grey(decoded: Decoded) -> bool:
    """By its kind of file, or since its three channels are the same."""
    if decoded.picture.mode in _GREY_MODES or decoded.picture.mode.startswith("I;"):
        return True
    values_HWC = np.asarray(decoded.picture.convert("RGB"))
    return bool((values_HWC == values_HWC[..., :1]).all())
