"""Corrupts arrays of images, a block at a time."""

from __future__ import annotations

import numpy as np

from ensemble.data.corruptions.draws import CHUNK, Draws
from ensemble.data.corruptions.recipes import Corruption, full_name, kind_of, problem_with
from ensemble.errors import ConfigError
from ensemble.types import ByteArray

_BLOCK_VALUES = 1 << 20  # of images that are worked on at once: about 8 MB for each array of fractions


def corrupt(images_NCHW: ByteArray, corruption: Corruption, seed: int, first: int = 0) -> ByteArray:
    """The images, corrupted.

    Image n of the result is a function of its own pixels, the corruption, the seed and first + n alone: not of the other
    images, of how many there are, or of the number of threads.

    Parameters
    ----------
    images_NCHW : uint8, with 1 to 4 channels and at least 8 x 8 pixels.
    corruption : its name, one of NAMES, and level.
    seed : at least 0.
    first : position of the first image in its set, a multiple of CHUNK; for sets that are corrupted in parts.

    Returns
    -------
    A new array of the same shape.

    Raises
    ------
    ConfigError: the corruption is not known, or has no such level, or cannot be applied to such images.
    """
    assert images_NCHW.dtype == np.uint8, f"images are {images_NCHW.dtype}, not uint8"
    assert images_NCHW.ndim == 4, f"images have {images_NCHW.ndim} axes, not 4 (images, channels, rows, columns)"
    assert first >= 0, f"the first image cannot be {first}"
    assert first % CHUNK == 0, f"the first image is {first}, not a multiple of {CHUNK}"
    channels, height, width = images_NCHW.shape[1:]
    if problem := problem_with(corruption.name, corruption.level, (channels, height, width)):
        raise ConfigError(problem)
    result = np.empty(images_NCHW.shape, dtype=np.uint8)
    for start in range(0, len(images_NCHW), CHUNK):
        chunk = slice(start, start + CHUNK)
        _corrupt_chunk(images_NCHW[chunk], corruption, seed, (first + start) // CHUNK, result[chunk])
    return result


def _corrupt_chunk(
    images_NCHW: ByteArray, corruption: Corruption, seed: int, chunk: int, result_NCHW: ByteArray
) -> None:
    """Writes the corrupted images of one chunk into `result_NCHW`."""
    kind = kind_of(corruption.name)
    severity = 0 if kind.parameters is None or corruption.level is None else int(corruption.level)
    parameter = corruption.level if kind.parameters is None else kind.parameters[severity - 1]
    draws = Draws(seed, full_name(corruption.name), severity, chunk)
    rows = max(1, _BLOCK_VALUES // images_NCHW[0].size)
    for start in range(0, len(images_NCHW), rows):
        block = np.ascontiguousarray(images_NCHW[start : start + rows])
        result_NCHW[start : start + rows] = kind.apply(block, parameter, draws)
