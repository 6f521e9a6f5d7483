"""Bilinear interpolation of whole batches: between which pixels the value at a place lies, and how much of each it takes."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ensemble.types import DoubleArray, IntArray

# What lies outside the image: zeros; the image mirrored about the centres of its outermost pixels (c b | a b c | b a); or
# about its edges (b a | a b c | c b).
Outside = Literal["zeros", "mirror", "reflect"]


class Taps(NamedTuple):
    """The four neighbours of P places: which they are of the H * W pixels of a plane, and weights.

    Both are [4, P], or [4, N, P] where the places differ between images.
    """

    pixel: IntArray
    weight: DoubleArray


def taps_at(y: DoubleArray, x: DoubleArray, height: int, width: int, outside: Outside) -> Taps:
    """The neighbours of the places (y, x), in pixels from the centre of the first one; both [P] or [N, P]."""
    top, left = np.floor(y), np.floor(x)
    down, right = y - top, x - left
    rows = [_axis_tap(top, 1 - down, height, outside), _axis_tap(top + 1, down, height, outside)]
    columns = [_axis_tap(left, 1 - right, width, outside), _axis_tap(left + 1, right, width, outside)]
    pairs = [(row, column) for row in rows for column in columns]
    pixel = np.stack([row_index * width + column_index for (row_index, _), (column_index, _) in pairs])
    return Taps(pixel, np.stack([row_weight * column_weight for (_, row_weight), (_, column_weight) in pairs]))


def resampled(fractions_NCHW: DoubleArray, taps: Taps) -> DoubleArray:
    """The values at the H * W places of the taps, as images of the same shape."""
    count, channels, height, width = fractions_NCHW.shape
    plane_NCP = fractions_NCHW.reshape(count, channels, height * width)
    result_NCP = np.zeros_like(plane_NCP)
    for pixel, weight in zip(taps.pixel, taps.weight, strict=True):
        if pixel.ndim == 1:
            result_NCP += np.take(plane_NCP, pixel, axis=-1) * weight
        else:
            result_NCP += np.take_along_axis(plane_NCP, pixel[:, None], axis=-1) * weight[:, None]
    return result_NCP.reshape(fractions_NCHW.shape)


def zoom_places(side: int, factor: float) -> DoubleArray:
    """Where the pixels of an axis, enlarged about its middle, come from.

    The middle ceil(side / factor) pixels are stretched to round(that * factor), first to first and last to last, and what
    is too much is cut off on both sides: the zoom of scipy.ndimage.zoom and of both recipes.
    """
    kept = int(np.ceil(side / factor))
    stretched = round(kept * factor)
    ratio = (kept - 1) / (stretched - 1) if stretched > 1 else 0.0
    places: DoubleArray = (side - kept) // 2 + ((stretched - side) // 2 + np.arange(side, dtype=np.float64)) * ratio
    return places


def zoom_taps(height: int, width: int, factor: float) -> Taps:
    """The neighbours for an enlargement about the middle."""
    y_HW, x_HW = np.meshgrid(zoom_places(height, factor), zoom_places(width, factor), indexing="ij")
    return taps_at(y_HW.ravel(), x_HW.ravel(), height, width, "reflect")


def _axis_tap(place: DoubleArray, weight: DoubleArray, side: int, outside: Outside) -> tuple[IntArray, DoubleArray]:
    """Index and weight of the pixels at whole places of an axis, of which some may lie outside."""
    index = place.astype(np.int64)
    if outside == "zeros":
        inside = (index >= 0) & (index < side)
        return index.clip(0, side - 1), np.asarray(weight * inside, dtype=np.float64)
    if outside == "mirror":
        folded = np.abs(index) % (2 * side - 2)
        return np.minimum(folded, 2 * side - 2 - folded), weight
    folded = index % (2 * side)
    return np.minimum(folded, 2 * side - 1 - folded), weight
