"""Sampling whole batches of images once, bilinearly, at source coordinates of each image's own; zeros lie outside.

    moved_BCHW = sampled(images_BCHW, source_B23)       # output pixel (x, y, 1) from the image centre -> source pixel

Where coordinates fall on pixels the very pixels come out, so moves by whole pixels, mirrors and the identity are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """From pixels to the [-1, 1] of grid_sample, for images padded with zeros to sides that are powers of two.

    With such sides the conversion is exact in float32, so moves by whole pixels, mirrors and the identity return the
    very pixels; for a side of 28 they would be blurred by rounding.
    """

    x_W: Tensor
    y_H: Tensor
    unit_21: Tensor
    centre_2: Tensor
    identity_2HW: Tensor
    padding: tuple[int, int, int, int]


@lru_cache(maxsize=32)
def frame_of(height: int, width: int, device: torch.device, margin: int = 0) -> Frame:
    """The frame of images of that size; kept, because copying constants to a GPU costs more than using them.

    margin: on each side, of images that are sampled to so much less.
    """
    sides = [1 << (side - 1).bit_length() for side in (width, height)]
    before = [(full - side) // 2 for full, side in zip(sides, (width, height), strict=True)]
    after = [full - side - b for full, side, b in zip(sides, (width, height), before, strict=True)]
    x_W, y_H = (
        torch.arange(side - 2 * margin, dtype=torch.float32) - (side - 2 * margin - 1) / 2 for side in (width, height)
    )
    unit_2 = torch.tensor([2 / full for full in sides])
    centre_2 = torch.tensor(
        [(side + 2 * b) / full - 1 for side, b, full in zip((width, height), before, sides, strict=True)]
    )
    identity_2HW = torch.stack(torch.meshgrid(x_W, y_H, indexing="xy")) * unit_2[:, None, None]
    return Frame(
        x_W.to(device),
        y_H.to(device),
        unit_2[:, None].to(device),
        centre_2.to(device),
        (identity_2HW + centre_2[:, None, None]).to(device),
        (before[0], after[0], before[1], after[1]),
    )


def sampled(
    images_BCHW: Tensor, source_B23: Tensor | None, displacement_B2HW: Tensor | None = None, margin: int = 0
) -> Tensor:
    """The images at their source coordinates, which a displacement in grid units is added to.

    source_B23: output pixel -> source pixel, both from the image centre; None: each pixel comes from its own place.
    margin: the result has so many pixels less on each side than the images.
    """
    frame = frame_of(*images_BCHW.shape[2:], images_BCHW.device, margin)
    if source_B23 is not None:
        rows_B23 = source_B23 * frame.unit_21
        constant_B2 = rows_B23[:, :, 2] + frame.centre_2
        # Two outer products and one sum of planes: much faster than affine_grid's batched product.
        across_B2W = rows_B23[:, :, 0, None] * frame.x_W
        down_B2H = rows_B23[:, :, 1, None] * frame.y_H + constant_B2[:, :, None]
        grid_B2HW = across_B2W[:, :, None, :] + down_B2H[:, :, :, None]
        if displacement_B2HW is not None:
            grid_B2HW += displacement_B2HW
    else:
        assert displacement_B2HW is not None, "neither source nor displacement"
        grid_B2HW = displacement_B2HW + frame.identity_2HW
    padded = F.pad(images_BCHW, frame.padding) if any(frame.padding) else images_BCHW
    return F.grid_sample(padded, grid_B2HW.permute(0, 2, 3, 1), padding_mode="zeros", align_corners=False)
