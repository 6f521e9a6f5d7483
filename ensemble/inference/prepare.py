"""Pictures from files, folders or stdin -> images as the run's data set would show them.

    asked = find_pictures(["photos", "-"], sys.stdin.buffer.read)
    for one in asked.pictures: prepared = preparation.read(one)

Characters of MNIST-like sets are cut out and placed as in the data set (`framing`). Other pictures are brought to size
exactly as `data.name: image_folder` does at training: values become bytes, and proportions fit, by the rule that
the run has kept. A picture that already has the data set's size is taken as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np

from ensemble.data import DATASETS, DatasetInfo
from ensemble.data.picture_reading import in_threads
from ensemble.data.picture_tree import pictures_below, reasons_text
from ensemble.data.pictures import decode, fitted, opened, plain
from ensemble.data.pixel_rule import PixelRule
from ensemble.data.regular_files import shown
from ensemble.errors import DataError
from ensemble.inference.framing import frame
from ensemble.outside.paths import given_path
from ensemble.types import ByteArray

if TYPE_CHECKING:
    from PIL.Image import Image

Source: TypeAlias = Union[Path, bytes, "Image"]  # a file, the bytes of one, or a picture that Pillow has opened
SHOWN_SIDE = 400  # pictures are kept for figures at this size


@dataclass(frozen=True, eq=False)
class Asked:
    """What the sources hold. pictures: name and file, or the bytes of one. notes: what was left out. faults: sources
    that hold nothing."""

    pictures: tuple[tuple[str, Path | bytes], ...]
    notes: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """One picture, made ready.

    shown: the picture itself, small, [H, W] or [H, W, 3], where a figure is wanted. image_CHW: what is predicted on. note: what is to be
    known of how it was read.
    """

    name: str
    shown: ByteArray | None
    image_CHW: ByteArray
    inverted: bool
    cut_out: bool
    note: str | None = None


@dataclass(frozen=True)
class Preparation:
    """How a run wants its pictures.

    dataset: its data set by name. image_shape: (C, H, W) of its images. rule: its rule for pictures, None in a run that
    kept none. invert: True for dark on
    light, False for light on dark, None to find out. keep_shown: keep small pictures for a figure.
    """

    dataset: str
    image_shape: tuple[int, int, int]
    rule: PixelRule | None
    invert: bool | None = None
    keep_shown: bool = False

    def read(self, name: str, source: Source) -> Prepared:
        """One picture. Raises DataError when it cannot be read or there is nothing to see on it."""
        found = decode(source, name) if isinstance(source, Path | bytes) else opened(source, name)
        picture = plain(found, self.rule)
        prepared = prepare(picture, name, self.dataset, self.image_shape, self.invert, self.keep_shown, self.rule)
        extremes, values = found.extremes, found.values
        if self.rule is None or extremes is None or values is None or not self.rule.exceeded(extremes, values.dtype):
            return prepared
        low, high = self.rule.range_of(values.dtype)
        return replace(
            prepared, note=f"{name}: values beyond {low:g} to {high:g}, the range of this run's pictures, are cut off"
        )

    def read_all(self, pictures: Sequence[tuple[str, Source]]) -> list[Prepared | str]:
        """Several pictures in their order, each made ready or what is wrong with it."""

        def one(asked: tuple[str, Source]) -> Prepared | str:
            try:
                return self.read(*asked)
            except DataError as error:
                return str(error)

        return in_threads(one, pictures, "reading pictures")


def find_pictures(sources: Sequence[str], stdin: Callable[[], bytes]) -> Asked:
    """Every picture of the sources: files, folders (at any depth) and "-" for the bytes of one on stdin."""
    pictures: list[tuple[str, Path | bytes]] = []
    notes: list[str] = []
    faults: list[str] = []
    for source in sources:
        path = given_path(source, "IMAGE")
        if source == "-":
            pictures.append(("stdin", stdin()))
        elif not os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises where nobody may look
            pictures.append((shown(source), path))
        else:
            try:
                found = pictures_below(path)
            except DataError as error:
                faults.append(str(error))
                continue
            held = f" ({reasons_text(found.left_out)})" if found.left_out else ""
            if not found.files:
                faults.append(f"{shown(path)}: no pictures in this folder{held}; expected .png, .jpg or the like")
            elif found.left_out:
                notes.append(f"{shown(path)}: left out {len(found.left_out):,} files{held}")
            pictures += [(shown(file), file) for file in found.files]
    return Asked(tuple(pictures), tuple(notes), tuple(faults))


def prepare(
    picture: Image,
    name: str,
    dataset: str,
    image_shape: tuple[int, int, int],
    invert: bool | None = None,
    keep_shown: bool = True,
    rule: PixelRule | None = None,
) -> Prepared:
    """One picture of mode L or RGB as an image of `image_shape` (C, H, W), brought to it as the rule's `resize` says.

    rule: None for a run that kept none, whose pictures are cropped. Raises DataError when there is nothing to see on it.
    """
    channels, height, width = image_shape
    if channels not in (1, 3):
        raise DataError(f"{name}: pictures have 1 or 3 channels, but this ensemble wants {channels}; use load_ensemble")
    info = DATASETS.get(dataset)
    same_size = picture.size == (width, height)
    cut_out = info is not None and info.framing is not None and not same_size
    if cut_out:
        assert info is not None
        assert info.framing is not None
        grey_HW = np.asarray(picture.convert("L"), np.float64) / 255
        try:
            framed = frame(grey_HW, info.framing, (height, width), invert)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        image_CHW, inverted = framed.image_HW[None], framed.inverted
    else:
        image_CHW = fitted(picture, channels, (height, width), rule, inverted=invert is True)
        inverted = _is_inverted(image_CHW, info) if invert is None else invert
        if inverted:
            image_CHW = 255 - image_CHW
    return Prepared(name, _small(picture) if keep_shown else None, image_CHW, inverted, cut_out)


def _small(picture: Image) -> ByteArray:
    small = picture.copy()
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return np.asarray(small, np.uint8)


def _is_inverted(image_CHW: ByteArray, info: DatasetInfo | None) -> bool:
    """True when the data set has black grounds and this picture has a light border."""
    if info is None or not info.on_black:
        return False
    border = [image_CHW[:, 0], image_CHW[:, -1], image_CHW[:, :, 0], image_CHW[:, :, -1]]
    return bool(np.median(np.concatenate([edge.ravel() for edge in border])) > 127)
