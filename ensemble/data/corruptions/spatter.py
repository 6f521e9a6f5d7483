"""Spatter: drops of water or mud on the lens, after Hendrycks and Dietterich (ICLR 2019) and Mu and Gilmer (2019).

Both begin with a smoothed layer of noise, of which what exceeds a threshold is liquid. Mud covers the image there. Water
brightens it, most strongly at the rims of the drops; these come from a chain of filters for bytes (edges, distance to
them, equalised histogram, relief), which is that of the published program and of OpenCV, which it calls.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble.data.corruptions.blurs import smoothed
from ensemble.data.corruptions.draws import Draws
from ensemble.data.corruptions.edges import connected_to
from ensemble.data.corruptions.pixels import per_channel, to_bytes, to_fractions
from ensemble.types import ByteArray, DoubleArray, IntArray

_WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
_MUD = (63 / 255, 42 / 255, 20 / 255)
_GREY_MUD = (63 / 255, 63 / 255, 63 / 255)

# Steps of the distance to an edge, times 2^16.
_STRAIGHT, _DIAGONAL, _KNIGHT = 1 << 16, round(1.4 * 65536), round(2.1969 * 65536)

# Mean and standard deviation of the noise, its smoothing, the threshold, and a fifth number: how strong the water is, or by how
# much the outline of the mud is smoothed; last, whether it is mud.
Liquid = tuple[float, float, float, float, float, bool]


def spatter(images_NCHW: ByteArray, parameters: Liquid, draws: Draws) -> ByteArray:
    """Water or brown mud as in CIFAR-10-C; images of other than three channels have the colour's luma in each.

    Where the published program divides by zero, as no liquid falls, the image stays as it is; and more liquid than a byte
    can hold, which there begins at 0 again, is cut off.
    """
    return (
        _with_mud(images_NCHW, parameters, draws, _MUD)
        if parameters[-1]
        else _with_water(images_NCHW, parameters, draws)
    )


def spatter_grey(images_NCHW: ByteArray, parameters: Liquid, draws: Draws) -> ByteArray:
    """Dark grey mud as in MNIST-C."""
    return _with_mud(images_NCHW, parameters, draws, _GREY_MUD)


def _liquid(images_NCHW: ByteArray, parameters: Liquid, draws: Draws) -> DoubleArray:
    """The layer of one plane per image, [N, H, W], with 0 where it is dry."""
    mean, deviation, sigma, threshold, *_ = parameters
    count, _, height, width = images_NCHW.shape
    layer_NHW = smoothed(mean + deviation * draws.normal("liquid", (count, height, width)), sigma)
    layer_NHW[layer_NHW < threshold] = 0.0
    return layer_NHW


def _with_mud(
    images_NCHW: ByteArray, parameters: Liquid, draws: Draws, colour: tuple[float, float, float]
) -> ByteArray:
    """Covered where the smoothed outline of the liquid is at least 0.8, in proportion to it."""
    threshold, outline = parameters[3:5]
    wet_NHW = (_liquid(images_NCHW, parameters, draws) > threshold).astype(np.float64)
    cover = smoothed(wet_NHW, outline)[:, None]
    cover[cover < 0.8] = 0.0
    return to_bytes(to_fractions(images_NCHW) * (1 - cover) + per_channel(colour, images_NCHW.shape[1]) * cover)


def _with_water(images_NCHW: ByteArray, parameters: Liquid, draws: Draws) -> ByteArray:
    """The amount of liquid times the relief of its rims, at most `strength` in each image, is added in the colour of water."""
    strength = parameters[4]
    liquid_NHW = to_bytes(_liquid(images_NCHW, parameters, draws))
    film_NHW = liquid_NHW.astype(np.float64) * relief(liquid_NHW)
    highest = film_NHW.max(axis=(1, 2), keepdims=True)
    film = (film_NHW / np.where(highest > 0, highest, 1.0) * strength)[:, None]
    return to_bytes(to_fractions(images_NCHW) + film * per_channel(_WATER, images_NCHW.shape[1]))


def relief(layers_NHW: ByteArray) -> IntArray:
    """Light and shadow beside the edges of layers of bytes, in [0, 255]: [N, H, W]."""
    from scipy import ndimage

    distance = np.minimum(_distance_to(byte_edges(layers_NHW, 50, 150)), 20 * _STRAIGHT)
    slopes = _equalised((_box_sum(distance) // 9) >> 16)
    kernel = np.array([(-2, -1, 0), (-1, 1, 1), (0, 1, 2)])
    lit = ndimage.correlate(slopes, kernel[None], mode="mirror").clip(0, 255)
    rounded: IntArray = (2 * _box_sum(lit) + 9) // 18
    return rounded


def byte_edges(layers_NHW: ByteArray, low: int, high: int) -> npt.NDArray[np.bool_]:
    """Edges by the method of Canny as OpenCV has it for bytes: Sobel derivatives, the sum of their sizes as length, 4 directions."""
    from scipy import ndimage

    values = layers_NHW.astype(np.int64)
    down, right = (
        ndimage.correlate1d(
            ndimage.correlate1d(values, (-1, 0, 1), axis, mode="nearest"), (1, 2, 1), 3 - axis, mode="nearest"
        )
        for axis in (1, 2)
    )
    length = np.abs(down) + np.abs(right)
    around = np.pad(length, ((0, 0), (1, 1), (1, 1)))
    height, width = layers_NHW.shape[1:]
    at = {(y, x): around[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y in (-1, 0, 1) for x in (-1, 0, 1)}
    flat = np.abs(down) < np.tan(np.pi / 8) * np.abs(right)
    steep = np.abs(down) > np.tan(3 * np.pi / 8) * np.abs(right)
    rising = (down < 0) != (right < 0)
    # Of two neighbours as long as the pixel itself, the one before it wins and the one after it does not; on diagonals both win.
    level = (length > at[0, -1]) & (length >= at[0, 1])
    upright = (length > at[-1, 0]) & (length >= at[1, 0])
    slanted = np.where(rising, (length > at[-1, 1]) & (length > at[1, -1]), (length > at[-1, -1]) & (length > at[1, 1]))
    ridge = np.where(flat, level, np.where(steep, upright, slanted)) & (length > low)
    return connected_to(ridge, ridge & (length > high))


def _distance_to(edges_NHW: npt.NDArray[np.bool_]) -> IntArray:
    """The distance to the nearest edge in steps of 1 (straight), 1.4 (diagonal) and 2.1969 (knight's move), times 2^16.

    G. Borgefors, "Distance transformations in digital images" (1986): one pass over the rows from above and one from below.
    Without an edge it is more than 20.
    """
    count, height, width = edges_NHW.shape
    around = np.full((height + 4, width + 4, count), 21 * _STRAIGHT)
    around[2:-2, 2:-2][edges_NHW.transpose(1, 2, 0)] = 0
    for rows in (around, around[::-1]):
        for y in range(2, height + 2):
            for x, step in ((-1, _DIAGONAL), (0, _STRAIGHT), (1, _DIAGONAL), (-2, _KNIGHT), (2, _KNIGHT)):
                np.minimum(rows[y, 2:-2], rows[y - 1, 2 + x : 2 + x + width] + step, out=rows[y, 2:-2])
            for x in (-1, 1):
                np.minimum(rows[y, 2:-2], rows[y - 2, 2 + x : 2 + x + width] + _KNIGHT, out=rows[y, 2:-2])
            _along(rows[y, 2:-2])
            _along(rows[y, 2:-2][::-1])
    return np.ascontiguousarray(around[2:-2, 2:-2].transpose(2, 0, 1))


def _along(row_WN: IntArray) -> None:
    """Takes straight steps from the first pixel of a row to the last, in place."""
    passed_W1 = np.arange(len(row_WN))[:, None] * _STRAIGHT
    row_WN[:] = np.minimum.accumulate(row_WN - passed_W1, axis=0) + passed_W1


def _box_sum(values_NHW: IntArray) -> IntArray:
    """The sum over 3 x 3 pixels, with the image mirrored about its outermost pixels."""
    from scipy import ndimage

    result: IntArray = ndimage.correlate(values_NHW, np.ones((1, 3, 3), dtype=np.int64), mode="mirror")
    return result


def _equalised(values_NHW: IntArray) -> IntArray:
    """Each image's values in [0, 255] spread so that all are about as frequent; one of a single value stays as it is."""
    count = len(values_NHW)
    rows_N1 = np.arange(count)[:, None]
    flat_NP = values_NHW.reshape(count, -1)
    histogram_NV = np.bincount((flat_NP + 256 * rows_N1).ravel(), minlength=256 * count).reshape(count, 256)
    cumulative_NV = histogram_NV.cumsum(axis=1)
    lowest_N1 = np.take_along_axis(histogram_NV, flat_NP.min(axis=1, keepdims=True), axis=1)
    others_N1 = flat_NP.shape[1] - lowest_N1
    table_NV = np.rint((cumulative_NV - lowest_N1) * (255 / np.maximum(others_N1, 1))).astype(np.int64)
    spread_NP = np.where(others_N1 > 0, np.take_along_axis(table_NV, flat_NP, axis=1), flat_NP)
    return spread_NP.reshape(values_NHW.shape)
