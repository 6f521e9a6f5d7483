"""Edges instead of the image, by the method of Canny, as in MNIST-C (Mu and Gilmer 2019).

J. Canny, "A computational approach to edge detection" (IEEE PAMI 1986), in the form of skimage.feature.canny with its defaults
for values in [0, 1]: gaussian of sigma 1, Sobel derivatives, thresholds of 0.1 and 0.2 on the length of the gradient.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble.data.corruptions.blurs import smoothed
from ensemble.data.corruptions.draws import Draws
from ensemble.data.corruptions.pixels import to_fractions
from ensemble.types import ByteArray, DoubleArray

BoolArray = npt.NDArray[np.bool_]

_LOW, _HIGH = 0.1, 0.2


def canny_edges(images_NCHW: ByteArray, parameters: None, draws: Draws) -> ByteArray:  # noqa: ARG001
    """White where there is an edge and black elsewhere, channel by channel."""
    height, width = images_NCHW.shape[2:]
    planes_BHW = to_fractions(images_NCHW).reshape(-1, height, width)
    edges_BHW = _edges(planes_BHW)
    return np.where(edges_BHW, np.uint8(255), np.uint8(0)).reshape(images_NCHW.shape)


def _edges(planes_BHW: DoubleArray) -> BoolArray:
    """Ridges of the gradient above the lower threshold that hang together with a pixel above the upper one."""
    # What lies outside the image has no weight in the blur.
    share = smoothed(np.ones(planes_BHW.shape[1:]), 1.0, "constant") + np.finfo(np.float64).eps
    blurred = smoothed(planes_BHW, 1.0, "constant") / share
    down, right = _sobel(blurred, 1), _sobel(blurred, 2)
    length = np.sqrt(down * down + right * right)
    ridge = _is_ridge(down, right, length) & (length >= _LOW)
    ridge[:, [0, -1]] = ridge[:, :, [0, -1]] = False
    return connected_to(ridge, ridge & (length >= _HIGH))


def _sobel(planes_BHW: DoubleArray, axis: int) -> DoubleArray:
    """The derivative along axis 1 or 2, smoothed along the other; scipy's own would smooth across the planes too."""
    from scipy import ndimage

    slope = ndimage.correlate1d(planes_BHW, (-1, 0, 1), axis=axis, mode="reflect")
    result: DoubleArray = ndimage.correlate1d(slope, (1, 2, 1), axis=3 - axis, mode="reflect")
    return result


def _is_ridge(down: DoubleArray, right: DoubleArray, length: DoubleArray) -> BoolArray:
    """Whether the gradient is no longer one pixel further on either side, along its own direction.

    There its length is interpolated between the neighbour along the gradient's larger component and the diagonal one.
    """
    steep = np.abs(down) >= np.abs(right)
    larger = np.maximum(np.abs(down), np.abs(right))
    weight = np.minimum(np.abs(down), np.abs(right)) / np.where(larger > 0, larger, 1.0)
    falling = (down >= 0) == (right >= 0)  # the gradient's line goes from the upper left to the lower right
    around = np.pad(length, ((0, 0), (1, 1), (1, 1)))
    ridge = np.ones(length.shape, dtype=bool)
    for side in (1, -1):
        beside = np.where(falling, _neighbour(around, 0, side), _neighbour(around, 0, -side))
        straight = np.where(steep, _neighbour(around, side, 0), beside)
        diagonal = np.where(falling, _neighbour(around, side, side), _neighbour(around, side, -side))
        ridge &= diagonal * weight + straight * (1 - weight) <= length
    return ridge


def _neighbour(around: DoubleArray, down: int, right: int) -> DoubleArray:
    """The values so many rows and columns away, from an array with a margin of one pixel."""
    height, width = around.shape[1] - 2, around.shape[2] - 2
    return around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def connected_to(wide: BoolArray, narrow: BoolArray) -> BoolArray:
    """The pieces of `wide`, joined also at corners, in each plane by itself, that hold a pixel of `narrow`; both [B, H, W]."""
    from scipy import ndimage

    joined = np.zeros((3, 3, 3), dtype=bool)
    joined[1] = True
    pieces, count = ndimage.label(wide, joined)
    holds = np.zeros(count + 1, dtype=bool)
    holds[pieces[narrow]] = True
    holds[0] = False
    result: BoolArray = holds[pieces]
    return result
