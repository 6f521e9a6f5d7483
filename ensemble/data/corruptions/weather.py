"""Fog and snow, after Hendrycks and Dietterich (ICLR 2019) and Mu and Gilmer (2019). Frost needs photographs, and is left out."""

from __future__ import annotations

import math

import numpy as np

from ensemble.data.corruptions.draws import Draws
from ensemble.data.corruptions.motion import blurred_along
from ensemble.data.corruptions.pixels import brightness_of, to_bytes, to_fractions
from ensemble.data.corruptions.resampling import resampled, zoom_taps
from ensemble.types import ByteArray, FloatArray

_MAP_VALUES = 1 << 18  # of height maps that are made at once


def fog(images_NCHW: ByteArray, parameters: tuple[float, float], draws: Draws) -> ByteArray:
    """Fog as in CIFAR-10-C: the height map is the smallest whose side, a power of two, covers the image.

    parameters: how much fog is added to an image in [0, 1], and the factor by which its details lose height with each halving
    of their size.
    """
    return _with_fog(images_NCHW, parameters, draws, 1)


def fog_of_256(images_NCHW: ByteArray, parameters: tuple[float, float], draws: Draws) -> ByteArray:
    """Fog as in MNIST-C: the image lies in the corner of a height map of at least 256 x 256, and so sees smoother fog."""
    return _with_fog(images_NCHW, parameters, draws, 256)


def _with_fog(images_NCHW: ByteArray, parameters: tuple[float, float], draws: Draws, least: int) -> ByteArray:
    """(x + amount * map) * brightest / (brightest + amount), with the brightest value of each image before."""
    amount, decay = parameters
    count, _, height, width = images_NCHW.shape
    side = max(least, 1 << (max(height, width) - 1).bit_length())
    map_NHW = np.empty((count, height, width))
    step = max(1, _MAP_VALUES // side**2)
    for start in range(0, count, step):
        part = map_NHW[start : start + step]
        noise_NV = draws.uniform32("heights", (len(part), side**2 - 1))
        noise_NV *= 2
        noise_NV -= 1
        part[:] = plasma(noise_NV, decay, height, width)
    fractions = to_fractions(images_NCHW)
    brightest = fractions.max(axis=(1, 2, 3), keepdims=True)
    fractions += amount * map_NHW[:, None]
    return to_bytes(fractions * brightest / (brightest + amount))


def plasma(noise_NV: FloatArray, decay: float, height: int, width: int) -> FloatArray:
    """The first rows and columns of height maps in [0, 1] by the diamond-square algorithm on a torus: [N, height, width].

    Each point is the mean of its four neighbours on the coarser grid and w^2 times its own number of the noise, in
    [-1, 1); w begins at 100 and is divided by `decay` from grid to grid. The corner begins at 0. The S^2 - 1 numbers of a map with
    the side S, a power of two, are taken from the coarsest grid to the finest, in each first for the centres of
    squares, then for the middles of horizontal and of vertical sides. Overwrites the noise.
    """
    count, side = len(noise_NV), math.isqrt(noise_NV.shape[1] + 1)
    assert side & (side - 1) == 0, f"side {side} of a height map is no power of two"
    corners = np.zeros((count, 1, 1), dtype=noise_NV.dtype)
    cells, taken, wobble = 1, 0, 100.0
    while cells < side:
        level_NV = noise_NV[:, taken : taken + 3 * cells**2]
        level_NV *= wobble**2
        grids = _finer(corners, level_NV.reshape(count, 3, cells, cells))
        if 2 * cells == side:
            lowest, highest = _range_of(grids)
            corners = _interlaced(*(grid[:, : (height + 1) // 2, : (width + 1) // 2] for grid in grids))
        else:
            corners = _interlaced(*grids)
        cells, taken, wobble = 2 * cells, taken + 3 * cells**2, wobble / decay
    return (corners[:, :height, :width] - lowest) / (highest - lowest)


# Corners of squares, their centres, and the middles of their upper and of their left sides: each [N, cells, cells].
_Grids = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def _finer(corners: FloatArray, noise_N3: FloatArray) -> _Grids:
    """The points between those of a grid, with their noise [N, 3, cells, cells], which is overwritten."""
    centres, upper, left = noise_N3[:, 0], noise_N3[:, 1], noise_N3[:, 2]
    columns = corners + np.roll(corners, -1, axis=1)
    rows = corners + np.roll(corners, -1, axis=2)
    centres += (columns + np.roll(columns, -1, axis=2)) / 4
    rows += centres
    rows += np.roll(centres, 1, axis=1)
    upper += rows / 4
    columns += centres
    columns += np.roll(centres, 1, axis=2)
    left += columns / 4
    return corners, centres, upper, left


def _range_of(grids: _Grids) -> tuple[FloatArray, FloatArray]:
    """The lowest and the highest point of each map, [N, 1, 1]."""
    lowest = np.min([grid.min(axis=(1, 2)) for grid in grids], axis=0)
    highest = np.max([grid.max(axis=(1, 2)) for grid in grids], axis=0)
    return lowest[:, None, None], highest[:, None, None]


def _interlaced(corners: FloatArray, centres: FloatArray, upper: FloatArray, left: FloatArray) -> FloatArray:
    """The four grids as one with twice the rows and columns."""
    count, rows, columns = corners.shape
    heights = np.empty((count, 2 * rows, 2 * columns), dtype=corners.dtype)
    heights[:, ::2, ::2], heights[:, 1::2, 1::2] = corners, centres
    heights[:, ::2, 1::2], heights[:, 1::2, ::2] = upper, left
    return heights


def snow(
    images_NCHW: ByteArray, parameters: tuple[float, float, float, float, int, float, float], draws: Draws
) -> ByteArray:
    """Flakes that fall in one direction, and the same turned by 180 degrees, on a whitened image.

    parameters: mean and standard deviation of the flakes' noise, its enlargement, the value below which there is no flake;
    radius and sigma of their motion blur; and how much of the image is not whitened.
    """
    mean, deviation, factor, threshold, radius, sigma, kept = parameters
    count, _, height, width = images_NCHW.shape
    noise = mean + deviation * draws.normal("flakes", (count, 1, height, width))
    flakes = resampled(noise, zoom_taps(height, width, factor))
    flakes[flakes < threshold] = 0.0
    degrees_N = draws.between("angle", -135, -45, (count,))
    layer = to_fractions(blurred_along(to_bytes(flakes), radius, sigma, degrees_N))
    fractions = to_fractions(images_NCHW)
    whitened = np.maximum(fractions, brightness_of(fractions) * 1.5 + 0.5)
    return to_bytes(kept * fractions + (1 - kept) * whitened + layer + layer[:, :, ::-1, ::-1])
