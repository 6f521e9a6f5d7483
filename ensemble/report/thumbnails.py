"""Pictures inside a page: what the networks saw, and the file that it was made from, each small enough that a page stays light.

pictures = RunPictures(run)
pictures.of(row)        # a Shown: addresses and sizes of both
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from ensemble.data.pictures import decode, plain
from ensemble.data.showing import viewable
from ensemble.errors import DataError
from ensemble.outside.object_storage import is_address
from ensemble.types import ByteArray

if TYPE_CHECKING:
    from PIL.Image import Image

    from ensemble.report.run_facts import RunFacts

SIDE = 84  # of a picture, in pixels of the page
_STORED_SIDE = 2 * SIDE  # for screens with two dots a pixel
_MOST_BYTES = 6_000  # of one picture
_QUALITIES = (85, 70, 50, 30)


@dataclass(frozen=True)
class Picture:
    """One picture of a page: its content as an address, and width and height at which it is shown."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class BothPictures:
    """seen: what the networks saw. original: the file it was made from, None where that is not here or shows the same."""

    seen: Picture | None
    original: Picture | None


class RunPictures:
    """The pictures of a run's test images. Files that are gone, or no pictures any more, are left out without a word."""

    def __init__(self, run: RunFacts) -> None:
        self._images = run.images
        self._files = {one.row: one.file for one in run.predictions if one.part == "test" and one.file}
        data = run.config.get("data") or {}
        root = data.get("root")
        self._root = Path(root) if isinstance(root, str) and not is_address(root) else None
        self._rule = run.pixels

    def of(self, row: int) -> BothPictures:
        """Both pictures of a test image."""
        image = self._images.get(row)
        seen = None if image is None else picture_of(viewable(image))
        original = self._original(row)
        if original is None or (image is not None and _same(original, viewable(image))):
            return BothPictures(seen, None)
        return BothPictures(seen, picture_of(original))

    def link(self, row: int) -> str:
        """The address of a test image's file where it is on this machine now, else an empty text."""
        path = self._path(row)
        return path.absolute().as_uri() if path is not None and path.is_file() else ""

    def _path(self, row: int) -> Path | None:
        file = self._files.get(row)
        if file is None or self._root is None:
            return None
        inside = PurePosixPath(file)
        if inside.is_absolute() or ".." in inside.parts:  # a run folder may be somebody else's
            return None
        return self._root / inside

    def _original(self, row: int) -> ByteArray | None:
        path = self._path(row)
        if path is None:
            return None
        try:
            return np.asarray(plain(decode(path), self._rule), np.uint8)
        except (DataError, OSError):
            return None


def picture_of(image: ByteArray) -> Picture:
    """An image [H, W] or [H, W, 3] for a page: as it is where it is small, else smaller, and as JPEG."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(image)
    if max(height, width) <= _STORED_SIDE:
        content = _encoded(picture, "PNG")
        if len(content) <= _MOST_BYTES:
            return Picture(_uri("png", content), *size)
    return Picture(_uri("jpeg", _small_jpeg(picture)), *size)


def _small_jpeg(picture: Image) -> bytes:
    side = _STORED_SIDE
    while True:
        small = picture.copy()
        small.thumbnail((side, side))
        for quality in _QUALITIES:
            content = _encoded(small, "JPEG", quality)
            if len(content) <= _MOST_BYTES or side <= 1:
                return content
        side //= 2


def _encoded(picture: Image, kind: str, quality: int | None = None) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({} if quality is None else {"quality": quality}))
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _same(original: ByteArray, seen: ByteArray) -> bool:
    return original.shape == seen.shape and bool((original == seen).all())
