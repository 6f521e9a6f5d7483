"""Reads and checks the idx files of the MNIST family, plain or gzipped.

An idx file is a big-endian header - two zero bytes, a type code, the number of axes, then one 32-bit length per axis -
and the values. Everything the header promises is checked against the file before a value is used: a training run on
silently shifted labels costs far more than the check.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.data.catalogue import DatasetInfo, IdxLayout
from ensemble.data.files import Fault, FaultyFiles, looks_like_html, read_bytes
from ensemble.types import ByteArray, IntArray


@dataclass(frozen=True, slots=True)
class IdxKind:
    """What one sort of idx file must announce in its header."""

    what: str
    type_code: int
    axes: int
    dtype: np.dtype[np.generic]

    @property
    def magic(self) -> int:
        return self.type_code << 8 | self.axes


IMAGES = IdxKind("images", 0x08, 3, np.dtype(np.uint8))
LABELS = IdxKind("labels", 0x08, 1, np.dtype(np.uint8))
LABEL_TABLE = IdxKind("labels", 0x0C, 2, np.dtype(">i4"))


def read_idx_dataset(root: Path, info: DatasetInfo) -> tuple[ByteArray, IntArray, ByteArray, IntArray]:
    """Training images_NCHW and labels_N, then test images and labels, with labels counted from 0.

    Raises FaultyFiles with the faults of all four files.
    """
    layout = info.idx
    assert layout is not None, f"{info.name} is not kept in idx files"
    parts: list[tuple[ByteArray, IntArray]] = []
    faults: list[Fault] = []
    for images_name, labels_name in (
        (layout.train_images, layout.train_labels),
        (layout.test_images, layout.test_labels),
    ):
        try:
            parts.append(_read_part(root / layout.folder, images_name, labels_name, info, layout))
        except FaultyFiles as problem:
            faults.extend(problem.faults)
    if faults:
        raise FaultyFiles(faults)
    (train_images, train_labels), (test_images, test_labels) = parts
    return train_images, train_labels, test_images, test_labels


def _read_part(
    folder: Path, images_name: str, labels_name: str, info: DatasetInfo, layout: IdxLayout
) -> tuple[ByteArray, IntArray]:
    """Images and labels of one part, each file checked alone and then against the other."""
    found: list[tuple[Path, npt.NDArray[Any]]] = []
    faults: list[Fault] = []
    for name, kind in ((images_name, IMAGES), (labels_name, LABEL_TABLE if layout.labels_table else LABELS)):
        try:
            path, content = _content(folder / name)
            array = _parse(path, content, kind)
            if kind is IMAGES:
                _check_image_size(path, array, info)
            else:
                array = array[:, 0] if layout.labels_table else array
                _check_range(path, array, layout.first_label, info)
            _check_digest(path, content, layout.sha256.get(name))
            found.append((path, array))
        except FaultyFiles as problem:
            faults.extend(problem.faults)
    if faults:
        raise FaultyFiles(faults)
    (images_path, images_NHW), (labels_path, stored_N) = found
    _check_counts(images_path, len(images_NHW), labels_path, len(stored_N))
    if layout.transposed:
        images_NHW = np.ascontiguousarray(images_NHW.transpose(0, 2, 1))
    return images_NHW[:, None], stored_N.astype(np.int64) - layout.first_label


def _content(path: Path) -> tuple[Path, bytes]:
    """The uncompressed bytes of the file, or of its .gz where only that is there, and which of the two it was."""
    zipped = path.with_name(path.name + ".gz")
    if os.path.exists(path) or not os.path.exists(zipped):  # noqa: PTH110  # Path.exists may raise
        return path, read_bytes(path)
    packed = read_bytes(zipped)
    try:
        return zipped, gzip.decompress(packed)
    except (EOFError, OSError, zlib.error, MemoryError) as error:
        found = "a web page (HTML)" if looks_like_html(packed) else f"{len(packed)} bytes that do not unpack ({error})"
        raise FaultyFiles([Fault(zipped, "damaged", found, "a complete gzip file")]) from error


def _parse(path: Path, content: bytes, kind: IdxKind) -> npt.NDArray[Any]:
    """The values behind the header, as a read-only view of `content`."""
    if looks_like_html(content):
        raise _damaged(path, f"a web page (HTML) of {len(content)} bytes", f"an idx file of {kind.what}")
    header = 4 + 4 * kind.axes
    magic = int.from_bytes(content[:4], "big")
    if len(content) >= 4 and magic != kind.magic:
        raise _damaged(path, f"magic number {magic} (0x{magic:08x})", f"{kind.magic} (0x{kind.magic:08x}, {kind.what})")
    if len(content) < header:
        raise _damaged(path, f"{len(content)} bytes", f"an idx header of {header} bytes and {kind.what}")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", kind.axes, 4))
    values = 1
    for length in shape:  # Python integers: a damaged header can promise more than 2**63 values
        values *= length
    size = header + values * kind.dtype.itemsize
    if len(content) != size:
        promised = " x ".join(map(str, shape))
        raise _damaged(path, f"{len(content)} bytes", f"{size} bytes for the {promised} {kind.what} of its header")
    if values == 0:
        raise _damaged(path, f"no {kind.what}", "at least one")
    return np.frombuffer(content, kind.dtype, offset=header).reshape(shape)


def _check_image_size(path: Path, images_NHW: npt.NDArray[Any], info: DatasetInfo) -> None:
    if images_NHW.shape[1:] != info.image_shape[1:]:
        found, expected = ("x".join(map(str, size)) for size in (images_NHW.shape[1:], info.image_shape[1:]))
        raise _damaged(path, f"images of {found} pixels", expected)


def _check_range(path: Path, stored_N: npt.NDArray[Any], first: int, info: DatasetInfo) -> None:
    last = first + len(info.class_names) - 1
    bad = np.flatnonzero((stored_N < first) | (stored_N > last))
    if len(bad):
        examples = ", ".join(f"row {row}: {stored_N[row]}" for row in bad[:5])
        raise _damaged(path, f"{len(bad)} labels out of range ({examples})", f"labels from {first} to {last}")


def _check_digest(path: Path, content: bytes, expected: str | None) -> None:
    if expected is not None and (digest := hashlib.sha256(content).hexdigest()) != expected:
        raise _damaged(path, f"SHA-256 {digest}", f"{expected}, that of the original file")


def _check_counts(images_path: Path, images: int, labels_path: Path, labels: int) -> None:
    # Which of the two is wrong cannot be told, so both are named and both would be fetched again.
    if images != labels:
        raise FaultyFiles(
            [
                Fault(
                    images_path, "damaged", f"{images} images", f"{labels}, as many as {labels_path.name} has labels"
                ),
                Fault(
                    labels_path, "damaged", f"{labels} labels", f"{images}, as many as {images_path.name} has images"
                ),
            ]
        )


def _damaged(path: Path, found: str, expected: str) -> FaultyFiles:
    return FaultyFiles([Fault(path, "damaged", found, expected)])
