"""What a person hands over in Python in place of an array: a file, the bytes of one, a Pillow picture, or several of these.

pictures_of(["a.jpg", Image.open("b.png")])    # [("a.jpg", Path("a.jpg")), ("images[1]", <picture>)]
pictures_of(array)                             # None
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.data.regular_files import shown
from ensemble.errors import DataError
from ensemble.inference.prepare import Preparation, Prepared, Source
from ensemble.types import ByteArray


def pictures_of(images: Any) -> list[tuple[str, Source]] | None:
    """Every picture with its name in messages; None of anything else, such as an array. Raises DataError where only some are pictures."""
    if _is_picture(images):
        return [_named(images, "image")]
    if not isinstance(images, list | tuple) or not any(map(_is_picture, images)):
        return None
    for number, image in enumerate(images):
        if not _is_picture(image):
            raise DataError(
                f"images[{number}]: found {type(image).__name__} among pictures; expected a path, the bytes of a file or a Pillow picture "
                "like the others, or one array of all images"
            )
    return [_named(image, f"images[{number}]") for number, image in enumerate(images)]


def read(pictures: Sequence[tuple[str, Source]], preparation: Preparation) -> ByteArray:
    """The pictures as the run wants them, [N, C, H, W]. Raises DataError that names each one that cannot be used."""
    found = preparation.read_all(pictures)
    if faults := [one for one in found if isinstance(one, str)]:
        raise DataError("\n".join(faults))
    return np.stack([one.image_CHW for one in found if isinstance(one, Prepared)])


def _is_picture(image: Any) -> bool:
    """Pillow is not imported for this: its pictures are known by what they can."""
    return isinstance(image, str | os.PathLike | bytes | bytearray) or _is_pillows(image)


def _is_pillows(image: Any) -> bool:
    return isinstance(getattr(image, "mode", None), str) and hasattr(image, "convert")


def _named(image: Any, name: str) -> tuple[str, Source]:
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        return shown(path), Path(os.fsdecode(path))
    if isinstance(image, bytes | bytearray):
        return name, bytes(image)
    return name, image
