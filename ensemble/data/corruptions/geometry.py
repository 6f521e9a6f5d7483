"""Moved and bent images: shear, rotation, scale, translation and elastic distortion.

Those of MNIST-C (Mu and Gilmer 2019) keep the image's centre, interpolate bilinearly and take zeros from outside; where
it says pixels it means those of an image with 28, so that a wider one is moved further. The rotation by any angle is that of
Ovadia et al., "Can you trust your model's uncertainty?" (NeurIPS 2019).
"""

from __future__ import annotations

import math

import numpy as np

from ensemble.data.corruptions.blurs import smoothed
from ensemble.data.corruptions.draws import Draws
from ensemble.data.corruptions.pixels import to_bytes, to_fractions
from ensemble.data.corruptions.resampling import resampled, taps_at
from ensemble.types import ByteArray, DoubleArray

# A linear map ((a, b), (c, d)) takes the place (x, y) of a pixel of the result, from the centre, to where its value is
# found: (a x + b y, c x + d y).
Linear = tuple[tuple[float, float], tuple[float, float]]


def shear(images_NCHW: ByteArray, angle: float, draws: Draws) -> ByteArray:
    """Sheared by an angle in radians, in a random direction.

    As skimage.transform.AffineTransform meant a shear at the time of the paper: columns are turned and keep their
    length, where versions since 0.19 would stretch them.
    """
    maps: tuple[Linear, ...] = tuple(((1.0, -math.sin(c)), (0.0, math.cos(c))) for c in (-angle, angle))
    return _one_of(images_NCHW, maps, draws)


def rotate_at_random(images_NCHW: ByteArray, angle: float, draws: Draws) -> ByteArray:
    """Rotated by an angle in radians, in a random direction."""
    return _one_of(images_NCHW, (_turn(-angle), _turn(angle)), draws)


def scale(images_NCHW: ByteArray, factor: float, draws: Draws) -> ByteArray:  # noqa: ARG001
    """Made smaller: `factor` pixels become one along each axis."""
    return _moved(images_NCHW, ((factor, 0.0), (0.0, factor)))


def translate(images_NCHW: ByteArray, pixels: int, draws: Draws) -> ByteArray:
    """Moved by so many of 28 pixels, left or right and up or down."""
    height, width = images_NCHW.shape[2:]
    signs_N2 = draws.signs("direction", (len(images_NCHW), 2))
    result = np.empty_like(images_NCHW)
    for right in (-1, 1):
        for down in (-1, 1):
            chosen_N = (signs_N2 == (right, down)).all(axis=1)
            shift = (right * pixels * width / 28, down * pixels * height / 28)
            result[chosen_N] = _moved(images_NCHW[chosen_N], ((1.0, 0.0), (0.0, 1.0)), shift)
    return result


def rotate(images_NCHW: ByteArray, degrees: float, draws: Draws) -> ByteArray:  # noqa: ARG001
    """Rotated counter-clockwise. By multiples of 180 degrees, on square images of 90, every pixel is one of the given ones."""
    quarters, rest = divmod(degrees, 90)
    square = images_NCHW.shape[2] == images_NCHW.shape[3]
    if rest == 0 and (square or quarters % 2 == 0):
        return np.rot90(images_NCHW, int(quarters), axes=(2, 3))
    return _moved(images_NCHW, _turn(math.radians(degrees)))


def _turn(angle: float) -> Linear:
    """Where the pixels of an image turned counter-clockwise by so many radians come from; y counts downwards."""
    return (math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))


def _one_of(images_NCHW: ByteArray, maps: tuple[Linear, ...], draws: Draws) -> ByteArray:
    """Each image by the first or by the second map, with probability 1/2."""
    first_N = draws.signs("direction", (len(images_NCHW),)) < 0
    result = np.empty_like(images_NCHW)
    for chosen_N, linear in zip((first_N, ~first_N), maps, strict=True):
        result[chosen_N] = _moved(images_NCHW[chosen_N], linear)
    return result


def _moved(images_NCHW: ByteArray, linear: Linear, shift: tuple[float, float] = (0.0, 0.0)) -> ByteArray:
    """The images at (x, y) mapped and shifted, about their centre."""
    height, width = images_NCHW.shape[2:]
    y_HW, x_HW = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    (a, b), (c, d) = linear
    x_HW, y_HW = a * x_HW + b * y_HW + shift[0], c * x_HW + d * y_HW + shift[1]
    taps = taps_at(y_HW.ravel() + (height - 1) / 2, x_HW.ravel() + (width - 1) / 2, height, width, "zeros")
    return to_bytes(resampled(to_fractions(images_NCHW), taps))


def elastic_transform(images_NCHW: ByteArray, parameters: tuple[float, float, float], draws: Draws) -> ByteArray:
    """A random affine map, then a smooth random displacement, as in CIFAR-10-C.

    parameters, as fractions of the image's smaller side: the size of the displacement, the standard deviation of its smoothing, and how
    far each of three points may go in the affine map, along each axis.
    """
    count, _, height, width = images_NCHW.shape
    side = min(height, width)
    size, sigma, reach = (part * side for part in parameters)
    y_NP, x_NP = _affine_places(draws.between("points", -reach, reach, (count, 3, 2)), height, width)
    fractions = resampled(to_fractions(images_NCHW), taps_at(y_NP, x_NP, height, width, "mirror"))
    if size > 0:
        noise = draws.between("displacement", -1, 1, (count, 2, height, width))
        moves_N2P = (smoothed(noise, sigma, "reflect", truncate=3.0) * size).reshape(count, 2, -1)
        y_P, x_P = (place.ravel() for place in np.indices((height, width)))
        taps = taps_at(y_P + moves_N2P[:, 1], x_P + moves_N2P[:, 0], height, width, "reflect")
        fractions = resampled(fractions, taps)
    return to_bytes(fractions)


def _affine_places(moves_N32: DoubleArray, height: int, width: int) -> tuple[DoubleArray, DoubleArray]:
    """Where pixels come from, y and x [N, P], when three points about the centre are moved by (x, y) and the plane with them.

    The points are a corner of a square, the one above it, and the one to the left of that; its half side is a third of
    the image's smaller side.
    """
    half = min(height, width) // 3
    centre = np.array([width // 2, height // 2])
    points_32 = centre + half * np.array([(1, 1), (1, -1), (-1, -1)])
    moved_N32 = points_32 + moves_N32
    # Columns of the map: what a step to the right and a step down become.
    right_N2 = (moved_N32[:, 1] - moved_N32[:, 2]) / (2 * half)
    down_N2 = (moved_N32[:, 0] - moved_N32[:, 1]) / (2 * half)
    (a, c), (b, d) = right_N2.T[..., None], down_N2.T[..., None]
    y_P, x_P = (place.ravel() for place in np.indices((height, width)))
    x_NP, y_NP = x_P - moved_N32[:, 1, :1], y_P - moved_N32[:, 1, 1:]
    determinant = a * d - b * c
    return (
        points_32[1, 1] + (a * y_NP - c * x_NP) / determinant,
        points_32[1, 0] + (d * x_NP - b * y_NP) / determinant,
    )
