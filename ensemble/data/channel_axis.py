"""Which axis of an array of images holds the channels: one rule for every door that takes arrays.

    to_channels_first(images, None, "mine.npz: train_images", "data.layout")     # [N, H, W, 3] -> [N, 3, H, W]

An axis of 1, 2, 3 or 4 is taken for the channels where the other end has none of these. Everything else can be read in
two ways and is asked for.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from ensemble.config.data import Layout
from ensemble.errors import DataError

LAYOUTS: tuple[Layout, ...] = ("channels_first", "channels_last")
USUAL = (1, 2, 3, 4)  # grey, two bands, colour, colour and alpha or a fourth band


def to_channels_first(
    images: npt.NDArray[Any], layout: Layout | None, where: str, key: str
) -> tuple[npt.NDArray[Any], Layout]:
    """[N, H, W] or four axes as [N, C, H, W], a view, and how it was read.

    layout: what the user says, by the option that `key` names. Raises DataError naming `where` for other shapes and
    for those that can be read in two ways.
    """
    if images.ndim == 3:
        if layout is not None:
            raise DataError(
                f"{where}: found shape {list(images.shape)}, grey images without an axis of channels, so {key} has no "
                "effect; remove it"
            )
        return images[:, None], "channels_first"
    if images.ndim != 4:
        raise DataError(f"{where}: found shape {list(images.shape)}; expected [N, H, W], [N, H, W, C] or [N, C, H, W]")
    layout = layout or _layout(images.shape, where, key)
    return (images if layout == "channels_first" else images.transpose(0, 3, 1, 2)), layout


def _layout(shape: tuple[int, ...], where: str, key: str) -> Layout:
    """How a shape [N, A, B, C] can be read. Raises DataError when it can be read in two ways."""
    _, a, b, c = shape
    first, last = a in USUAL, c in USUAL
    if a == b == c == 1 or (first and not last):
        return "channels_first"
    if last and not first:
        return "channels_last"
    raise DataError(
        f"{where}: found shape {list(shape)}, which may be {_images(a, b, c)} (channels_first) or {_images(c, a, b)} "
        f"(channels_last); say which by {key}"
    )


def _images(channels: int, height: int, width: int) -> str:
    return f"{channels} channel{'s' if channels > 1 else ''} of {height}x{width}"


def described(image_shape: tuple[int, int, int]) -> str:
    """The shape (C, H, W) of images in words."""
    return _images(*image_shape)
