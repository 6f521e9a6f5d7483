"""Saturation, hue, grey and blur of whole batches on their device, each image by parameters of its own.

    images_BCHW = saturated(images_BCHW, factor_B)        # images: float32 in [0, 1], of one channel or red, green, blue

The formulas are those of torchvision's ColorJitter, RandomGrayscale and GaussianBlur. Each image is computed by itself, in an
order that does not depend on how many are in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

RED, GREEN, BLUE = 0.2989, 0.587, 0.114  # shares of a grey, of ITU-R BT.601 as torchvision rounds them
SMALLEST_SIGMA = 0.1  # of a blur, in pixels
_SIGMAS = 3.0  # how far a blur reaches

# Changes some images: the images, and which of the batch they are.
Change = Callable[[Tensor, Tensor | slice], Tensor]


def changed_where(chosen_B: Tensor, images_BCHW: Tensor, change: Change, whole: bool) -> Tensor:
    """The images, those that are chosen changed. The given ones may be changed in place.

    whole: compute all of them and take what is wanted, as a CUDA graph needs it, where shapes cannot depend on data; otherwise
    only those that are chosen are computed. Both give the same bits.
    """
    if whole:
        return torch.where(chosen_B[:, None, None, None], change(images_BCHW, slice(None)), images_BCHW)
    rows = chosen_B.nonzero().flatten()
    if len(rows):
        images_BCHW[rows] = change(images_BCHW[rows], rows)
    return images_BCHW


def greys(images_BCHW: Tensor) -> Tensor:
    """The grey of every pixel, [B, 1, H, W]; images of one channel are that already."""
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    red, green, blue = images_BCHW.unbind(1)
    return (RED * red + GREEN * green + BLUE * blue)[:, None]


def blended(images_BCHW: Tensor, others: Tensor, factor_B: Tensor) -> Tensor:
    """factor * image + (1 - factor) * other, cut off to [0, 1]: factors above 1 lead away from the other."""
    factor = factor_B[:, None, None, None]
    return (images_BCHW * factor + others * (1 - factor)).clamp_(0, 1)


def saturated(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Colours weaker for factors below 1 (0: grey), stronger above."""
    return blended(images_BCHW, greys(images_BCHW), factor_B)


def turned(images_BCHW: Tensor, turns_B: Tensor) -> Tensor:
    """Hues moved by a share of the colour circle; saturation and value (of HSV) stay."""
    red, green, blue = images_BCHW.unbind(1)
    value, least = images_BCHW.amax(1), images_BCHW.amin(1)
    chroma = value - least
    # Sixths of the circle, from red; of greys any will do.
    span = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / span,
        torch.where(value == green, (blue - red) / span + 2, (red - green) / span + 4),
    )
    sixths = sixths + 6 * turns_B[:, None, None]
    return torch.stack([_channel(sixths, at, value, chroma) for at in (5, 3, 1)], 1)


def _channel(sixths: Tensor, at: int, value: Tensor, chroma: Tensor) -> Tensor:
    """One of red (5), green (3) and blue (1) of colours with such hues: value, less chroma as far as it lies across the circle."""
    place = torch.remainder(sixths + at, 6)
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


def blur_radius(largest_sigma: float, height: int, width: int) -> int:
    """Pixels to each side that a blur of up to this sigma takes in; less than the image has, since its edges are mirrored."""
    return min(math.ceil(_SIGMAS * largest_sigma), min(height, width) - 1)


def blurred(images_BCHW: Tensor, sigma_B: Tensor, radius: int) -> Tensor:
    """A Gaussian of sigma pixels, cut off at the radius, along both axes; what lies outside is the mirrored image."""
    distances = torch.arange(-radius, radius + 1, device=images_BCHW.device, dtype=torch.float64)
    weights_BT = (-(distances**2) / (2 * sigma_B[:, None].double().clamp(min=SMALLEST_SIGMA) ** 2)).exp()
    weights_BT = (weights_BT / weights_BT.sum(1, keepdim=True)).float()
    for axis, padding in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        side = images_BCHW.shape[axis]
        padded = F.pad(images_BCHW, padding, mode="reflect")
        parts = (padded.narrow(axis, t, side) * weights_BT[:, t, None, None, None] for t in range(2 * radius + 1))
        images_BCHW = next(parts)
        for part in parts:
            images_BCHW = images_BCHW + part
    return images_BCHW


def sometimes_blurred(images_BCHW: Tensor, sigma_B: Tensor, largest_sigma: float, whole: bool | None = None) -> Tensor:
    """Blurred where sigma is above 0. largest_sigma: that was drawn from. whole: see `changed_where`; by default on a GPU."""
    whole = images_BCHW.is_cuda if whole is None else whole
    radius = blur_radius(largest_sigma, *images_BCHW.shape[2:])
    images_BCHW = images_BCHW if whole else images_BCHW.clone()
    return changed_where(sigma_B > 0, images_BCHW, lambda images, rows: blurred(images, sigma_B[rows], radius), whole)
