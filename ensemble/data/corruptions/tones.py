"""Changed tones, and what storing an image in few bytes does to it: contrast, brightness, saturation, JPEG and coarse pixels.

Definitions of Hendrycks and Dietterich (ICLR 2019), with colours as hue, saturation and value (HSV) where there are three
channels, and of Mu and Gilmer (2019) for grey images.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np

from ensemble.data.corruptions.draws import Draws
from ensemble.data.corruptions.pixels import to_bytes, to_fractions
from ensemble.types import ByteArray


def identity(images_NCHW: ByteArray, parameters: None, draws: Draws) -> ByteArray:  # noqa: ARG001
    """Nothing changes."""
    return images_NCHW


def contrast(images_NCHW: ByteArray, factor: float, draws: Draws) -> ByteArray:  # noqa: ARG001
    """Every channel's distance from its mean over the image, times a factor."""
    fractions = to_fractions(images_NCHW)
    planes = fractions.reshape(*images_NCHW.shape[:2], -1)
    mean = planes.mean(axis=-1)[..., None, None]
    return to_bytes((fractions - mean) * factor + mean)


def brightness(images_NCHW: ByteArray, added: float, draws: Draws) -> ByteArray:  # noqa: ARG001
    """The largest of three channels grows by so much, at most to 1, the others in proportion; without three, each does."""
    fractions = to_fractions(images_NCHW)
    if images_NCHW.shape[1] != 3:
        return to_bytes(fractions + added)
    value = fractions.max(axis=1, keepdims=True)
    brighter = np.minimum(value + added, 1.0)
    # Hue and saturation are ratios: they stay. Black has none, and becomes grey.
    scaled = fractions * (brighter / np.where(value > 0, value, 1.0))
    return to_bytes(np.where(value > 0, scaled, brighter))


def saturate(images_NCHW: ByteArray, parameters: tuple[float, float], draws: Draws) -> ByteArray:  # noqa: ARG001
    """Saturation times a factor plus a sum, in [0, 1]; parameters: the two. So with every channel of images of other than three.

    A colour's saturation is 1 - smallest / largest channel. Grey has the hue of red, as usual, and turns red where
    something is added.
    """
    factor, added = parameters
    fractions = to_fractions(images_NCHW)
    if images_NCHW.shape[1] != 3:
        return to_bytes(fractions * factor + added)
    value = fractions.max(axis=1, keepdims=True)
    spread = value - fractions.min(axis=1, keepdims=True)
    before = spread / np.where(value > 0, value, 1.0)
    after = np.clip(before * factor + added, 0.0, 1.0)
    below = (value - fractions) * (after / np.where(before > 0, before, 1.0))
    of_red = value * after * np.array([0.0, 1.0, 1.0])[:, None, None]
    return to_bytes(value - np.where(before > 0, below, of_red))


def jpeg_compression(images_NCHW: ByteArray, quality: int, draws: Draws) -> ByteArray:  # noqa: ARG001
    """Stored as JPEG of this quality by Pillow and read again; other than three channels each by themselves.

    The bytes are those of the installed libjpeg, which may differ by a few grey levels between versions.
    """
    from PIL import Image

    colours = images_NCHW.shape[1] == 3
    height, width = images_NCHW.shape[2:]
    pictures = (
        np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1)) if colours else images_NCHW.reshape(-1, height, width)
    )
    result = np.empty_like(pictures)
    for picture, read in zip(pictures, result, strict=True):
        file = BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        read[:] = np.asarray(Image.open(file))
    return result.transpose(0, 3, 1, 2) if colours else result.reshape(images_NCHW.shape)


def pixelate(images_NCHW: ByteArray, factor: float, draws: Draws) -> ByteArray:  # noqa: ARG001
    """Made smaller by Pillow, each pixel the mean of those whose centres it covers, and larger again in the same way."""
    from PIL.Image import Resampling, fromarray

    height, width = images_NCHW.shape[2:]
    small = (int(width * factor), int(height * factor))
    planes = images_NCHW.reshape(-1, height, width)
    result = np.empty_like(planes)
    for plane, coarse in zip(planes, result, strict=True):
        coarse[:] = np.asarray(fromarray(plane).resize(small, Resampling.BOX).resize((width, height), Resampling.BOX))
    return result.reshape(images_NCHW.shape)
