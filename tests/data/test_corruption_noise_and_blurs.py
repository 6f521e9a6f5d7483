"""Noise and blurs: distributions, kernels by hand, and the same by loops and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from ensemble.data.corruptions import Corruption, corrupt
from ensemble.data.corruptions.blurs import _partners, _through_glass, disk
from ensemble.data.corruptions.draws import Draws
from ensemble.data.corruptions.motion import blurred_along
from ensemble.data.corruptions.resampling import resampled, zoom_taps
from tests.data.plain_images import COLOURS_N, flat

RANDOM = np.random.default_rng(6)


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.04), (3, 0.08), (5, 0.10)])
def test_gaussian_noise_has_its_deviation(severity: int, deviation: float) -> None:
    values = (corrupt(flat(128), Corruption("gaussian_noise", severity), 0).astype(np.float64) + 0.5) / 255
    assert values.mean() == pytest.approx(128 / 255, abs=0.003)
    assert values.std() == pytest.approx(deviation, rel=0.02)
    below = corrupt(flat(0), Corruption("gaussian_noise", severity), 0) == 0
    assert below.mean() == pytest.approx(0.5 + (stats.norm.cdf(1 / 255, scale=deviation) - 0.5), abs=0.01)


def test_speckle_noise_grows_with_the_value() -> None:
    assert not corrupt(flat(0), Corruption("speckle_noise", 5), 0).any()
    for value in (40, 100):
        found = corrupt(flat(value), Corruption("speckle_noise", 4), 0).astype(np.float64)
        assert found.std() == pytest.approx(0.16 * value, rel=0.02)


@pytest.mark.parametrize(
    ("name", "severity", "photons"), [("mnist_c/shot_noise", 5, 3), ("shot_noise", 5, 50), ("shot_noise", 1, 500)]
)
@pytest.mark.parametrize("value", [1, 60, 255])
def test_shot_noise_has_the_poisson_distribution(name: str, severity: int, photons: int, value: int) -> None:
    found = corrupt(flat(value), Corruption(name, severity), 0).ravel()
    assert not corrupt(flat(0), Corruption(name, severity), 0).any()
    counts = np.arange(photons + 1)
    shown = (counts / photons * 255).astype(np.uint8)
    below = stats.poisson(value / 255 * photons).cdf(counts)
    for count in counts[shown < 255][:: max(1, photons // 20)]:
        # Counts that are shown as the same byte go together.
        last = np.flatnonzero(shown == shown[count])[-1]
        share = (found <= shown[count]).mean()
        assert share == pytest.approx(below[last], abs=1.95 / np.sqrt(found.size)), "Kolmogorov's limit of 0.1 %"


def test_shot_noise_is_drawn_for_every_byte_at_once() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 64).reshape(1, 1, 128, 128).repeat(20, axis=0)
    found = corrupt(ramp, Corruption("shot_noise", 1), 0)
    for value in (3, 120, 200):
        assert found[ramp == value].mean() == pytest.approx(
            value - 0.25, abs=4 * np.sqrt(value * 255 / 500 / 1280) + 0.3
        )


def test_impulse_noise_replaces_a_share_by_black_and_white() -> None:
    found = corrupt(flat(77), Corruption("mnist_c/impulse_noise", 4), 0)
    assert set(np.unique(found)) == {0, 77, 255}
    assert (found == 0).mean() == pytest.approx(0.085, abs=0.005)
    assert (found == 255).mean() == pytest.approx(0.085, abs=0.005)


def test_gaussian_blur_of_a_point() -> None:
    image = flat(0, 1, (1, 9, 9))
    image[0, 0, 4, 4] = 255
    weights = np.exp(-(np.arange(-4, 5) ** 2) / 2)
    weights /= weights.sum()
    expected = (255 * np.outer(weights, weights)).astype(np.uint8)
    assert np.array_equal(corrupt(image, Corruption("gaussian_blur", 5), 0)[0, 0], expected)


def test_glass_moves_pixels_and_keeps_colours() -> None:
    """At severity 1 the blur is too narrow to reach a neighbour: what is left is an order of the pixels."""
    found = corrupt(COLOURS_N, Corruption("glass_blur", 1), 0)
    for before, after in zip(COLOURS_N, found, strict=True):
        order = [sorted(map(tuple, image.reshape(3, -1).T.tolist())) for image in (before, after)]
        assert order[0] == order[1]
    assert np.array_equal(found[:, :, 0], COLOURS_N[:, :, 0]), "the first row is out of reach"
    assert np.array_equal(found[:, :, :, 0], COLOURS_N[:, :, :, 0])
    assert (found != COLOURS_N).any(axis=1).mean() > 0.7


@pytest.mark.parametrize(("distance", "rounds", "swapped"), [(1, 1, 1.0), (1, 2, 0.5), (4, 2, 0.5)])
def test_glass_is_a_row_of_swaps(distance: int, rounds: int, swapped: float) -> None:
    images = COLOURS_N[:3, :, :14, :13]
    partners = _partners(images, distance, rounds, Draws(0, "any", 0, 0), swapped)
    found = _through_glass(images, (0.0, 0.0), partners, distance)
    height, width = images.shape[2:]
    far = 0
    for n, image in enumerate(images):
        expected = image.copy()
        for turn in partners:
            for y in range(height - distance, distance, -1):
                for x in range(width - distance, distance, -1):
                    there = divmod(int(turn[y - distance - 1, x - distance - 1, n]), width)
                    far = max(far, abs(there[0] - y), abs(there[1] - x))
                    kept = expected[:, y, x].copy()
                    expected[:, y, x] = expected[:, there[0], there[1]]
                    expected[:, there[0], there[1]] = kept
        assert np.array_equal(found[n], expected)
    assert far == distance
    still = np.mean(
        partners
        == (np.indices((height, width))[0] * width + np.arange(width))[
            distance + 1 : height - distance + 1, distance + 1 : width - distance + 1, None
        ]
    )
    assert still == pytest.approx(1 - swapped + swapped / (2 * distance) ** 2, abs=0.06)


def test_glass_of_mnist_c_blurs_along_columns_alone() -> None:
    stripes = np.zeros((1, 1, 28, 28), dtype=np.uint8)
    stripes[..., ::2] = 200
    rows = corrupt(np.ascontiguousarray(stripes.swapaxes(2, 3)), Corruption("mnist_c/glass_blur", 1), 0)
    columns = corrupt(stripes, Corruption("mnist_c/glass_blur", 1), 0)
    assert columns[0, 0, 0, ::2].min() >= 100, "no blur along rows: the outermost stripe stays bright"
    assert columns[0, 0, :, 0].min() >= 199, "the first column is out of the swaps' reach"
    assert rows[0, 0, 4:-4, 0].max() < 150, "blurred along columns"


def test_defocus_kernels() -> None:
    plus = disk(1, 0.1)
    assert plus.shape == (5, 5)
    np.testing.assert_allclose(plus[1:4, 1:4], np.array([(0, 1, 0), (1, 1, 1), (0, 1, 0)]) / 5, atol=1e-12)
    np.testing.assert_allclose(disk(1.5, 0.1)[1:4, 1:4], 1 / 9, atol=1e-12)
    side = math.exp(-1 / (2 * 0.4**2))  # of a point: the softening's own weights, 1 and this, squared
    np.testing.assert_allclose(disk(0.3, 0.4)[0], np.array([side, 1, side]) * side / (1 + 2 * side) ** 2)
    assert disk(0.5, 0.6).sum() == pytest.approx(1)
    image = flat(0, 1, (1, 9, 9))
    image[0, 0, 4, 4] = 250
    found = corrupt(image, Corruption("defocus_blur", 5), 0)[0, 0]
    assert np.all(np.abs(found[3:6, 3:6].astype(int) - 250 / 9) <= 1)
    assert found.sum() == found[3:6, 3:6].sum()
    image[0, 0] = 0
    image[0, 0, 0] = 240  # mirrored about its first row: 3 of 9 pixels there, and in the next row
    found = corrupt(image, Corruption("defocus_blur", 5), 0)[0, 0]
    assert np.abs(found[:3, 4].astype(int) - [80, 80, 0]).max() <= 1


@pytest.mark.parametrize("shape", [(32, 32), (20, 29)])
def test_zoom_blur_is_a_mean_of_scipy_s_zooms(shape: tuple[int, int]) -> None:
    image = RANDOM.random(shape)
    image = np.floor(image * 255) / 255
    factors = [1 + k / 100 for k in range(16)]  # severity 3; arange(1, 1.16, 0.01) ends at 1.15
    total = image.copy()
    for factor in factors:
        kept = [math.ceil(side / factor) for side in shape]
        top, left = ((side - part) // 2 for side, part in zip(shape, kept, strict=True))
        large = ndimage.zoom(image[top : top + kept[0], left : left + kept[1]], factor, order=1)
        top, left = ((part - side) // 2 for side, part in zip(shape, large.shape, strict=True))
        total += large[top : top + shape[0], left : left + shape[1]]
    found = corrupt(np.rint(image * 255).astype(np.uint8)[None, None], Corruption("zoom_blur", 3), 0)[0, 0]
    assert np.abs(found - 255 * total / 17).max() <= 1.001


@pytest.mark.parametrize("factor", [1.0, 1.21, 1.75, 2.25])
def test_enlargements_are_scipy_s(factor: float) -> None:
    image = RANDOM.random((32, 32))
    kept = math.ceil(32 / factor)
    top = (32 - kept) // 2
    large = ndimage.zoom(image[top : top + kept, top : top + kept], factor, order=1)
    cut = (len(large) - 32) // 2
    found = resampled(image[None, None], zoom_taps(32, 32, factor))[0, 0]
    np.testing.assert_allclose(found, large[cut : cut + 32, cut : cut + 32], atol=1e-12)


def test_motion_smears_towards_the_pixels_before() -> None:
    image = flat(0, 4, (1, 11, 11))
    image[:, 0, 5, 5] = 240
    found = blurred_along(image, 2, 1.5, np.array([0.0, 90.0, 180.0, 45.0]))[:, 0]
    weights = np.exp(-(np.arange(5) ** 2) / 4.5)
    smear = np.floor(240 * weights / weights.sum() + 0.5).astype(np.uint8)
    assert smear[0] > smear[1] > smear[2] > smear[3] > smear[4] > 0
    assert found[0, 5, 1:6].tolist() == smear[::-1].tolist()
    assert found[1, 1:6, 5].tolist() == smear[::-1].tolist()
    assert found[2, 5, 5:10].tolist() == smear.tolist()
    # At 45 degrees the places are 0, 0.7, 1.4, 2.1 and 2.8 pixels away on each axis: 0, 1, 1, 2, 3.
    shares = 240 * weights / weights.sum()
    diagonal = [shares[4], shares[3], shares[1] + shares[2], shares[0]]
    assert [found[3, k, k] for k in (2, 3, 4, 5)] == [math.floor(share + 0.5) for share in diagonal]
    assert (found.sum(axis=(1, 2)) >= 238).all()


def test_motion_keeps_what_is_flat_and_goes_on_at_the_border() -> None:
    for value in (1, 77, 255):
        assert (corrupt(flat(value, 20), Corruption("motion_blur", 5), 0) == value).all()
    ramp = np.tile(np.arange(0, 80, 10, dtype=np.uint8), (1, 1, 8, 1))
    found = blurred_along(ramp, 3, 2.0, np.array([0.0]))[0, 0]
    assert (found[:, -1] == 70).all(), "outside it goes on with the last column"
    assert (found[:, -2] > 60).all()
