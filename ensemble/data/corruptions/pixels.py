"""Pixel values as bytes and as fractions of white."""

from __future__ import annotations

import numpy as np

from ensemble.types import ByteArray, DoubleArray

# ITU-R BT.601: how much red, green and blue add to the brightness of a grey pixel.
LUMA = (0.299, 0.587, 0.114)


def to_fractions(images: ByteArray) -> DoubleArray:
    """Bytes as numbers in [0, 1]."""
    return images / 255.0


def to_bytes(fractions: DoubleArray) -> ByteArray:
    """Numbers cut to [0, 1], times 255, truncated to bytes as in the published files; overwrites its argument."""
    np.clip(fractions, 0.0, 1.0, out=fractions)
    fractions *= 255.0
    return fractions.astype(np.uint8)


def brightness_of(fractions_NCHW: DoubleArray) -> DoubleArray:
    """One plane per image, [N, 1, H, W]: the luma of three channels, the mean of any other number."""
    channels = fractions_NCHW.shape[1]
    weights = LUMA if channels == 3 else (1 / channels,) * channels
    plane_NHW = fractions_NCHW[:, 0] * weights[0]
    for channel in range(1, channels):
        plane_NHW += fractions_NCHW[:, channel] * weights[channel]
    return plane_NHW[:, None]


def per_channel(colour: tuple[float, float, float], channels: int) -> DoubleArray:
    """A colour (red, green, blue) in [0, 1] for images of so many channels, [C, 1, 1]: its luma in each if they are not three."""
    luma = sum(weight * part for weight, part in zip(LUMA, colour, strict=True))
    return np.array(colour if channels == 3 else (luma,) * channels)[:, None, None]
