"""The values of pixels: one rule for all pictures of a set, whatever a single one holds."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.data.pictures import decode, fitted, open_picture, plain
from ensemble.data.pixel_rule import Extremes, PixelRule, whole_range
from ensemble.errors import DataError
from tests.amounts import examples
from tests.contracts.drawn_pictures import files_of, png16, saved, tiff16

DRAW = np.random.default_rng(0)
GREY = DRAW.integers(0, 256, (9, 12)).astype(np.uint8)


def folder(root: Path, **keys: object) -> DataConfig:
    return DataConfig(name="image_folder", root=str(root), **{"image_size": 8, "channels": 1, **keys})


@pytest.mark.parametrize("name", files_of(GREY))
def test_every_form_of_a_picture_gives_its_pixels(name, tmp_path):
    (tmp_path / name).write_bytes(files_of(GREY)[name])
    for source in (tmp_path / name, files_of(GREY)[name]):
        np.testing.assert_array_equal(np.asarray(open_picture(source, "x").convert("L")), GREY)


def test_all_bits_of_16_bit_colours_are_seen():
    values = DRAW.integers(0, 65536, (5, 7, 4))
    for colour, channels in ((2, 3), (6, 4)):
        decoded = decode(png16(values[..., :channels], colour))
        np.testing.assert_array_equal(decoded.values, values[..., :3])
    np.testing.assert_allclose(decoded.alpha_HW, values[..., 3] / 65535)
    grey = decode(png16(values[..., :2], 4))
    np.testing.assert_array_equal(grey.values, values[..., 0])
    np.testing.assert_allclose(grey.alpha_HW, values[..., 1] / 65535)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colours_in_tiff_and_ppm(order):
    values = DRAW.integers(0, 65536, (5, 7, 4))
    np.testing.assert_array_equal(decode(tiff16(values[..., :3], order)).values, values[..., :3])
    np.testing.assert_array_equal(decode(tiff16(values, order)).values, values[..., :3])
    with pytest.raises(DataError, match="more than 8 bits per value"):  # which Pillow would mix up
        decode(tiff16(values[..., :3], order, planar=True))
    small = values[..., :3] % 4096
    ppm = b"P6\n7 5\n4095\n" + small.astype(">u2").tobytes()
    np.testing.assert_array_equal(decode(ppm).values, (small / 4095 * 65535).round())
    with pytest.raises(DataError, match="written as text"):
        decode(b"P3\n1 1\n4095\n0 1 4000\n")


@given(st.integers(0, 65534), st.sampled_from([None, (0.0, 4095.0), (-10.0, 300.0)]))
@settings(max_examples=examples(60), deadline=None)
def test_a_level_more_never_makes_a_picture_darker(level, given_range):
    """Nor by more than its share brighter: no brightness at which a picture is suddenly read on another scale."""
    rule = PixelRule(wide_range=given_range and (0.0, given_range[1]))
    low, high = rule.range_of(np.dtype(np.uint16))
    darker, brighter = (
        int(np.asarray(open_picture(saved(Image.fromarray(np.full((2, 2), value, np.uint16)), "PNG"), "x", rule))[0, 0])
        for value in (level, level + 1)
    )
    assert 0 <= brighter - darker <= np.ceil(255 / (high - low))


@given(st.integers(1, 2**31), st.integers(0, 1000))
@settings(max_examples=examples(50), deadline=None)
def test_the_range_holds_every_training_value(high, low):
    bottom, top = whole_range(Extremes(float(min(low, high)), float(high), floats=False), "x")
    assert bottom == 0
    assert top >= high
    assert top in (255, 1023, 4095, 16383, 65535) or top > 65535


def write_wide(root: Path, levels: dict[str, int], count: int = 6, width: int = 17) -> None:
    for name, level in levels.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = (level + DRAW.integers(-8, 9, (8, width))).clip(0).astype(np.uint16)
            Image.fromarray(pixels).save(root / name / f"{i}.png")


def test_twelve_bits_in_sixteen_keep_their_levels_and_it_is_said(tmp_path):
    write_wide(tmp_path / "train", {"high": 2120, "low": 2020})
    write_wide(tmp_path / "test", {"high": 5000, "low": 2020}, 2)
    data = load_dataset(folder(tmp_path))
    assert data.pixels == PixelRule(wide_range=(0.0, 4095.0))
    means = [data.train_images_NCHW[data.train_labels_N == k].mean() for k in (0, 1)]
    np.testing.assert_allclose(means, [2120 / 4095 * 255, 2020 / 4095 * 255], atol=0.6)
    remarks = {remark.text: remark.warning for remark in data.account.remarks()}
    said = next(text for text in remarks if "16-bit" in text)
    assert "of which 0 is read as black and 4095 as white; those beyond are cut off" in said
    assert remarks[said]  # the test part is brighter than the training part: a warning
    assert any("use only the levels" in text for text in remarks)
    given_range = load_dataset(folder(tmp_path, value_range=(2000.0, 2200.0)))
    assert np.ptp(given_range.train_images_NCHW) > 120


def test_the_range_is_chosen_from_the_training_part_alone(tmp_path):
    """Also where the test part is split off: its values are not looked at."""
    write_wide(tmp_path, {"a": 900, "b": 500}, 10)
    before = load_dataset(folder(tmp_path))
    held = {image.tobytes() for image in before.test_images_NCHW}
    for path in tmp_path.rglob("*.png"):
        if fitted(open_picture(path, "x", before.pixels), 1, (8, 8)).tobytes() in held:
            Image.fromarray(np.full((8, 17), 60_000, np.uint16)).save(path)
    assert load_dataset(folder(tmp_path)).pixels == before.pixels == PixelRule(wide_range=(0.0, 1023.0))


def test_values_that_mean_nothing_without_a_range_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.fromarray(DRAW.normal(0, 50, (8, 8)).astype(np.float32)).save(tmp_path / name / f"{i}.tif")
    with pytest.raises(DataError, match=r"8 of 8 pictures cannot be used(.|\n)*data\.value_range=\[LOW,HIGH\]"):
        load_dataset(folder(tmp_path))
    data = load_dataset(folder(tmp_path, value_range=(-100.0, 100.0)))
    assert 120 < data.train_images_NCHW.mean() < 135
    with pytest.raises(DataError, match="expected none below 0"):
        whole_range(Extremes(-1.0, 5.0, floats=False), "x")


@pytest.mark.parametrize(("ground", "level"), [("white", 255), ("black", 0)])
def test_transparent_parts_get_one_ground(ground, level, tmp_path):
    """Whatever is drawn on them, in every form that transparency has."""
    for grey in (10, 120, 135, 250):
        pixels = np.zeros((6, 6, 4), np.uint8)
        pixels[2:4, 2:4] = grey, grey, grey, 255
        whole = Image.fromarray(pixels)
        forms = {
            "RGBA": saved(whole, "PNG"), "LA": saved(whole.convert("LA"), "PNG"),
            "grey with a clear level": saved(whole.convert("L"), "PNG", transparency=0),
            "colour with a clear colour": saved(whole.convert("RGB"), "PNG", transparency=(0, 0, 0)),
            "16 bits": png16(pixels.astype(np.uint16) * 257, 6), "WEBP": saved(whole, "WEBP", lossless=True),
            "palette": saved(whole.convert("L").convert("P"), "PNG", transparency=0),
        }  # fmt: skip
        for form, content in forms.items():
            seen = np.asarray(open_picture(content, form, PixelRule(ground=ground)).convert("L"))
            assert (seen[0, 0], seen[3, 3]) == (level, grey), form


def test_transparent_pictures_are_told_of_and_the_ground_is_kept(tmp_path):
    for name, grey in (("a", 50), ("b", 200)):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("LA", (8, 8), (grey + i, 0)).save(tmp_path / name / f"{i}.png")
    data = load_dataset(folder(tmp_path, ground="black"))
    assert data.train_images_NCHW.max() == 0
    assert data.pixels.ground == "black"
    assert any("8 pictures have transparent parts, which are laid on black" in r.text for r in data.account.remarks())


def test_only_the_orientation_is_read_of_the_metadata():
    """A sound JPEG in whose EXIF another entry has a type that it should not have."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (0x0132, 11, 1, struct.pack("<f", 1.5))]
    directory = struct.pack("<H", 2) + b"".join(struct.pack("<HHI", *e[:3]) + e[3] for e in entries) + bytes(4)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + directory
    content = saved(Image.fromarray(DRAW.integers(0, 255, (16, 12, 3)).astype(np.uint8)), "JPEG", exif=exif)
    plain_content = Image.open(io.BytesIO(content)).convert("RGB")
    expected = np.asarray(plain_content.transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(np.asarray(open_picture(content)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("wide", [False, True])
def test_all_orientations(orientation, wide):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = GREY.astype(np.uint16) * 257 if wide else GREY
    content = saved(Image.fromarray(pixels), "PNG", exif=exif)
    upright = Image.fromarray(GREY)
    upright.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(np.asarray(open_picture(content)), np.asarray(ImageOps.exif_transpose(upright)))


def test_runs_of_earlier_versions_are_read_as_before():
    """Without a stored rule: range and ground by each picture's own brightness."""
    dark, bright = (saved(Image.fromarray(np.full((3, 3), top, np.uint16)), "PNG") for top in (255, 256))
    assert [int(np.asarray(plain(decode(content), None))[0, 0]) for content in (dark, bright)] == [255, 1]
    clear = saved(Image.new("LA", (3, 3), (200, 0)), "PNG")
    assert int(np.asarray(plain(decode(clear), None).convert("L"))[0, 0]) == 255
    ink = Image.new("LA", (3, 3), (200, 0))
    ink.putpixel((1, 1), (200, 255))
    assert int(np.asarray(plain(decode(saved(ink, "PNG")), None).convert("L"))[0, 0]) == 0


@pytest.mark.parametrize(
    "rule", [PixelRule(), PixelRule((-5.0, 7.5)), PixelRule(wide_range=(0.0, 4095.0), ground="contrast")]
)
def test_the_rule_survives_json(rule):
    assert PixelRule.from_json(rule.to_json()) == rule


@pytest.mark.parametrize(
    "damage", [{"ground": "green"}, {"value_range": [3, 1]}, {"wide_range": "x"}, {"wide_range": [1]}]
)
def test_a_damaged_rule_is_no_rule(damage):
    with pytest.raises(ValueError, match="not a rule"):
        PixelRule.from_json({**PixelRule().to_json(), **damage})
    with pytest.raises(ValueError, match="not a rule"):
        PixelRule.from_json({})
