"""Test images that are training images too, pixel for pixel: what was learned by heart is judged as if it were known.

shared = same_images(train_images_NCHW, test_images_NCHW)      # {test row: training row}
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ensemble.types import ByteArray

SAMPLED = 256  # bytes of an image by which it is looked for


def same_images(train_NCHW: ByteArray, test_NCHW: ByteArray) -> dict[int, int]:
    """For each test row that has the pixels of a training row, the first such row. Flat images of one level are not counted."""
    if not len(test_NCHW):
        return {}
    samples = dict[bytes, list[int]]()
    for row, sample in _samples(test_NCHW):
        samples.setdefault(sample, []).append(row)
    found: dict[int, int] = {}
    for row, sample in _samples(train_NCHW):
        for test_row in samples.get(sample, ()):
            if (
                test_row not in found
                and np.array_equal(train_NCHW[row], test_NCHW[test_row])
                and np.ptp(train_NCHW[row])
            ):
                found[test_row] = row
    return dict(sorted(found.items()))


def _samples(images_NCHW: ByteArray) -> Iterator[tuple[int, bytes]]:
    size = int(np.prod(images_NCHW.shape[1:]))
    flat = images_NCHW.reshape(len(images_NCHW), size)
    step = max(1, size // SAMPLED) | 1  # odd, so that it falls into all columns
    for start in range(0, len(flat), 1024):
        for place, sample in enumerate(np.ascontiguousarray(flat[start : start + 1024, ::step])):
            yield start + place, sample.tobytes()
