"""Things drawn over a digit, as in MNIST-C (Mu and Gilmer 2019): inverted stripes, a dotted line and a zigzag.

Places are those of an image of 28 x 28 pixels, whose first pixel has its centre at 0; a larger or smaller image is laid
over it, so that the drawing grows with it.
"""

from __future__ import annotations

import numpy as np

from ensemble.data.corruptions.draws import Draws
from ensemble.data.corruptions.pixels import to_bytes, to_fractions
from ensemble.types import ByteArray, DoubleArray, IntArray

_SIDE = 28
_STROKE = 2.3  # from the middle of a line to where it would be infinitely dark: it is black from 2.3 * (1 - 1/e) on
_LENGTH, _WIDTH = 2.0, 2.0  # of a zigzag: half a tooth along the line, and its height


def stripe(images_NCHW: ByteArray, parameters: None, draws: Draws) -> ByteArray:  # noqa: ARG001
    """The left and the right quarter are inverted."""
    column_W = _columns(images_NCHW.shape[3])
    return np.where((column_W < 7) | (column_W >= 21), 255 - images_NCHW, images_NCHW)


def dotted_line(images_NCHW: ByteArray, parameters: None, draws: Draws) -> ByteArray:  # noqa: ARG001
    """A straight line from the left to the right side, of which two columns are seen, the next two not, and so on."""
    count, _, height, width = images_NCHW.shape
    start_N, end_N = draws.whole("rows", 0, 27, (count, 2)).T
    line_NHW = _line(np.zeros(count), start_N, np.full(count, 27.0), end_N, height, width)
    line_NHW *= _columns(width) // 2 % 2
    return to_bytes(to_fractions(images_NCHW) + line_NHW[:, None])


def zigzag(images_NCHW: ByteArray, parameters: None, draws: Draws) -> ByteArray:  # noqa: ARG001
    """A line with teeth from column 2 to column 25, about level."""
    count, _, height, width = images_NCHW.shape
    start_N = draws.whole("row", 0, 27, (count,))
    rise_N = draws.whole("rise", -5, 5, (count,))
    columns_KN, rows_KN = _corners(start_N, rise_N)
    drawn = np.zeros((count, height, width))
    for k in range(len(rows_KN) - 1):
        drawn += _line(columns_KN[k], rows_KN[k], columns_KN[k + 1], rows_KN[k + 1], height, width)
    return to_bytes(to_fractions(images_NCHW) + drawn[:, None])


def _corners(start_N: DoubleArray, rise_N: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Columns and rows of the eight corners of zigzags that begin in these rows and rise by so much to their end."""
    first, last = 2.0, 25.0
    angle_N = np.arctan(rise_N / (last - first))
    length_N = (last - first) / np.cos(angle_N)  # 23 to 23.6: always six teeth, and a last corner
    teeth = np.arange(6)
    along, off = (2 * teeth + 1) * _LENGTH, (-1.0) ** teeth * _WIDTH
    whole = 2 * _LENGTH * (length_N // (2 * _LENGTH))
    zeros = np.zeros_like(length_N)
    along_KN = np.stack([zeros, *(place + zeros for place in along), length_N])
    off_KN = np.stack([zeros, *(place + zeros for place in off), off[-1] / (2 * (length_N - whole))])
    cosine, sine = np.cos(angle_N), np.sin(angle_N)
    return along_KN * cosine - off_KN * sine + first, along_KN * sine + off_KN * cosine + start_N


def _line(
    column0_N: DoubleArray, row0_N: DoubleArray, column1_N: DoubleArray, row1_N: DoubleArray, height: int, width: int
) -> DoubleArray:
    """How white a stroke makes each pixel, in [0, 1], [N, H, W]: log(1 - distance / 2.3) + 1, the distance taken along the column.

    Columns from floor(column0) to before ceil(column1) have a part of it.
    """
    row_H, column_W = ((np.arange(side) + 0.5) * _SIDE / side - 0.5 for side in (height, width))
    slope_N = (row1_N - row0_N) / (column1_N - column0_N)
    middle_NW = slope_N[:, None] * (column_W - column0_N[:, None]) + row0_N[:, None]
    distance_NHW = np.abs(row_H[:, None] - middle_NW[:, None])
    stroke_NHW: DoubleArray = np.log(1 - np.minimum(distance_NHW, _STROKE - 1e-10) / _STROKE) + 1
    whole_W = _columns(width)
    inside_NW = (whole_W >= np.floor(column0_N)[:, None]) & (whole_W < np.ceil(column1_N)[:, None])
    np.maximum(stroke_NHW, 0.0, out=stroke_NHW)
    stroke_NHW *= inside_NW[:, None]
    return stroke_NHW


def _columns(width: int) -> IntArray:
    """The column of the 28 in which each column of an image begins."""
    return np.arange(width) * _SIDE // width
