"""Moved images, drawn lines and edges: exact turns, values by hand, and the same maps by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from ensemble.data.corruptions import Corruption, corrupt
from ensemble.data.corruptions.drawing import _line
from ensemble.data.corruptions.edges import connected_to
from ensemble.data.corruptions.geometry import _affine_places
from ensemble.data.corruptions.resampling import Outside, Taps, resampled, taps_at
from ensemble.types import ByteArray, DoubleArray
from tests.data.plain_images import COLOURS_N, DIGITS_N, flat

RANDOM = np.random.default_rng(6)
OUTSIDE: tuple[Outside, ...] = ("zeros", "mirror", "reflect")


@pytest.mark.parametrize("quarters", [-4, -3, -2, -1, 0, 1, 2, 3, 4])
def test_quarter_turns_are_exact(quarters: int) -> None:
    found = corrupt(COLOURS_N, Corruption("rotate", 90 * quarters), 0)
    assert np.array_equal(found, np.rot90(COLOURS_N, quarters, axes=(2, 3)))
    oblong = COLOURS_N[:, :, :10]
    assert corrupt(oblong, Corruption("rotate", 90 * quarters), 0).shape == oblong.shape
    assert np.array_equal(corrupt(oblong, Corruption("rotate", 180), 0), oblong[:, :, ::-1, ::-1])


@pytest.mark.parametrize("degrees", [15, -30, 45, 100.5, 359])
def test_rotation_is_scipy_s(degrees: float) -> None:
    found = corrupt(DIGITS_N, Corruption("rotate", degrees), 0)
    expected = ndimage.rotate(DIGITS_N.astype(float), degrees, (3, 2), reshape=False, order=1, mode="grid-constant")
    other_way = ndimage.rotate(DIGITS_N.astype(float), -degrees, (3, 2), reshape=False, order=1, mode="grid-constant")
    error = min(np.abs(found - expected).max(), np.abs(found - other_way).max())
    assert error <= 1.001
    point = flat(0, 1, (1, 29, 29))
    point[..., 13:16, 24:27] = 255  # right of the middle; counter-clockwise it goes up
    y, _ = ndimage.center_of_mass(corrupt(point, Corruption("rotate", degrees), 0)[0, 0].astype(float))
    assert y == pytest.approx(14 - 11 * math.sin(math.radians(degrees)), abs=0.15)


def warped(images_NCHW: ByteArray, matrix_xy: DoubleArray) -> DoubleArray:
    """By scipy, in [0, 255]: value at (x, y) from matrix @ (x, y), about the centre of 28 x 28 pixels."""
    matrix = matrix_xy[::-1, ::-1]
    offset = 13.5 - matrix @ (13.5, 13.5)
    planes = [
        ndimage.affine_transform(image[0].astype(float), matrix, offset, order=1, mode="grid-constant")
        for image in images_NCHW
    ]
    return np.stack(planes)[:, None]


@pytest.mark.parametrize("name", ["shear", "mnist_c/rotate", "scale"])
@pytest.mark.parametrize("severity", [2, 5])
def test_maps_of_mnist_c(name: str, severity: int) -> None:
    found = corrupt(DIGITS_N, Corruption(name, severity), 0)
    angle = 0.2 * severity
    cosine, sine = math.cos(angle), math.sin(angle)
    factor = 1 / (1 - severity / 10)
    ways = {
        "shear": [np.array([(1, -sign * sine), (0, cosine)]) for sign in (-1, 1)],
        "mnist_c/rotate": [np.array([(cosine, -sign * sine), (sign * sine, cosine)]) for sign in (-1, 1)],
        "scale": [np.eye(2) * factor],
    }[name]
    errors_WN = np.stack([np.abs(found - warped(DIGITS_N, way)).max(axis=(1, 2, 3)) for way in ways])
    assert errors_WN.min(axis=0).max() <= 1.001
    taken = np.bincount(errors_WN.argmin(axis=0), minlength=len(ways))
    assert taken.min() >= 0.25 * len(DIGITS_N) / len(ways), "each direction about equally often"


def test_translation_goes_in_four_directions() -> None:
    found = corrupt(DIGITS_N, Corruption("translate", 3), 0)
    seen = set()
    for before, after in zip(DIGITS_N[:, 0], found[:, 0], strict=True):
        padded = np.pad(before, 3)
        places = [(y, x) for y in (0, 6) for x in (0, 6) if np.array_equal(after, padded[y : y + 28, x : x + 28])]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 4
    twice = corrupt(np.kron(DIGITS_N, np.ones((2, 2), np.uint8)), Corruption("translate", 3), 0)
    assert np.array_equal(twice, np.kron(found, np.ones((2, 2), np.uint8))), "twice as far at twice the size"


def test_what_lies_outside() -> None:
    """A row of 1, 2, 4, 8 at -1.5, -1, -0.25, 0.5, 3.25 and 4.5, in a plane of two equal rows."""
    plane = np.array([[[[1.0, 2.0, 4.0, 8.0]] * 2]])
    places = np.array([-1.5, -1.0, -0.25, 0.5, 3.25, 4.5, 1.0, 2.0])
    expected = {
        "zeros": [0, 0, 0.75, 1.5, 6, 0, 2, 4],
        "mirror": [3, 2, 1.25, 1.5, 7, 3, 2, 4],
        "reflect": [1.5, 1, 1, 1.5, 8, 6, 2, 4],
    }
    for outside in OUTSIDE:
        taps = taps_at(np.zeros(8), places, 2, 4, outside)
        assert resampled(plane, taps).ravel().tolist() == pytest.approx(expected[outside])
        of_one = Taps(taps.pixel[:, None], taps.weight[:, None])
        assert np.array_equal(resampled(plane, of_one), resampled(plane, taps)), "places of each image by itself"


def test_elastic_maps_take_their_points_along() -> None:
    y, x = _affine_places(np.zeros((1, 3, 2)), 16, 20)
    assert np.allclose(y.reshape(16, 20), np.indices((16, 20))[0])
    assert np.allclose(x.reshape(16, 20), np.indices((16, 20))[1])
    # The three points are (x, y) = (15, 13), (15, 3) and (5, 3); each pixel that one is moved to must come from it.
    moves = np.array([[(1, 2), (-3, 1), (2, -1)]])
    y, x = (place.reshape(16, 20) for place in _affine_places(moves, 16, 20))
    for (right, down), (move_right, move_down) in zip([(15, 13), (15, 3), (5, 3)], moves[0], strict=True):
        assert y[down + move_down, right + move_right] == pytest.approx(down)
        assert x[down + move_down, right + move_right] == pytest.approx(right)


def test_elastic_transform_keeps_what_is_flat_and_bends_more_from_level_to_level() -> None:
    for severity in range(1, 6):
        assert np.abs(corrupt(flat(90, 4), Corruption("elastic_transform", severity), 0).astype(int) - 90).max() <= 1
    rough = []
    stripes = np.zeros((40, 1, 32, 32), dtype=np.uint8)
    stripes[:, :, :, 16:] = 255
    for severity in (1, 5):
        column_NH = (corrupt(stripes, Corruption("elastic_transform", severity), 0)[:, 0] / 255).sum(axis=2)
        rough.append(np.abs(np.diff(column_NH, 2, axis=1)).mean())
    assert rough[0] < 0.1 < 0.25 < rough[1], "a straight edge stays straight at 1 alone"


def test_stripes_are_the_outer_quarters() -> None:
    for width, quarter in ((28, 7), (32, 8)):
        image = RANDOM.integers(0, 256, (2, 1, 20, width), dtype=np.uint8)
        expected = image.copy()
        for part in (slice(None, quarter), slice(width - quarter, None)):
            expected[..., part] = 255 - expected[..., part]
        assert np.array_equal(corrupt(image, Corruption("stripe"), 0), expected)


def test_dotted_lines() -> None:
    found = corrupt(flat(0, 200, (1, 28, 28)), Corruption("dotted_line"), 0)[:, 0]
    assert [x for x in range(28) if found[:, :, x].any()] == [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26]
    level = [image for image in found if len({int(row) for row in image[:, [2, 26]].argmax(axis=0)}) == 1]
    column = next(image for image in level if 3 <= image[:, 2].argmax() <= 24)[:, 2]
    row = int(column.argmax())
    one_off = int(255 * (math.log(1 - 1 / 2.3) + 1))
    assert column[row - 2 : row + 3].tolist() == [0, one_off, 255, one_off, 0], "a stroke of three pixels"
    starts = {int(image[:, 2].argmax()) for image in found}
    assert len(starts) > 20


def test_strokes_end_where_their_ends_are() -> None:
    column0, row0, column1, row1 = (np.array([place]) for place in (2.5, 3.0, 6.2, 4.0))
    stroke = _line(column0, row0, column1, row1, 28, 28)[0]
    assert np.flatnonzero(stroke.any(axis=0)).tolist() == [2, 3, 4, 5, 6]
    middle = 3 + (5 - 2.5) / (6.2 - 2.5)  # 3.68 in column 5
    expected = [max(0.0, math.log(1 - min(abs(row - middle), 2.29) / 2.3) + 1) for row in range(28)]
    np.testing.assert_allclose(stroke[:, 5], expected)


def test_zigzags() -> None:
    found = corrupt(flat(0, 300, (1, 28, 28)), Corruption("zigzag"), 0)[:, 0]
    assert not found[:, :, :2].any()
    assert not found[:, :, 26:].any()
    peaks = found.argmax(axis=1)[:, 4:24].astype(int)  # the row of the stroke in columns 4 to 23
    inside = [image for image, peak in zip(found, peaks, strict=True) if peak.min() > 5 and peak.max() < 22]
    # A level one: corners at columns 2, 4, 8, 12, ... in rows 0, +2, -2, +2, ... from the first; rows count downwards.
    level = next(
        image
        for image in inside
        if image[:, 2:].argmax(axis=0)[[2, 6, 10]].tolist() == [k + image[:, 2].argmax() for k in (2, -2, 2)]
    )
    start = int(level[:, 2].argmax())
    assert [int(level[:, x].argmax()) - start for x in (2, 4, 6, 8, 10, 12, 14)] == [0, 2, 0, -2, 0, 2, 0]


def test_canny_finds_steps_and_no_slopes() -> None:
    image = flat(0, 3, (1, 28, 28))
    image[0, 0, 8:20, 8:20] = 255
    image[1, 0] = np.arange(28) * 6  # a slope of 0.19 in the derivative of Sobel, everywhere the same
    image[2, 0, :, 14:] = 4  # a faint step
    found = corrupt(image, Corruption("canny_edges"), 0)[:, 0]
    assert set(np.unique(found[0])) == {0, 255}
    assert not found[1].any()
    assert not found[2].any()
    assert not found[0, 10:18, 10:18].any(), "not inside the square"
    assert not found[0, :6].any()
    for line in (found[0, 14], found[0, :, 14]):
        assert 2 <= (line > 0).sum() <= 4
        assert set(np.flatnonzero(line)) <= {7, 8, 19, 20}


def test_weak_edges_need_a_strong_pixel_in_their_own_plane() -> None:
    wide = np.zeros((2, 4, 5), dtype=bool)
    wide[0, 0, :2] = wide[0, 1, 2] = wide[0, 3, 4] = wide[1, 0, 0] = True
    narrow = np.zeros_like(wide)
    narrow[0, 0, 0] = True
    kept = connected_to(wide, narrow)
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2]], "corners join, planes do not"
