"""Blurred images: gaussian, glass, defocus and zoom blur.

Definitions of Hendrycks and Dietterich (ICLR 2019) and of Mu and Gilmer, "MNIST-C: a robustness benchmark for computer vision"
(2019). Motion blur is in `motion`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ensemble.data.corruptions.draws import Draws
from ensemble.data.corruptions.pixels import to_bytes, to_fractions
from ensemble.data.corruptions.resampling import zoom_taps
from ensemble.types import ByteArray, DoubleArray, IntArray

if TYPE_CHECKING:
    from scipy import sparse


def smoothed(
    fractions: DoubleArray, sigma: float | tuple[float, float], mode: str = "nearest", truncate: float = 4.0
) -> DoubleArray:
    """Gaussian blur along the last two axes, with the standard deviation in pixels, for both or for (rows, columns)."""
    from scipy import ndimage

    result: DoubleArray = ndimage.gaussian_filter(fractions, sigma, mode=mode, truncate=truncate, axes=(-2, -1))
    return result


def gaussian_blur(images_NCHW: ByteArray, sigma: float, draws: Draws) -> ByteArray:  # noqa: ARG001
    """Gaussian blur."""
    return to_bytes(smoothed(to_fractions(images_NCHW), sigma))


def glass_blur(images_NCHW: ByteArray, parameters: tuple[float, int, int], draws: Draws) -> ByteArray:
    """Gaussian blur, swaps of near pixels, and the same blur again, as in CIFAR-10-C.

    parameters: standard deviation, largest distance of a swap along an axis, and rounds.

    The program that made the published CIFAR-10-C copies one pixel over the other instead, as both sides of its
    assignment are views of the same array of colours; here they are swapped.
    """
    sigma, distance, rounds = parameters
    return _through_glass(images_NCHW, (sigma, sigma), _partners(images_NCHW, distance, rounds, draws), distance)


def glass_blur_28(images_NCHW: ByteArray, parameters: tuple[float, int, int], draws: Draws) -> ByteArray:
    """Glass blur as in MNIST-C: a pixel is swapped with probability 1/2, and the blur goes along columns alone.

    That it does not go along rows is because the published program takes the columns of its grey images for channels.
    """
    sigma, distance, rounds = parameters
    partners = _partners(images_NCHW, distance, rounds, draws, swapped=0.5)
    return _through_glass(images_NCHW, (sigma, 0.0), partners, distance)


def _partners(images_NCHW: ByteArray, distance: int, rounds: int, draws: Draws, swapped: float = 1.0) -> IntArray:
    """With which pixel of the plane each pixel that has its turn is swapped: [rounds, H', W', N]."""
    count, _, height, width = images_NCHW.shape
    rows, columns = np.arange(distance + 1, height - distance + 1), np.arange(distance + 1, width - distance + 1)
    shape = (count, rounds, len(rows), len(columns))
    down, right = (draws.whole(axis, -distance, distance, shape) for axis in ("down", "right"))
    if swapped < 1:
        still = draws.uniform("swapped", shape) >= swapped
        down[still] = right[still] = 0
    partner = (rows[:, None] + down) * width + columns + right
    return np.ascontiguousarray(np.moveaxis(partner, 0, -1), dtype=np.int64)


def _through_glass(images_NCHW: ByteArray, sigma: tuple[float, float], partners: IntArray, distance: int) -> ByteArray:
    """Blurred, its pixels swapped one after the other from the last on, and blurred again."""
    count, channels, height, width = images_NCHW.shape
    blurred = to_bytes(smoothed(to_fractions(images_NCHW), sigma)).reshape(count, channels, -1)
    # Pixel by pixel, for all images at once: entry p * N + n is the pixel that image n has at p.
    source = np.repeat(np.arange(height * width), count)
    partners = partners * count + np.arange(count)
    for turn in partners:
        for row in range(turn.shape[0] - 1, -1, -1):
            for column in range(turn.shape[1] - 1, -1, -1):
                start = ((row + distance + 1) * width + column + distance + 1) * count
                here, there = slice(start, start + count), turn[row, column]
                held = source[here].copy()
                source[here] = source[there]
                source[there] = held
    shuffled = np.take_along_axis(blurred, source.reshape(-1, count).T[:, None], axis=-1)
    return to_bytes(smoothed(to_fractions(shuffled).reshape(images_NCHW.shape), sigma))


def defocus_blur(images_NCHW: ByteArray, parameters: tuple[float, float], draws: Draws) -> ByteArray:  # noqa: ARG001
    """Averages over a disk with a softened edge; parameters: its radius and the softening's standard deviation, in pixels."""
    from scipy import ndimage

    kernel = disk(*parameters)
    result = ndimage.correlate(to_fractions(images_NCHW), kernel[None, None], mode="mirror")
    return to_bytes(result)


def disk(radius: float, softening: float) -> DoubleArray:
    """The disk's weights, of sum 1: all pixels with their centre inside, under a gaussian of 3x3 pixels; for radii below 8.

    Larger disks would be softened over 5x5 pixels, which neither recipe needs.
    """
    from scipy import ndimage

    assert radius < 8, f"a disk of radius {radius} would be softened otherwise"
    side = np.arange(-int(radius) - 1, int(radius) + 2)
    inside = np.asarray(side[:, None] ** 2 + side**2 <= radius**2, dtype=np.float64)
    bell = np.exp(-(np.arange(-1, 2) ** 2) / (2 * softening**2))
    bell /= bell.sum()
    weights: DoubleArray = ndimage.correlate(inside / inside.sum(), bell[:, None] * bell, mode="constant")
    return weights


def zoom_blur(images_NCHW: ByteArray, parameters: tuple[float, float], draws: Draws) -> ByteArray:  # noqa: ARG001
    """The mean of the image and of enlargements by 1, 1 + step, ..., below `stop`; parameters: stop and step.

    The factors are those of numpy.arange(1, stop, step), which by rounding may reach `stop` itself, as in the published files.
    """
    count, channels, height, width = images_NCHW.shape
    pixels_PB = np.ascontiguousarray(to_fractions(images_NCHW).reshape(count * channels, -1).T)
    mean_BP = np.ascontiguousarray((_zoom_matrix(height, width, *parameters) @ pixels_PB).T)
    return to_bytes(mean_BP.reshape(images_NCHW.shape))


@lru_cache(maxsize=8)
def _zoom_matrix(height: int, width: int, stop: float, step: float) -> sparse.csr_array:
    """What each pixel of the mean takes from each of the image: [H * W, H * W].

    A sparse matrix, because its products are summed in the order of its entries, whatever the number of images and threads.
    """
    from scipy import sparse

    places = height * width
    total = sparse.eye_array(places, format="csr")
    factors = np.arange(1, stop, step)
    for factor in factors:
        taps = zoom_taps(height, width, float(factor))
        targets = np.broadcast_to(np.arange(places), taps.pixel.shape)
        total = total + sparse.csr_array((taps.weight.ravel(), (targets.ravel(), taps.pixel.ravel())), (places, places))
    return sparse.csr_array(total / (len(factors) + 1))
