"""The digest by which a run knows its images: SHA-256 of every pixel, and of the parts' shapes.

    sha256 = pixels_sha256(train_NCHW, test_NCHW)

Of images that are being written to files it can be taken on the way, while later ones are decoded:

    digest = DigestOnTheWay()
    digest.add("train", shape, earlier_NCHW, rows_nCHW)      # as often as rows come, part after part
    sha256 = digest.sha256({"train": shape, "test": shape})   # None where it has not seen exactly these
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ensemble.types import ByteArray

Shape = tuple[int, ...]
_ROWS = 256


def pixels_sha256(*parts_NCHW: ByteArray) -> str:
    """SHA-256 of all pixels of these images, and of their shapes."""
    digest = hashlib.sha256()
    for images_NCHW in parts_NCHW:
        digest.update(_of_shape(images_NCHW.shape))
        at_once = len(images_NCHW) if images_NCHW.flags.c_contiguous else _ROWS  # others would be copied whole
        for start in range(0, len(images_NCHW), max(1, at_once)):
            digest.update(images_NCHW[start : start + at_once].reshape(-1).data)
    return digest.hexdigest()


class DigestOnTheWay:
    """What pixels_sha256 would give for parts whose rows come in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._seen: dict[str, tuple[Shape, int]] = {}  # of each part, how many rows

    def add(self, part: str, shape: Shape, earlier_NCHW: ByteArray, rows_nCHW: ByteArray) -> None:
        """The next rows of a part. earlier: all of its rows before these, which count where they were not added (an earlier start wrote
        them). Raises ValueError for a part that another has followed.
        """
        if part in self._seen and part != next(reversed(self._seen)):
            raise ValueError(f"rows of {part} after those of another part")
        if part not in self._seen:
            self._digest.update(_of_shape(shape))
            self._seen[part] = shape, 0
        count = self._seen[part][1]
        self._digest.update(earlier_NCHW[count:].reshape(-1).data)
        self._digest.update(rows_nCHW.reshape(-1).data)
        self._seen[part] = shape, len(earlier_NCHW) + len(rows_nCHW)

    def sha256(self, parts: Mapping[str, Shape]) -> str | None:
        """The digest of exactly these parts, in this order; None where other rows were seen, or not all."""
        wanted = [(name, (shape, shape[0])) for name, shape in parts.items()]
        return self._digest.hexdigest() if list(self._seen.items()) == wanted else None


def _of_shape(shape: Shape) -> bytes:
    return repr(tuple(map(int, shape))).encode()
