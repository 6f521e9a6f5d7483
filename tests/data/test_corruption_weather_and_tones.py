"""Fog, snow, spatter and changed tones: values by hand, properties, and colours by colorsys."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from ensemble.data.corruptions import Corruption, corrupt
from ensemble.data.corruptions.recipes import kind_of
from ensemble.data.corruptions.spatter import _distance_to, _equalised, byte_edges
from ensemble.data.corruptions.weather import plasma
from ensemble.types import ByteArray
from tests.data.plain_images import COLOURS_N, DIGITS_N, flat

RANDOM = np.random.default_rng(6)


def test_a_height_map_by_hand() -> None:
    """Side 2, on a torus: all corners are one point, at 0, and a side's middle has the centre on both sides."""
    centre, upper, left = 0.5, -0.2, 0.8
    heights = np.array([(0.0, centre / 2 + upper), (centre / 2 + left, centre)])  # in units of w^2
    expected = (heights - heights.min()) / (heights.max() - heights.min())
    found = plasma(np.array([(centre, upper, left)], dtype=np.float32), 3.0, 2, 2)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_height_maps_point_by_point() -> None:
    """Every point the mean of its four neighbours on the coarser grid, on a torus, and its noise, in the order that is promised."""
    side, decay = 8, 1.7
    noise = RANDOM.uniform(-1, 1, side * side - 1).astype(np.float32)
    left = iter(noise.tolist())
    heights = {(0, 0): 0.0}

    def add(y: int, x: int, neighbours: list[tuple[int, int]]) -> None:
        mean = sum(heights[(y + down) % side, (x + right) % side] for down, right in neighbours) / 4
        heights[y, x] = mean + wobble**2 * next(left)

    spacing, wobble = side, 100.0
    while spacing > 1:
        half = spacing // 2
        starts = [(y, x) for y in range(0, side, spacing) for x in range(0, side, spacing)]
        for y, x in starts:
            add(y + half, x + half, [(-half, -half), (-half, half), (half, -half), (half, half)])
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for y, x in starts:
            add(y, x + half, straight)
        for y, x in starts:
            add(y + half, x, straight)
        spacing, wobble = half, wobble / decay
    expected = np.array([[heights[y, x] for x in range(side)] for y in range(side)])
    expected = (expected - expected.min()) / np.ptp(expected)
    np.testing.assert_allclose(plasma(noise[None].copy(), decay, 8, 8)[0], expected, atol=1e-6)
    np.testing.assert_allclose(plasma(noise[None].copy(), decay, 5, 7)[0], expected[:5, :7], atol=1e-6)


def test_fog_brightens_the_dark_and_keeps_the_brightest_value() -> None:
    assert not corrupt(flat(0), Corruption("fog", 3), 0).any(), "the fog is as bright as the image"
    white = corrupt(flat(255, 60), Corruption("fog", 3), 0)
    assert white.max() == 255
    assert white.min() == 145  # 1 / (1 + 0.75) where the map is 0
    images = flat(0, 300, (1, 28, 28))
    images[:, :, :2] = 255
    spread = [
        np.ptp(corrupt(images, Corruption(f"{recipe}/fog", 5), 0)[:, 0, 2:], axis=(1, 2))
        for recipe in ("mnist_c", "cifar10_c")
    ]
    assert spread[0].mean() < spread[1].mean() / 2, "MNIST-C shows a corner of a larger map"


def test_snow_falls_downwards_and_whitens() -> None:
    images = flat(100, 200, (3, 32, 32))
    found = corrupt(images, Corruption("snow", 2), 0)
    layer = found.astype(int) - found.min()
    assert found.min() == int(0.9 * 100 + 0.1 * (1.5 * 100 + 127.5))
    assert np.array_equal(layer, layer[:, :, ::-1, ::-1]), "the same upside down"
    down, right = (np.abs(np.diff(layer, axis=axis)).mean() for axis in (2, 3))
    assert down < 0.8 * right, "flakes are drawn out from top to bottom"


def test_mud_covers_and_water_brightens() -> None:
    images = flat(200, 60, (3, 32, 32))
    mud = corrupt(images, Corruption("spatter", 4), 0)
    mixed = (200 - mud[:, 0].astype(float)) / (200 - 63)
    np.testing.assert_allclose(mixed, (200 - mud[:, 2].astype(float)) / (200 - 20), atol=0.013)
    assert set(np.unique(mixed > 0.79)) <= {True, False}
    assert ((mixed == 0) | (mixed > 0.79)).all()
    water = corrupt(flat(50, 60, (3, 32, 32)), Corruption("spatter", 3), 0)
    assert water.min() >= 49
    assert (water[:, 0] <= 50).mean() > 0.5, "dry places stay as they are"
    assert water[:, 0].max() == pytest.approx(50 + 175 / 2, abs=1.5)
    assert water[:, 1].max() == pytest.approx(50 + 238 / 2, abs=1.5)
    dark = corrupt(flat(200), Corruption("mnist_c/spatter", 4), 0)
    assert dark.min() < 63 + 0.21 * (200 - 63)


def test_filters_of_water_by_hand() -> None:
    edges = np.zeros((1, 9, 9), dtype=bool)
    edges[0, 2, 2] = True
    distance = _distance_to(edges)[0] / 65536
    np.testing.assert_allclose(distance[2, :5], [2, 1, 0, 1, 2])
    np.testing.assert_allclose(distance[[1, 1, 3, 3], [1, 3, 1, 3]], 1.4, atol=1e-4)
    knights = [(0, 1), (0, 3), (1, 0), (1, 4), (3, 0), (3, 4), (4, 1), (4, 3)]
    np.testing.assert_allclose([distance[place] for place in knights], 2.1969, atol=1e-4)
    np.testing.assert_allclose(
        [distance[3, 3], distance[4, 3], distance[5, 4], distance[4, 4]], [1.4, 2.1969, 3.5969, 2.8], atol=1e-4
    )
    assert (_distance_to(np.zeros((1, 9, 9), dtype=bool)) > 20 * 65536).all()
    # 5 of 8 values are the lowest; of the other three, one and then three are reached.
    assert _equalised(np.array([[[7, 7, 7, 7], [7, 9, 30, 30]]])).tolist() == [[[0, 0, 0, 0], [0, 85, 255, 255]]]
    assert _equalised(np.full((1, 2, 2), 20)).tolist() == [[[20, 20], [20, 20]]]
    step = np.zeros((1, 8, 8), dtype=np.uint8)
    step[:, :, 4:] = 40  # a derivative of 4 * 40 on both sides of the step, of which the left one wins
    assert np.argwhere(byte_edges(step, 50, 150)[0]).tolist() == [[y, 3] for y in range(8)]
    step[:, :, 4:] = 37  # 148, not above 150
    assert not byte_edges(step, 50, 150).any()


def test_contrast_by_hand() -> None:
    image = flat(0, 1, (2, 8, 8))
    image[0, 0, :4], image[0, 1] = 200, 40
    found = corrupt(image, Corruption("contrast", 2), 0)[0]
    assert np.abs(found[0, :4].astype(int) - 150).max() <= 1  # mean 100, distances halved
    assert np.abs(found[0, 4:].astype(int) - 50).max() <= 1
    assert np.abs(found[1].astype(int) - 40).max() <= 1


def with_grey_and_black() -> ByteArray:
    images = COLOURS_N.copy()
    images[0, :, 0], images[0, :, 1], images[0, :, 2] = 0, 99, 255
    return images


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["brightness", "saturate"])
def test_colours_are_those_of_colorsys(name: str, severity: int) -> None:
    images = with_grey_and_black()[:3]
    found = corrupt(images, Corruption(name, severity), 0)
    parameters = kind_of(name).parameters
    assert parameters is not None
    parameter = parameters[severity - 1]
    for pixel, after in zip(
        images.transpose(0, 2, 3, 1).reshape(-1, 3), found.transpose(0, 2, 3, 1).reshape(-1, 3), strict=True
    ):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        if name == "brightness":
            value = min(value + parameter, 1)
        else:
            saturation = min(max(saturation * parameter[0] + parameter[1], 0), 1)
        expected = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))
        assert ((after <= expected + 1e-6) & (after > expected - 1.001)).all()


def test_grey_images_have_no_colours_to_change() -> None:
    assert (corrupt(flat(100), Corruption("mnist_c/brightness", 5), 0) == 227).all()  # 100 + 127.5
    assert (corrupt(flat(200), Corruption("mnist_c/brightness", 5), 0) == 255).all()
    assert (corrupt(flat(100), Corruption("saturate", 4), 0) == 225).all()  # 2 * 100 + 25.5


def test_pixelate_takes_means_and_repeats_them() -> None:
    image = flat(0, 1, (1, 20, 20))
    image[..., 0, 0] = 255
    found = corrupt(image, Corruption("pixelate", 5), 0)[
        0, 0
    ]  # 13 pixels, the first over the centres of 2 x 2 of the 20
    assert np.argwhere(found).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert (found[:2, :2] == 64).all()
    assert (corrupt(flat(33), Corruption("pixelate", 5), 0) == 33).all()


def test_jpeg_loses_more_at_lower_quality() -> None:
    for images in (DIGITS_N[:10], COLOURS_N[:10], COLOURS_N[:10, :2]):
        errors = [
            np.abs(corrupt(images, Corruption("jpeg_compression", s), 0).astype(float) - images).mean()
            for s in (1, 3, 5)
        ]
        assert 0 < errors[0] < errors[1] < errors[2] < 60
    assert np.abs(corrupt(flat(128, 2, (3, 16, 16)), Corruption("jpeg_compression", 5), 0).astype(int) - 128).max() <= 1


def test_identity_changes_nothing() -> None:
    assert np.array_equal(corrupt(COLOURS_N, Corruption("identity"), 0), COLOURS_N)
