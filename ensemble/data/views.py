"""Views of images on which a member votes besides the images themselves (`evaluation.tta`).

    for view in views_of(config, height, width):
        images = view(images)               # [..., C, H, W], uint8 or float32; the first view gives them as they are

A view is the same for every image, in every run and for every member: crops are drawn at fixed addresses. Each one gives images of
the same size and type. They work inside an exported network, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from ensemble.config.tta import TtaConfig
from ensemble.seeding import view_generator

View = Callable[[Tensor], Tensor]
_MOST_RATIO = 4 / 3  # of the shares of the sides that a crop shows


def views_of(config: TtaConfig, height: int, width: int) -> list[View]:
    """Every view of images of that size: as they are, moved by whole pixels, cropped; and each of these mirrored."""
    shift = config.shift
    moves = [(-shift, 0), (shift, 0), (0, -shift), (0, shift)] if shift else []
    plain: list[View] = [_as_it_is, *(partial(_moved, right=x, down=y) for x, y in moves)]
    plain += [partial(_cropped, box=crop_box(config.crop_area, n, height, width)) for n in range(config.crops)]
    return [*plain, *(partial(_mirrored, view=view) for view in plain)] if config.horizontal_flip else plain


def crop_box(smallest_area: float, number: int, height: int, width: int) -> tuple[int, int, int, int]:
    """First row, first column, rows and columns of the crop of that number, in whole pixels.

    Area and ratio of the sides are drawn as by `training.augmentation.crop_area`.
    """
    area, ratio, top, left = view_generator(number).random(4)
    area = smallest_area + (1 - smallest_area) * area
    ratio = math.exp(math.log(_MOST_RATIO) * (2 * ratio - 1))
    shares = (min(1.0, math.sqrt(area / ratio)), min(1.0, math.sqrt(area * ratio)))
    rows, columns = (max(1, round(share * side)) for share, side in zip(shares, (height, width), strict=True))
    return int(top * (height - rows + 1)), int(left * (width - columns + 1)), rows, columns


def _as_it_is(images: Tensor) -> Tensor:
    return images


def _mirrored(images: Tensor, view: View) -> Tensor:
    return view(images).flip(-1)


def _moved(images: Tensor, right: int, down: int) -> Tensor:
    """Moved by whole pixels; zeros come in, as at training."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + height, left : left + width]


def _cropped(images: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """A part stretched to the whole image, bilinearly; bytes are rounded."""
    top, left, rows, columns = box
    part = images[..., top : top + rows, left : left + columns]
    stretched = F.interpolate(part.float(), size=images.shape[-2:], mode="bilinear", align_corners=False)
    return stretched if images.is_floating_point() else stretched.round().to(images.dtype)
