"""Which values become 0 and 255 where the scikit-learn classifier is fitted: of every feature, or of all pixels of images.

    low, high = fitted_range(images_NCHW, images=True)

Values beyond are cut off. What that would lose is warned of.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.types import DoubleArray

AnyArray = npt.NDArray[Any]
TAILS = (0.5, 99.5)  # percentiles that become 0 and 255
OUTLYING = 4  # so many times the range of the other images is an outlier's
FEW_LEVELS = 16


def fitted_range(images_NCHW: AnyArray, images: bool) -> tuple[DoubleArray | None, DoubleArray | None]:
    """Lower and upper bound, [F] of features or [1] of images; None for bytes, which are levels already."""
    if images_NCHW.dtype == np.uint8:
        return None, None
    if images:
        low, high = _image_range(images_NCHW)
        return np.array([low]), np.array([high])
    X = images_NCHW[:, :, 0, 0]
    low_F, high_F = np.percentile(X.astype(np.float64), TAILS, axis=0)
    flat = high_F <= low_F  # nearly constant: whatever differs still shows
    return np.where(flat, X.min(axis=0), low_F), np.where(flat, X.max(axis=0), high_F)


def _image_range(images_NCHW: AnyArray) -> tuple[float, float]:
    """The smallest and the largest value of all pixels, but for those of a few images with outliers.

    An outlier is a value of at most one image in 200 (and of at most one in smaller sets) that alone would make the
    range OUTLYING times as wide: one hot pixel would leave a few levels to all others. Warns of it, and of levels that
    are lost in other ways.
    """
    lowest, highest = (np.sort(extreme(images_NCHW, axis=(1, 2, 3)).astype(np.float64)) for extreme in (np.min, np.max))
    low, high = float(lowest[0]), float(highest[-1])
    few = max(1, len(images_NCHW) // 200)
    if len(images_NCHW) > 2 * few:
        inner_low, inner_high = float(lowest[few]), float(highest[-1 - few])
        if inner_high > inner_low and high - low > OUTLYING * (inner_high - inner_low):
            warnings.warn(
                f"X: pixels from {low:g} to {high:g}, but of all except {few} image(s) from {inner_low:g} to {inner_high:g}: "
                "what lies beyond is cut off",
                UserWarning,
                stacklevel=5,
            )
            return inner_low, inner_high
    _warn_of_lost_levels(images_NCHW, low, high)
    return low, high


def _warn_of_lost_levels(images_NCHW: AnyArray, low: float, high: float) -> None:
    """Warns when nearly all pixels, different as they are, become the same few of 256 levels."""
    if high <= low:
        return
    step = max(1, images_NCHW.size // 100_000)
    values = images_NCHW.reshape(-1)[::step].astype(np.float64)
    inner = np.sort(values)[len(values) // 200 : len(values) - len(values) // 200]
    levels = np.unique(((inner - low) / (high - low) * 255).round())
    if len(levels) < FEW_LEVELS and len(np.unique(inner)) > 4 * len(levels):
        warnings.warn(
            f"X: 99 % of the pixels lie between {inner[0]:g} and {inner[-1]:g} and become {len(levels)} of 256 levels, "
            f"because others reach from {low:g} to {high:g}; cut these off before fitting",
            UserWarning,
            stacklevel=6,
        )
