"""Pictures from files, folders or stdin -> images as the run's data set would show them.

Characters of MNIST-like sets are cut out and placed as in the data set (`framing`). Other pictures are scaled and
cropped to size, exactly as `data.name: image_folder` does at training. A picture that already has the data set's size
is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble.data import DATASETS, DatasetInfo
from ensemble.data.pictures import fitted, open_picture, picture_files
from ensemble.errors import DataError
from ensemble.inference.framing import frame
from ensemble.paths import given_path
from ensemble.types import ByteArray

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN_SIDE = 400  # pictures are kept for figures at this size


@dataclass(frozen=True, eq=False)
class Prepared:
    """One picture, made ready. shown: the picture itself, small, [H, W] or [H, W, 3]; image_CHW: what is predicted on."""

    name: str
    shown: ByteArray
    image_CHW: ByteArray
    inverted: bool
    cut_out: bool


def prepare_all(
    sources: Sequence[str],
    dataset: str,
    image_shape: tuple[int, int, int],
    invert: bool | None,
    stdin: Callable[[], bytes],
) -> list[Prepared]:
    """Every picture of the sources: files, folders (at any depth) and "-" for the bytes of one on stdin.

    dataset: the run's data set by name. invert: True for dark on light, False for light on dark, None to find out.
    Raises DataError with the fault of every picture that cannot be used.
    """
    prepared: list[Prepared] = []
    faults: list[str] = []
    for name, source in _expanded(sources, stdin):
        try:
            prepared.append(prepare(open_picture(source, name), name, dataset, image_shape, invert))
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))
    return prepared


def prepare(
    picture: Image, name: str, dataset: str, image_shape: tuple[int, int, int], invert: bool | None = None
) -> Prepared:
    """One picture of mode L or RGB. Raises DataError when there is nothing to see on it."""
    channels, height, width = image_shape
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
        image_CHW = fitted(picture, channels, (height, width))
        inverted = _is_inverted(image_CHW, info) if invert is None else invert
        if inverted:
            image_CHW = 255 - image_CHW
    small = picture.copy()
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return Prepared(name, np.asarray(small, np.uint8), image_CHW, inverted, cut_out)


def _is_inverted(image_CHW: ByteArray, info: DatasetInfo | None) -> bool:
    """True when the data set has black grounds and this picture has a light border."""
    if info is None or not info.on_black:
        return False
    border = [image_CHW[:, 0], image_CHW[:, -1], image_CHW[:, :, 0], image_CHW[:, :, -1]]
    return bool(np.median(np.concatenate([edge.ravel() for edge in border])) > 127)


def _expanded(sources: Sequence[str], stdin: Callable[[], bytes]) -> list[tuple[str, Path | bytes]]:
    found: list[tuple[str, Path | bytes]] = []
    for source in sources:
        path = given_path(source, "IMAGE")
        if source == "-":
            found.append(("stdin", stdin()))
        elif path.is_dir():
            files = picture_files(path)
            if not files:
                raise DataError(f"{path}: no pictures in this folder; expected .png, .jpg or the like")
            found += [(str(file), file) for file in files]
        else:
            found.append((source, path))
    return found
