"""Images without meaning for tests of corruptions: flat ones, soft shapes, coloured noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ensemble.types import ByteArray

_RANDOM = np.random.default_rng(5)
_SHAPES = ndimage.gaussian_filter(_RANDOM.random((40, 1, 28, 28)) > 0.8, (0, 0, 1.5, 1.5), output=np.float64)
DIGITS_N: ByteArray = (_SHAPES / _SHAPES.max() * 255).astype(np.uint8)
COLOURS_N: ByteArray = _RANDOM.integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)


def flat(value: int, count: int = 40, shape: tuple[int, int, int] = (1, 32, 32)) -> ByteArray:
    """Images with one value everywhere."""
    return np.full((count, *shape), value, dtype=np.uint8)
