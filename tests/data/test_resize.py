"""Pictures of any proportions on rectangles: hand-made ones whose pixels are known, and Pillow's own scaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.data.pictures import fitted
from ensemble.data.pixel_rule import PixelRule
from ensemble.inference.prepare import Preparation, prepare
from tests.contracts.drawn_pictures import saved

Bytes = npt.NDArray[np.uint8]
CROP, PAD, SQUASH = PixelRule(), PixelRule(resize="pad"), PixelRule(resize="squash")


def numbered(height: int, width: int) -> Bytes:
    """Grey pixels that are all different, and none of them black or white."""
    return (np.arange(height * width) % 200 + 20).astype(np.uint8).reshape(height, width)


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("picture", "size", "rows", "columns"),
    [
        ((4, 8), (8, 8), slice(2, 6), slice(0, 8)),
        ((5, 8), (8, 8), slice(1, 6), slice(0, 8)),  # three rows to fill: one above, two below
        ((8, 3), (8, 8), slice(0, 8), slice(2, 5)),  # five columns: two left, three right
        ((8, 8), (8, 12), slice(0, 8), slice(2, 10)),
        ((6, 12), (10, 12), slice(2, 8), slice(0, 12)),
        ((1, 9), (4, 9), slice(1, 2), slice(0, 9)),
    ],
)
@pytest.mark.parametrize(("ground", "level"), [("white", 255), ("black", 0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_bars_lie_beside_a_picture_that_fits(
    picture: tuple[int, int], size: tuple[int, int], rows: slice, columns: slice, ground: Any, level: int, channels: int
) -> None:
    """One side is as long as asked, so nothing is scaled: the very pixels, and bars around them."""
    pixels = numbered(*picture)
    expected = np.full(size, level, np.uint8)
    expected[rows, columns] = pixels
    image = fitted(Image.fromarray(pixels), channels, size, PixelRule(ground=ground, resize="pad"))
    np.testing.assert_array_equal(image, np.broadcast_to(expected, (channels, *size)))


def test_a_picture_that_is_too_large_or_too_small_is_scaled_into_the_bars() -> None:
    for picture, inside in (((40, 80), (14, 28)), ((5, 10), (14, 28)), ((40, 30), (20, 15))):
        whole = fitted(noise(*picture), 3, (20, 28), PAD)
        scaled = np.asarray(noise(*picture).resize(inside[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        top, left = (20 - inside[0]) // 2, (28 - inside[1]) // 2
        np.testing.assert_array_equal(whole[:, top : top + inside[0], left : left + inside[1]], scaled)
        whole[:, top : top + inside[0], left : left + inside[1]] = 255
        assert (whole == 255).all(), "the rest is white"


def test_the_longest_of_pictures_keeps_a_line() -> None:
    image = fitted(Image.new("L", (4096, 1), 7), 1, (4, 6), PAD)[0]
    np.testing.assert_array_equal(image, [[255] * 6, [7] * 6, [255] * 6, [255] * 6])
    assert fitted(Image.new("L", (1, 4096), 7), 1, (4, 6), PAD)[0].tolist() == [[255, 255, 7, 255, 255, 255]] * 4


def test_squashing_is_pillow_s_resize_and_by_hand() -> None:
    for picture, size in (((40, 80), (20, 28)), ((7, 5), (28, 20)), ((20, 28), (28, 20))):
        expected = np.asarray(noise(*picture).resize(size[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        np.testing.assert_array_equal(fitted(noise(*picture), 3, size, SQUASH), expected)
    pair = Image.fromarray(np.array([[0, 100]], np.uint8))  # new pixels lie at 1/4 and 3/4 between the old ones
    assert fitted(pair, 1, (2, 4), SQUASH)[0].tolist() == [[0, 25, 75, 100]] * 2


def test_cropping_is_what_it_always_was() -> None:
    """Pillow's ImageOps.fit; also without a rule, as in runs of earlier versions."""
    for picture, size in (((40, 80), (8, 8)), ((9, 5), (20, 28)), ((50, 41), (28, 20))):
        expected = np.asarray(ImageOps.fit(noise(*picture), size[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        for image in (fitted(noise(*picture), 3, size), fitted(noise(*picture), 3, size, None)):
            np.testing.assert_array_equal(image, expected)
    wide = Image.fromarray(numbered(4, 10))
    np.testing.assert_array_equal(fitted(wide, 1, (4, 6))[0], numbered(4, 10)[:, 2:8])


@pytest.mark.parametrize("size", [(20, 28), (28, 20)])
def test_all_three_are_one_where_proportions_are_those_of_the_size(size: tuple[int, int]) -> None:
    for factor in (1, 2, 3):
        picture = noise(factor * size[0], factor * size[1])
        crop, pad, squash = (fitted(picture, 3, size, rule) for rule in (CROP, PAD, SQUASH))
        np.testing.assert_array_equal(pad, squash)
        np.testing.assert_array_equal(pad, crop)
    np.testing.assert_array_equal(fitted(noise(*size), 3, size, PAD), np.asarray(noise(*size)).transpose(2, 0, 1))


def test_with_a_ground_of_contrast_bars_stand_out_from_the_picture() -> None:
    rule = PixelRule(ground="contrast", resize="pad")
    assert fitted(Image.new("L", (4, 2), 200), 1, (4, 4), rule)[0, 0].tolist() == [0] * 4
    assert fitted(Image.new("RGB", (4, 2), (30, 90, 60)), 3, (4, 4), rule)[:, 3].tolist() == [[255] * 4] * 3


def test_bars_stay_what_they_were_at_training_where_a_negative_is_turned_round() -> None:
    drawing = numbered(4, 8)
    straight = prepare(Image.fromarray(drawing), "x", "mine", (1, 8, 8), False, False, PAD)
    turned = prepare(Image.fromarray(255 - drawing), "x", "mine", (1, 8, 8), True, False, PAD)
    assert turned.inverted
    np.testing.assert_array_equal(turned.image_CHW, straight.image_CHW)
    assert turned.image_CHW[0, 0].tolist() == [255] * 8


def test_the_rule_is_kept_as_json_and_older_runs_crop() -> None:
    assert CROP.to_json() == {"value_range": None, "wide_range": None, "ground": "white"}
    assert PAD.to_json() == {**CROP.to_json(), "resize": "pad"}
    for rule in (CROP, PAD, SQUASH, PixelRule((0.0, 9.0), None, "black", "pad")):
        assert PixelRule.from_json(rule.to_json()) == rule
    for wrong in ("stretch", None, 3, ["pad"]):
        with pytest.raises(ValueError, match="not a rule of reading pixels"):
            PixelRule.from_json({**CROP.to_json(), "resize": wrong})


def folder(root: Path) -> Path:
    """Pictures of three shapes, bytes and 16 bits and half transparent ones, in two classes."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i, shape in enumerate(((10, 20), (20, 10), (16, 16), (5, 40))):
            picture = noise(*shape) if i else Image.fromarray(numbered(*shape).astype(np.uint16) * 300)
            if i == 2:
                picture.putalpha(Image.new("L", shape[::-1], 128))
            picture.save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("resize", [None, "crop", "pad", "squash"])
@pytest.mark.parametrize("size", [12, (12, 18), (18, 12)], ids=str)
@pytest.mark.parametrize("ground", [None, "black"])
def test_training_and_predicting_read_the_same(tmp_path: Path, resize: Any, size: Any, ground: Any) -> None:
    root = folder(tmp_path / "set")
    data = load_dataset(DataConfig(name="image_folder", root=str(root), image_size=size, resize=resize, ground=ground))
    height, width = (size, size) if isinstance(size, int) else size
    assert data.image_shape == (3, height, width)
    assert data.pixels.resize == (resize or "crop")
    preparation = Preparation("set (image_folder)", data.image_shape, PixelRule.from_json(data.pixels.to_json()))
    for images, files in (
        (data.train_images_NCHW, data.train_files),
        (data.test_images_NCHW, data.test_files),
    ):
        for image, file in zip(images, files, strict=True):
            np.testing.assert_array_equal(preparation.read(file, root / file).image_CHW, image)
            np.testing.assert_array_equal(preparation.read(file, (root / file).read_bytes()).image_CHW, image)
            if resize == "pad" and file.endswith("3.png"):
                assert (image[:, 0] == (0 if ground else 255)).all(), "a bar above the widest picture"


@pytest.mark.parametrize("storage", ["memory", "mapped"])
def test_prepared_pictures_of_one_way_are_not_taken_for_those_of_another(
    tmp_path: Path, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    root = folder(tmp_path / "set")

    def read(resize: Any, storage: Any) -> Bytes:
        config = DataConfig(name="image_folder", root=str(root), image_size=(12, 18), resize=resize, storage=storage)
        data = load_dataset(config)
        assert data.pixels.resize == resize
        return np.array(data.train_images_NCHW)

    for _ in range(2):  # the second time from what is kept
        for resize in ("crop", "pad", "squash"):
            np.testing.assert_array_equal(read(resize, storage), read(resize, "memory"))
    assert not np.array_equal(read("crop", storage), read("pad", storage))


def test_a_square_may_be_written_in_both_ways(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    one, two = (
        load_dataset(DataConfig(name="image_folder", root=str(root), image_size=size)) for size in (12, (12, 12))
    )
    np.testing.assert_array_equal(one.train_images_NCHW, two.train_images_NCHW)


def test_a_turned_photograph_lies_upright_before_it_is_fitted() -> None:
    """EXIF's orientation comes first: a wide file that is to be shown tall has its bars left and right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(Image.new("L", (16, 8), 90), "JPEG", exif=exif)
    image = Preparation("mine", (1, 8, 8), PAD).read("x", content).image_CHW[0]
    np.testing.assert_array_equal(image, np.array([[255] * 2 + [90] * 4 + [255] * 2] * 8))
