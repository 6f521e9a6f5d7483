"""Images of another size or number of channels, brought to that of a run's images as pictures are at prediction."""

from __future__ import annotations

import numpy as np

from ensemble.data.pictures import fitted
from ensemble.data.pixel_rule import PixelRule
from ensemble.errors import DataError
from ensemble.types import ByteArray


def reshaped(images_NCHW: ByteArray, shape: tuple[int, int, int], rule: PixelRule) -> ByteArray:
    """The images as [N, *shape]: sizes as the rule's `resize` says, bilinear; grey of colours by luminance, colours of grey alike.

    Raises DataError for channels that are neither 1 nor 3, unless both have as many of them and the same size.
    """
    from PIL import Image

    if images_NCHW.shape[1:] == shape:
        return images_NCHW
    if not {images_NCHW.shape[1], shape[0]} <= {1, 3}:
        raise DataError(
            f"images of {images_NCHW.shape[1]} channels cannot be brought to {shape[0]}; expected 1 (grey) or 3 (colour) on both sides"
        )
    found = np.empty((len(images_NCHW), *shape), np.uint8)
    for n, image_CHW in enumerate(images_NCHW):
        picture = Image.fromarray(
            image_CHW[0] if len(image_CHW) == 1 else np.ascontiguousarray(image_CHW.transpose(1, 2, 0))
        )
        found[n] = fitted(picture, shape[0], shape[1:], rule)
    return found
