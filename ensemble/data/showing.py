"""An image of any number of channels as one that can be looked at."""

from __future__ import annotations

import numpy as np

from ensemble.types import ByteArray


def viewable(image_CHW: ByteArray) -> ByteArray:
    """Grey [H, W], or colour [H, W, 3] where there are three channels; of any other number of channels their mean."""
    if len(image_CHW) == 3:
        return np.ascontiguousarray(image_CHW.transpose(1, 2, 0))
    if len(image_CHW) == 1:
        return np.ascontiguousarray(image_CHW[0])
    mean_HW: ByteArray = np.rint(image_CHW.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return mean_HW


def how_shown(channels: int) -> str:
    """What a reader must know of the pictures; "" where they are shown as they are."""
    return "" if channels in (1, 3) else f"These images have {channels} channels; shown is the mean over them."
