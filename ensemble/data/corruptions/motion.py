"""Motion blur along a line, as ImageMagick's MotionBlurImage, which both recipes call, does it.

A pixel becomes the mean of `2 * radius + 1` pixels on a line that begins at itself and runs in the direction `angle`, the one
at distance i with the weight exp(-i^2 / (2 sigma^2)); the places on the line are rounded to whole pixels, and the image's
outermost pixels go on outside. The result is rounded to bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ensemble.data.corruptions.draws import Draws
from ensemble.types import ByteArray, DoubleArray, IntArray


def motion_blur(images_NCHW: ByteArray, parameters: tuple[int, float], draws: Draws) -> ByteArray:
    """Blurred in a direction between -45 and 45 degrees; parameters: radius and sigma, in pixels."""
    return blurred_along(images_NCHW, *parameters, draws.between("angle", -45, 45, (len(images_NCHW),)))


def blurred_along(images_NCHW: ByteArray, radius: int, sigma: float, degrees_N: DoubleArray) -> ByteArray:
    """Each image blurred in its own direction, in degrees clockwise from the direction of the rows."""
    count, _, height, width = images_NCHW.shape
    weights_T = _weights(radius, sigma)
    reach = len(weights_T) - 1
    edges = ((0, 0), (0, 0), (reach, reach), (reach, reach))
    windows = sliding_window_view(np.pad(images_NCHW, edges, mode="edge"), (height, width), axis=(2, 3))
    radians_N = np.deg2rad(degrees_N)
    total = np.zeros(images_NCHW.shape)
    for distance, weight in enumerate(weights_T):
        right_N, down_N = (_rounded(distance * part) + reach for part in (np.cos(radians_N), np.sin(radians_N)))
        total += weight * windows[np.arange(count), :, down_N, right_N]
    return np.floor(total + 0.5).astype(np.uint8)


def _rounded(places_N: DoubleArray) -> IntArray:
    """To the nearest whole number, halves downwards."""
    return np.ceil(places_N - 0.5).astype(np.int64)


def _weights(radius: int, sigma: float) -> DoubleArray:
    """Of sum 1, for the distances 0 .. 2 * radius; those below a millionth are left out."""
    weights: DoubleArray = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    weights = weights[weights > 1e-6 * weights.sum()]
    weights /= weights.sum()
    return weights
