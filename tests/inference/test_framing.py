"""Cutting characters out of pictures: place, size, width of line and polarity, and pictures without any."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ensemble.config.schema import DataConfig
from ensemble.data import DATASETS, load_dataset
from ensemble.errors import DataError
from ensemble.inference.framing import find_ink, frame
from tests.inference.drawn_digits import draw, photograph

MNIST = DATASETS["mnist"].framing
SIZE = (28, 28)


def grey(picture):
    return np.asarray(picture.convert("L"), np.float64) / 255


def box_of(image):
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    return rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1


@pytest.mark.parametrize("digit", range(10))
def test_characters_lie_as_in_mnist(digit):
    framed = frame(grey(draw(digit, right=0.1, down=-0.08)), MNIST, SIZE)
    assert framed.inverted
    assert max(box_of(framed.image_HW)) in (19, 20)
    centre = ndimage.center_of_mass(framed.image_HW)
    assert np.abs(np.array(centre) - 14).max() <= 0.51
    assert framed.image_HW.max() == 255


@pytest.mark.parametrize("digit", [2, 4, 8])
def test_both_polarities_give_the_same_image(digit):
    dark = frame(grey(draw(digit, ink=30, paper=220)), MNIST, SIZE)
    light = frame(grey(draw(digit, ink=220, paper=30)), MNIST, SIZE)
    assert dark.inverted
    assert not light.inverted
    assert np.abs(dark.image_HW.astype(int) - light.image_HW).max() <= 3  # a pixel of the mask may round apart


@pytest.mark.parametrize("digit", [3, 5, 7])
def test_size_place_and_resolution_hardly_matter(digit):
    large = frame(grey(draw(digit, 400, 24)), MNIST, SIZE).image_HW.astype(float)
    for other in (
        draw(digit, 100, 6),
        draw(digit, 200, 12, right=0.12, down=0.1),
        draw(digit, 600, 12, scale=0.2333, right=0.3),
    ):
        image = frame(grey(other), MNIST, SIZE).image_HW.astype(float)
        assert np.corrcoef(image.ravel(), large.ravel())[0, 1] > 0.9


def test_thin_lines_are_widened_and_thick_ones_kept():
    """Mean depth times four is about a line's width plus one; MNIST's median is 4.7 so measured."""

    def width(picture):
        ink = frame(grey(picture), MNIST, SIZE).image_HW > 127
        return 4 * ndimage.distance_transform_edt(ink)[ink].mean() - 1

    hair, pen, brush = (width(draw(3, 400, line)) for line in (2, 8, 56))
    assert 2 <= hair <= 4.2
    assert abs(pen - hair) < 0.7
    assert brush > 1.3 * pen


def cut_closely(image, margin):
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    return np.pad(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], margin)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("margin", [0, 1, 2, 5])
def test_characters_cut_closely_are_found(margin, dark):
    """In a box of their own, where ink may cover half of the picture and reach all of its edges."""
    seen = []
    for digit in range(10):
        image = cut_closely(255 - np.asarray(draw(digit, 120, 14)), margin)
        framed = frame((255 - image if dark else image) / 255, MNIST, SIZE)
        assert framed.inverted == dark
        whole = frame(grey(draw(digit, 120, 14)), MNIST, SIZE)
        seen.append(np.corrcoef(framed.image_HW.ravel().astype(float), whole.image_HW.ravel())[0, 1])
    assert min(seen) > 0.85


@pytest.mark.parametrize("digit", [0, 6, 9])
@pytest.mark.parametrize("seed", range(2))
def test_photographs_give_nearly_what_a_clean_drawing_gives(digit, seed):
    framed = frame(grey(photograph(digit, seed)), MNIST, SIZE)
    clean = frame(grey(draw(digit, 320, 10)), MNIST, SIZE).image_HW.astype(float)
    assert framed.inverted
    assert np.corrcoef(framed.image_HW.astype(float).ravel(), clean.ravel())[0, 1] > 0.7


def test_dirt_is_left_out():
    clean = draw(1)
    dirty = clean.copy()
    for x, y in ((5, 5), (190, 20), (180, 195)):
        dirty.paste(0, (x, y, x + 3, y + 3))
    np.testing.assert_array_equal(frame(grey(clean), MNIST, SIZE).image_HW, frame(grey(dirty), MNIST, SIZE).image_HW)


def test_separate_bars_are_kept():
    """A 5 whose bar does not touch the rest keeps it."""
    picture = draw(5, 200, 8)
    picture.paste(255, (60, 62, 90, 72))
    mask, _ = find_ink(grey(picture), None)
    assert ndimage.label(mask, structure=np.ones((3, 3)))[1] == 2


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((50, 80), 0.7),
        np.linspace(0, 1, 4000).reshape(50, 80),
        0.5 + 0.01 * np.random.default_rng(0).standard_normal((60, 60)),
        np.zeros((1, 1)),
    ],
)
def test_empty_pictures_are_refused(pixels):
    with pytest.raises(DataError, match="nothing is drawn here"):
        frame(pixels, MNIST, SIZE)


def test_the_wrong_polarity_finds_nothing():
    with pytest.raises(DataError, match="--no-invert may be the wrong one"):
        frame(grey(draw(3)), MNIST, SIZE, invert=False)


def test_other_framings_lie_as_their_sets_do():
    emnist = frame(grey(draw(4)), DATASETS["emnist_digits"].framing, SIZE).image_HW
    assert max(box_of(emnist)) == 24
    counted = frame(grey(draw(4)), DATASETS["digits"].framing, SIZE).image_HW
    digits = load_dataset(DataConfig(name="digits"))
    heights = {box_of(image > 60)[0] for image in digits.train_images_NCHW[:200, 0]}
    assert box_of(counted > 60)[0] in heights == {28}
