"""Noise of single pixels: gaussian, shot (Poisson), impulse (salt and pepper) and speckle noise.

Definitions of Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations"
(ICLR 2019), on pixel values x in [0, 1]; every channel of every pixel has its own noise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ensemble.data.corruptions.draws import Draws
from ensemble.data.corruptions.pixels import to_bytes, to_fractions
from ensemble.types import ByteArray, DoubleArray


def gaussian_noise(images_NCHW: ByteArray, deviation: float, draws: Draws) -> ByteArray:
    """x + deviation * normal."""
    noise = draws.normal("noise", images_NCHW.shape)
    noise *= deviation
    noise += to_fractions(images_NCHW)
    return to_bytes(noise)


def speckle_noise(images_NCHW: ByteArray, deviation: float, draws: Draws) -> ByteArray:
    """x + x * deviation * normal."""
    noise = draws.normal("noise", images_NCHW.shape)
    noise *= deviation
    noise += 1.0
    noise *= to_fractions(images_NCHW)
    return to_bytes(noise)


def impulse_noise(images_NCHW: ByteArray, amount: float, draws: Draws) -> ByteArray:
    """A share `amount` of the values is replaced, half of them by 0 and half by 1."""
    uniform = draws.uniform("noise", images_NCHW.shape)
    result = np.where(uniform < amount, np.uint8(0), images_NCHW)
    result[uniform < amount / 2] = 255
    return result


def shot_noise(images_NCHW: ByteArray, photons: int, draws: Draws) -> ByteArray:
    """Poisson(x * photons) / photons.

    The count is the inverse of the distribution function at a uniform number, so that an image takes as many random numbers
    as it has values, whatever they are.
    """
    limits = _poisson_limits(photons)
    uniform = draws.uniform("noise", images_NCHW.shape)
    uniform += images_NCHW
    counts = np.searchsorted(limits, uniform, side="right") - images_NCHW * np.int64(photons)
    values = to_bytes(np.arange(photons + 1) / photons)
    # A number just below 1 may have become 1 by adding the pixel value: its count is the largest.
    return values[np.minimum(counts, photons)]


@lru_cache(maxsize=8)
def _poisson_limits(photons: int) -> DoubleArray:
    """v + P(Poisson(v / 255 * photons) <= k), ascending, for byte values v and, within each, k = 0 .. photons - 1.

    Among the limits of v, those up to v + u are as many as the count that belongs to u, or as there are: counts of
    `photons` and more are all white.
    """
    from scipy.special import pdtr

    means_V = np.arange(256) / 255 * photons
    below_VK = np.maximum.accumulate(pdtr(np.arange(photons), means_V[:, None]), axis=1)
    limits: DoubleArray = (np.arange(256.0)[:, None] + below_VK).ravel()
    return limits
