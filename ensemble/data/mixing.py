"""Training images that are partly covered, and pairs of them that are mixed, on whole batches on their device.

    blend = draw_blend(config, 64, image_shape, keys_K, first)     # for positions first .. first + 63 in every member's epoch
    images = blended(images, blend)                                # [K, 64, C, H, W], standardised

The two of a pair are the first and the last image of a batch, the second and the last but one, and so on; in an epoch's
random order that is a random other image. Each of the two keeps a share of its own and takes the rest from the
other:

- mixup (Zhang et al. 2018): share * own + (1 - share) * other, the share from a Beta(alpha, alpha) distribution;
- CutMix (Yun et al. 2019): a rectangle of the other, with 1 - share of the area, at a random place; what lies outside the image
  is cut off, and the share is that of the pixels that are left.

With both, each image takes one of them with probability 1/2. The loss is mixed as the images are: share times that of the
own label, and the rest of the other's. Random erasing (Zhong et al. 2020) comes before: a rectangle of
2 to 33 percent of the area, its sides' ratio between 0.3 and 1/0.3, becomes the mean colour (zero, standardised).

What is drawn for an image depends on its member's key and its position in the epoch alone (see `counter_random`), and
which one is its other half on the batch size as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ensemble.config.recipe import AugmentationConfig
from ensemble.data.counter_random import SignedUniform, signed_uniform, stream_starts

# Which of an image's numbers says what, whatever else is switched on.
_SHARE, _WHICH, _Y, _X, _COVERS, _AREA, _RATIO, _TOP, _LEFT = range(9)
_KNOTS = 4096  # of the table of a Beta distribution's quantiles
_SMALLEST, _LARGEST, _RATIO_MOST = 0.02, 0.33, 1 / 0.3  # of random erasing, as published

Box = tuple[Tensor, Tensor, Tensor, Tensor]  # the first and the last but one row, and so with columns: [K, B] each


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """What becomes of the images of a batch; None for what is off.

    share_KB: how much of each image, and of its loss, is its own, float32; None: all. box: what comes from the other image where
    `cut_KB`. covered: what is covered.
    """

    share_KB: Tensor | None = None
    box: Box | None = None
    cut_KB: Tensor | None = None
    covered: Box | None = None


def draw_blend(
    config: AugmentationConfig,
    count: int,
    image_shape: tuple[int, int, int],
    keys_K: Tensor,
    first: int | Tensor,
    numbers: SignedUniform = signed_uniform,
) -> Blend:
    """What becomes of the images (C, H, W) at the positions first .. first + count - 1 of every key's epoch.

    The arguments are those of `augmentation.draw`; so is what may be recorded in a CUDA graph.
    """
    _, height, width = image_shape
    starts_N = stream_starts(_LEFT + 1, keys_K.device) + first
    uniform_NKB = (numbers(keys_K, starts_N, count, torch.float64) + 1) / 2
    covered, share, cut, box = None, None, None, None
    if config.erasing_probability:
        covered = _covered(uniform_NKB, config.erasing_probability, height, width)
    if config.mixup_alpha:
        share = _beta(uniform_NKB[_SHARE], config.mixup_alpha)
    if config.cutmix_alpha:
        side = (1 - _beta(uniform_NKB[_SHARE], config.cutmix_alpha)).sqrt()
        box = (
            *_stretch(uniform_NKB[_Y] * height, side * height, height),
            *_stretch(uniform_NKB[_X] * width, side * width, width),
        )
        kept = 1 - (box[1] - box[0]) * (box[3] - box[2]) / (height * width)
        cut = torch.ones_like(kept, dtype=torch.bool) if share is None else uniform_NKB[_WHICH] < 0.5
        share = kept if share is None else torch.where(cut, kept, share)
    return Blend(None if share is None else share.float(), box, cut, covered)


def blended(images: Tensor, blend: Blend, batch_last: int | None = None) -> Tensor:
    """The images as `blend` says: standardised ones [K, B, C, H, W], or [K, C, H, W, filled] where `batch_last` is B.

    Images that fill up a batch stay as they are; the given tensor may be changed in place.
    """
    own = images if batch_last is None else images[..., :batch_last]
    if blend.covered is not None:
        own = own.masked_fill(_over_pixels(_inside(blend.covered, images, batch_last), batch_last), 0)
    if blend.share_KB is not None:
        other = own.flip(1 if batch_last is None else -1)
        own = torch.lerp(other, own, _weights(blend, images, batch_last))
    if batch_last is None or batch_last == images.shape[-1]:
        return own
    images[..., :batch_last] = own
    return images


def _weights(blend: Blend, images: Tensor, batch_last: int | None) -> Tensor:
    """The weight of an image's own pixels, with an axis of one for the channels."""
    share_KB = blend.share_KB
    assert share_KB is not None
    share = share_KB[:, :, None, None] if batch_last is None else share_KB[:, None, None, :]
    if blend.box is not None and blend.cut_KB is not None:
        cut = blend.cut_KB[:, :, None, None] if batch_last is None else blend.cut_KB[:, None, None, :]
        share = torch.where(cut, (~_inside(blend.box, images, batch_last)).to(share.dtype), share)
    return _over_pixels(share, batch_last)


def _over_pixels(plane: Tensor, batch_last: int | None) -> Tensor:
    """[K, B, H, W] or [K, H, W, B] with an axis of one for the channels."""
    return plane.unsqueeze(2 if batch_last is None else 1)


def _inside(box: Box, images: Tensor, batch_last: int | None) -> Tensor:
    """Which pixels lie in each image's rectangle: bool [K, B, H, W], or [K, H, W, B] where the batch comes last."""
    height, width = images.shape[-2:] if batch_last is None else images.shape[2:4]
    y_H, x_W = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    if batch_last is None:
        top, bottom, left, right = (edge[:, :, None, None] for edge in box)
        return (y_H[:, None] >= top) & (y_H[:, None] < bottom) & (x_W >= left) & (x_W < right)
    top, bottom, left, right = (edge[:, None, None, :] for edge in box)
    y_H11, x_W1 = y_H[:, None, None], x_W[:, None]
    return (y_H11 >= top) & (y_H11 < bottom) & (x_W1 >= left) & (x_W1 < right)


def _stretch(centre: Tensor, length: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """From where to where a stretch around a centre reaches on an axis of so many pixels: whole numbers, cut off at its ends."""
    return (centre - length / 2).round().clamp(0, side), (centre + length / 2).round().clamp(0, side)


def _covered(uniform_NKB: Tensor, probability: float, height: int, width: int) -> Box:
    """The rectangle that random erasing covers; an empty one where it spares the image."""
    area = (_SMALLEST + uniform_NKB[_AREA] * (_LARGEST - _SMALLEST)) * height * width
    ratio = (math.log(_RATIO_MOST) * (2 * uniform_NKB[_RATIO] - 1)).exp()
    rows = (area * ratio).sqrt().round().clamp(1, height)
    columns = (area / ratio).sqrt().round().clamp(1, width)
    rows = torch.where(uniform_NKB[_COVERS] < probability, rows, 0)
    top = (uniform_NKB[_TOP] * (height - rows + 1)).floor()
    left = (uniform_NKB[_LEFT] * (width - columns + 1)).floor()
    return top, top + rows, left, left + columns


def _beta(uniform: Tensor, alpha: float) -> Tensor:
    """Numbers with a Beta(alpha, alpha) distribution, from uniform ones, by a table of its quantiles."""
    table = _quantiles(alpha, uniform.device)
    place = uniform * _KNOTS
    below = place.floor().clamp_(max=_KNOTS - 1)
    index = below.long()
    return torch.lerp(table[index], table[index + 1], place - below)


@lru_cache(maxsize=32)
def _quantiles(alpha: float, device: torch.device) -> Tensor:
    """Quantiles of Beta(alpha, alpha) at 0, 1/4096, ..., 1: float64; kept, because a CUDA graph cannot copy them from the host."""
    from scipy.special import betaincinv

    places = torch.arange(_KNOTS + 1, dtype=torch.float64) / _KNOTS
    return torch.from_numpy(betaincinv(alpha, alpha, places.numpy())).to(device)
