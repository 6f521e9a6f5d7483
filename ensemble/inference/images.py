"""Arrays of images as people have them -> [N, C, H, W] as the networks want them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.errors import DataError


def as_batch(images: Any, image_shape: tuple[int, int, int]) -> npt.NDArray[np.generic]:
    """Images as [N, C, H, W], uint8 or float32 in [0, 1].

    images: an array (or CPU tensor) [N, H, W] of grey images, [N, H, W, C] or [N, C, H, W]; uint8, or floats in
    [0, 1]. image_shape: the (C, H, W) of the run. Raises DataError for other shapes, types and ranges.
    """
    array = np.asarray(images)
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
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"images: found values of type {array.dtype}; expected uint8 in 0..255 or floats in [0, 1]; convert them, "
            "for example with images.astype(numpy.uint8)"
        )
    return _unit(array)


def _unit(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    finite = bool(np.isfinite(array).all())
    if not finite or (array.size and (array.min() < 0 or array.max() > 1)):
        found = f"floats from {array.min():g} to {array.max():g}" if finite else "NaN or infinite values"
        raise DataError(
            f"images: found {found}; expected floats in [0, 1], not standardised (the ensemble does that itself). "
            "Divide by 255, or give uint8"
        )
    return np.ascontiguousarray(array, np.float32)
