"""Writes small data sets in the published file formats, so that reading is tested without any download."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ensemble.data import DATASETS

AnyArray = npt.NDArray[np.generic]
TYPE_CODES = {"uint8": 0x08, "int32": 0x0C}


def idx_bytes(array: AnyArray) -> bytes:
    """The array as an idx file: two zero bytes, type code, number of axes, lengths, big-endian values."""
    header = bytes([0, 0, TYPE_CODES[array.dtype.name], array.ndim])
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return header + lengths + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def encode_idx() -> Callable[[AnyArray], bytes]:
    return idx_bytes


@pytest.fixture
def write_dataset(tmp_path: Path) -> Callable[..., dict[str, AnyArray]]:
    """write_dataset(name, gz=False) fills tmp_path with 60 training and 30 test images, every class in turn.

    Returns what was drawn, upright and with labels from 0: train_images, train_labels, test_images, test_labels.
    """

    def write(name: str, gz: bool = False) -> dict[str, AnyArray]:
        info = DATASETS[name]
        layout = info.idx
        assert layout is not None
        folder = tmp_path / layout.folder
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(7)
        drawn: dict[str, AnyArray] = {}
        for part, count in (("train", 60), ("test", 30)):
            images = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
            labels = np.arange(count) % len(info.class_names)
            drawn[f"{part}_images"], drawn[f"{part}_labels"] = images, labels
            stored_images = images.transpose(0, 2, 1) if layout.transposed else images
            stored_labels: AnyArray = (labels + layout.first_label).astype(np.uint8)
            if layout.labels_table:
                stored_labels = np.stack([labels, *[np.full(count, 500 + i) for i in range(7)]], 1).astype(np.int32)
            for file_name, array in (
                (getattr(layout, f"{part}_images"), stored_images),
                (getattr(layout, f"{part}_labels"), stored_labels),
            ):
                content = idx_bytes(array)
                if gz:
                    (folder / f"{file_name}.gz").write_bytes(gzip.compress(content))
                else:
                    (folder / file_name).write_bytes(content)
        return drawn

    return write
