"""Finds a drawn character in a picture and places it as the makers of a data set placed theirs.

    frame(grey_HW, Framing(box=20, centre="mass", stroke=2.4), (28, 28))

Ground and ink are told apart after a smooth ground (a lamp's gradient) is taken away, so a photograph of a sheet of
paper will do. The ink is made bilevel, lines thinner than usual are widened, the character is scaled into its box
with soft edges and put into the middle: what MNIST's makers did to NIST's bilevel forms (LeCun et al. 1998). One
character per picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ensemble.data import Framing
from ensemble.data.digits import enlarge
from ensemble.errors import DataError
from ensemble.types import ByteArray, DoubleArray

WORK_SIDE = 320  # pictures are brought to this size first, so that the figures below are in known pixels
CLOSE_UP = 0.4  # a character smaller than this share of the picture is looked at again from nearer
SPECK = 0.05  # pieces smaller than this share of the largest one are dirt
POINTS = 32  # side of the bilevel images whose points scikit-learn's digits count
TWO_LEVELS = (
    0.8  # share of the variance between dark and light pixels; drawings have 0.84 and more, photographs up to 0.77
)
NEAR_EDGE = 0.1  # of a side: a character nearer than this to opposite edges fills the picture
LEAST_CONTRAST = 0.06  # of full range, between ink and ground

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Framed:
    """The placed character, light on black, and whether the picture was dark on light."""

    image_HW: ByteArray
    inverted: bool


def frame(grey_HW: DoubleArray, framing: Framing, size: tuple[int, int], invert: bool | None = None) -> Framed:
    """The character of a grey picture with values in [0, 1], as `size` (height, width) bytes.

    invert: True for dark on light, False for light on dark, None to find out. Raises DataError when nothing stands
    out from the ground.
    """
    mask, inverted = find_ink(grey_HW, invert)
    if framing.blocks:
        points = _place(_scaled(mask, framing, (POINTS, POINTS)), framing, (POINTS, POINTS)) > 127
        block = POINTS // framing.blocks
        counts = points.reshape(framing.blocks, block, framing.blocks, block).sum(axis=(1, 3))
        return Framed(enlarge(counts[None].astype(np.int64))[0], inverted)
    return Framed(_place(_scaled(mask, framing, size), framing, size), inverted)


def find_ink(grey_HW: DoubleArray, invert: bool | None) -> tuple[Mask, bool]:
    """Which pixels of the (resized) picture are ink, cropped to the character; and whether it is dark on light."""
    grey_HW = _with_margin(grey_HW)
    work = _resized(grey_HW, WORK_SIDE)
    mask, inverted = _ink(work, invert)
    top, bottom, left, right = _box(mask)
    if max(bottom - top, right - left) < CLOSE_UP * max(mask.shape):
        scale = max(grey_HW.shape) / max(work.shape)
        margin = max(bottom - top, right - left) // 2
        rows = slice(int(max(top - margin, 0) * scale), int(np.ceil((bottom + margin) * scale)))
        columns = slice(int(max(left - margin, 0) * scale), int(np.ceil((right + margin) * scale)))
        mask, inverted = _ink(_resized(grey_HW[rows, columns], WORK_SIDE), inverted)
        top, bottom, left, right = _box(mask)
    return mask[top:bottom, left:right], inverted


def _with_margin(grey_HW: DoubleArray) -> DoubleArray:
    """A picture that its character nearly fills, with a margin of its ground around it; any other as it is.

    Ink on much of the picture and of its border would be taken for the ground. Only pictures of two clear levels are
    cut so closely; an uneven light gives less than TWO_LEVELS.
    """
    threshold, share = _threshold(grey_HW)
    light = grey_HW > threshold
    border = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    ground_is_light = border.mean() > 0.5
    ink = light != ground_is_light
    if share < TWO_LEVELS or not ink.any():
        return grey_HW
    top, bottom, left, right = _box(_without_specks(ink))
    height, width = ink.shape
    if min(top, height - bottom) > NEAR_EDGE * height or min(left, width - right) > NEAR_EDGE * width:
        return grey_HW
    ground = float(np.median(grey_HW[~ink]))
    return np.pad(grey_HW, max(height, width) // 4 + 2, constant_values=ground)


def _threshold(grey_HW: DoubleArray) -> tuple[float, float]:
    """The level that parts a picture into two best, and the share of its variance that lies between them (Otsu 1979)."""
    counts, _ = np.histogram(grey_HW, 256, (0, 1))
    share, level = counts / counts.sum(), (np.arange(256) + 0.5) / 256
    below, mean = np.cumsum(share)[:-1], np.cumsum(share * level)
    weight = np.maximum(below * (1 - below), 1e-12)
    between = (mean[-1] * below - mean[:-1]) ** 2 / weight
    best = int(between.argmax())
    variance = float((share * level**2).sum() - mean[-1] ** 2)
    return (best + 1) / 256, float(between[best]) / max(variance, 1e-12)


def _ink(grey_HW: DoubleArray, invert: bool | None) -> tuple[Mask, bool]:
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(grey_HW, WORK_SIDE / 320)
    above = smooth - _ground(smooth)
    noise = 1.4826 * float(np.median(np.abs(above)))
    least = max(4 * noise, LEAST_CONTRAST)
    energy = [float((np.maximum(sign * above - least, 0) ** 2).sum()) for sign in (1, -1)]
    inverted = energy[1] > energy[0] if invert is None else invert
    ink = -above if inverted else above
    standing_out = ink[ink > least]
    if standing_out.size < 12:
        raise DataError(
            "nothing is drawn here: no part of the picture stands out from its ground; expected one character, dark on "
            "light or light on dark" + ("" if invert is None else " (--invert or --no-invert may be the wrong one)")
        )
    mask = ink > max(least, 0.42 * float(np.percentile(standing_out, 90)))
    return _without_specks(mask), inverted


def _without_specks(mask: Mask) -> Mask:
    """The ink without pieces that are small beside the largest one."""
    from scipy import ndimage

    pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    areas[0] = 0
    kept: Mask = (areas >= SPECK * areas.max())[pieces] & mask
    return kept


def _ground(grey_HW: DoubleArray) -> DoubleArray:
    """A smooth ground: the quadratic surface with the least absolute deviation, which ink on less than half of the
    picture does not move. The border counts more, since a character rarely reaches it."""
    height, width = grey_HW.shape
    step = max(1, max(height, width) // 48)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    some, values = terms[::step, ::step].reshape(-1, 6), grey_HW[::step, ::step].ravel()
    importance = np.where((np.abs(x) > 0.85) | (np.abs(y) > 0.85), 3.0, 1.0)[::step, ::step].ravel()
    weights = importance
    for _ in range(25):  # least squares, reweighted towards least absolute deviations
        root = np.sqrt(weights)[:, None]
        coefficients = np.linalg.lstsq(some * root, values * root[:, 0], rcond=None)[0]
        weights = importance / np.maximum(np.abs(values - some @ coefficients), 1e-3)
    ground: DoubleArray = terms @ coefficients
    return ground


def _scaled(mask: Mask, framing: Framing, size: tuple[int, int]) -> ByteArray:
    """The ink scaled into the framing's box with soft edges, thin lines widened."""
    from PIL import Image
    from scipy import ndimage

    box = min(framing.box, *size)
    padded = np.pad(mask, max(mask.shape) // 4 + 2)
    inside = ndimage.distance_transform_edt(padded)
    stroke = max(4 * float(inside[padded].mean()) - 1, 1.0)  # a line of width w has a mean depth of about (w + 1) / 4
    usual = framing.stroke * max(mask.shape) / box
    if stroke < usual:
        padded = ndimage.distance_transform_edt(~padded) <= (usual - stroke) / 2
    top, bottom, left, right = _box(padded)
    ink = Image.fromarray((padded[top:bottom, left:right] * 255).astype(np.uint8))
    scale = box / max(ink.size)
    target = (max(1, round(ink.size[0] * scale)), max(1, round(ink.size[1] * scale)))
    return np.asarray(ink.resize(target, Image.Resampling.BILINEAR), np.uint8)


def _place(ink: ByteArray, framing: Framing, size: tuple[int, int]) -> ByteArray:
    """The ink on black, its centre of mass or its box in the middle, moved only as far as it stays inside."""
    corner = []
    for axis in (0, 1):
        middle = (ink.shape[axis] - 1) / 2
        wanted = (size[axis] - 1) / 2
        if framing.centre == "mass":
            profile = ink.sum(axis=1 - axis, dtype=np.float64)
            middle = float(profile @ np.arange(ink.shape[axis]) / profile.sum())
            wanted = size[axis] // 2  # MNIST's centres of mass lie on pixel 14 of 0..27
        corner.append(int(np.clip(round(wanted - middle), 0, size[axis] - ink.shape[axis])))
    placed = np.zeros(size, np.uint8)
    placed[corner[0] : corner[0] + ink.shape[0], corner[1] : corner[1] + ink.shape[1]] = ink
    return placed


def _box(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _resized(grey_HW: DoubleArray, longest: int) -> DoubleArray:
    """The picture with its longer side brought to `longest` pixels."""
    from PIL import Image

    scale = longest / max(grey_HW.shape)
    height, width = (max(1, round(side * scale)) for side in grey_HW.shape)
    image = Image.fromarray(np.asarray(grey_HW, np.float32))
    resample = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(image.resize((width, height), resample), np.float64)
