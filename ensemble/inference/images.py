"""Arrays of images as people have them -> [N, C, H, W] as the networks want them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.data.given_array import as_array
from ensemble.data.pixel_rule import BYTES, Extremes, PixelRule
from ensemble.errors import DataError


def as_batch(images: Any, image_shape: tuple[int, int, int], rule: PixelRule | None = None) -> npt.NDArray[np.generic]:
    """Images as [N, C, H, W], uint8 or float32 in [0, 1].

    images: an array (or CPU tensor) [N, H, W] of grey images, [N, H, W, C] or [N, C, H, W]; uint8 and other whole
    numbers in 0..255, or floats in [0, 1]. image_shape: the (C, H, W) of the run. rule: the run's own, which may have
    another range of wider whole numbers, or one of all. Raises DataError for other shapes, types and ranges.
    """
    array = as_array(images, "images")
    channels, height, width = image_shape
    if array.ndim == 3 and channels == 1 and array.shape[1:] == (height, width):
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1:] == (channels, height, width):
        pass
    elif array.ndim == 4 and array.shape[1:] == (height, width, channels):
        array = array.transpose(0, 3, 1, 2)
    else:
        grey = f"[N, {height}, {width}], " if channels == 1 else ""
        raise DataError(
            f"images: found an array of shape {list(array.shape)}; expected {grey}[N, {channels}, {height}, {width}] or "
            f"[N, {height}, {width}, {channels}], as this ensemble was trained. Put a single image into a batch with "
            "images[None]; `ensemble predict` takes pictures of any size"
        )
    rule = rule or PixelRule()
    if array.dtype.kind in "biuf" and rule.value_range is not None:
        return np.ascontiguousarray(_scaled(array, rule))
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind in "biu" and array.size:
        return np.ascontiguousarray(_scaled(array, rule if rule.wide_range else PixelRule(wide_range=BYTES)))
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"images: found values of type {array.dtype}; expected uint8 in 0..255 or floats in [0, 1]; convert them, "
            "for example with images.astype(numpy.uint8)"
        )
    return _unit(array)


def _scaled(array: npt.NDArray[Any], rule: PixelRule) -> npt.NDArray[np.uint8]:
    """Whole numbers of any type, and floats where the run has a range for them, as bytes."""
    if array.size and (array.dtype.kind != "f" or np.isfinite(array).all()):
        found, (low, high) = Extremes.of(array), rule.range_of(array.dtype)
        cut = array.dtype == np.uint8 and low >= 0 and high <= BYTES[1]  # as bytes of picture files are
        if cut or (low <= found.low and found.high <= high):
            return rule.to_bytes(array)
        values = f"values of type {array.dtype} from {found.low:g} to {found.high:g}"
    else:
        values = "NaN, infinite or no values"
        low, high = rule.range_of(array.dtype)
    bytes_too = ", or uint8 bytes" if rule.value_range is None else ""  # that range is of values of every kind
    raise DataError(f"images: found {values}; expected {low:g} to {high:g}, as this ensemble was trained{bytes_too}")


def _unit(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    finite = bool(np.isfinite(array).all())
    if not finite or (array.size and (array.min() < 0 or array.max() > 1)):
        found = f"floats from {array.min():g} to {array.max():g}" if finite else "NaN or infinite values"
        raise DataError(
            f"images: found {found}; expected floats in [0, 1], not standardised (the ensemble does that itself). "
            "Divide by 255, or give uint8"
        )
    return np.ascontiguousarray(array, np.float32)
