"""Corrupted images: names and levels, and which random numbers belong to which image."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from ensemble.data.corruptions import CHUNK, NAMES, RECIPES, Corruption, applying, corrupt, problem_with, weather
from ensemble.data.corruptions.draws import Draws
from ensemble.data.corruptions.recipes import full_name, kind_of
from ensemble.errors import ConfigError
from ensemble.types import ByteArray

ANGLES = (-360.0, -90.0, 12.5, 180.0)
FULL_NAMES = sorted({full_name(name) for name in NAMES})


def levels_of(name: str) -> tuple[float | None, ...]:
    if full_name(name) == "rotate":
        return ANGLES
    return (None,) if kind_of(name).parameters is None else (1, 2, 3, 4, 5)


EVERY = [Corruption(name, level) for name in FULL_NAMES for level in levels_of(name)]
# Those of which a level says everything.
WITHOUT_CHANCE = {
    "identity", "rotate", "mnist_c/stripe", "mnist_c/canny_edges", "mnist_c/scale", "mnist_c/brightness", "cifar10_c/brightness",
    "cifar10_c/contrast", "cifar10_c/saturate", "cifar10_c/jpeg_compression", "cifar10_c/pixelate", "cifar10_c/defocus_blur",
    "cifar10_c/gaussian_blur", "cifar10_c/zoom_blur",
}  # fmt: skip


def pictures(count: int, shape: tuple[int, int, int] = (3, 9, 8), seed: int = 0) -> ByteArray:
    """Soft shapes with some black, some white and some noise."""
    random = np.random.default_rng(seed)
    channels, height, width = shape
    y, x = np.indices((height, width))
    phase = random.uniform(0, 6, (count, channels, 1, 1))
    waves = 160 + 200 * np.sin(0.7 * x + phase) * np.cos(0.6 * y - phase)
    return (waves + random.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)


def test_recipes_are_those_of_the_papers() -> None:
    assert [corruption.label for corruption in RECIPES["mnist_c"]] == [
        "shot_noise 5", "impulse_noise 4", "glass_blur 1", "motion_blur 1", "shear 2", "scale 3", "rotate 2", "brightness 5",
        "translate 3", "stripe", "fog 5", "spatter 4", "dotted_line", "zigzag", "canny_edges",
    ]  # fmt: skip
    names = list(dict.fromkeys(corruption.name.removeprefix("cifar10_c/") for corruption in RECIPES["cifar10_c"]))
    assert names == [
        "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "fog",
        "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    ]  # fmt: skip
    assert len(set(RECIPES["cifar10_c"])) == len(RECIPES["cifar10_c"]) == 14 * 5
    for recipe, corruptions in RECIPES.items():
        for corruption in corruptions:
            assert corruption.name.startswith(f"{recipe}/")
            assert problem_with(corruption.name, corruption.level, (3, 32, 32)) == ""


def test_parameters_are_the_published_ones() -> None:
    """A sum over all of them, once compared with the programs of both papers."""
    tables = "\n".join(f"{name} {kind_of(name).parameters}" for name in FULL_NAMES)
    assert zlib.crc32(tables.encode()) == 0x1EEA85F7, tables


def test_plain_names_are_cifar_s_where_it_has_them() -> None:
    assert list(NAMES) == sorted(set(NAMES))
    assert full_name("fog") == "cifar10_c/fog"
    assert full_name("zigzag") == "mnist_c/zigzag"
    assert full_name("rotate") == "rotate" != full_name("mnist_c/rotate")
    assert {"speckle_noise", "gaussian_blur", "spatter", "saturate", "identity"} <= set(NAMES)
    images = pictures(4)
    assert np.array_equal(corrupt(images, Corruption("fog", 2), 5), corrupt(images, Corruption("cifar10_c/fog", 2), 5))
    assert len({zlib.crc32(name.encode()) for name in FULL_NAMES}) == len(FULL_NAMES)


@pytest.mark.parametrize(
    ("corruption", "label"),
    [
        (Corruption("gaussian_noise", 3), "gaussian_noise 3"),
        (Corruption("mnist_c/fog", 5.0), "fog 5"),
        (Corruption("rotate", 22.5), "rotate 22.5"),
        (Corruption("rotate", -45), "rotate -45"),
        (Corruption("stripe"), "stripe"),
    ],
)
def test_labels(corruption: Corruption, label: str) -> None:
    assert corruption.label == label


@pytest.mark.parametrize(
    ("name", "level", "words"),
    [
        ("gausian_noise", 3, ["'gausian_noise'", "'gaussian_noise'"]),
        ("xyzzy", 3, ["'xyzzy'", "zigzag", "mnist_c/fog"]),
        ("fog", 0, ["'fog'", "0", "from 1 to 5"]),
        ("fog", 6, ["6", "from 1 to 5"]),
        ("fog", 2.5, ["2.5", "whole number"]),
        ("fog", None, ["None", "whole number"]),
        ("fog", True, ["True", "whole number"]),
        ("fog", float("nan"), ["nan", "whole number"]),
        ("stripe", 1, ["'stripe'", "1", "expected none"]),
        ("identity", 1, ["'identity'", "expected none"]),
        ("rotate", None, ["None", "degrees", "-360 to 360"]),
        ("rotate", 361, ["361", "-360 to 360"]),
        ("rotate", float("inf"), ["inf", "-360 to 360"]),
        ("mnist_c/rotate", 45, ["45", "from 1 to 5"]),
    ],
)
def test_problems_are_named(name: str, level: float | None, words: list[str]) -> None:
    found = problem_with(name, level)
    assert found.endswith((".", "?"))
    for word in words:
        assert word in found
    with pytest.raises(ConfigError) as error:
        corrupt(pictures(1), Corruption(name, level), 0)
    assert str(error.value) == found


@pytest.mark.parametrize(
    ("shape", "word"), [((5, 9, 9), "5 x 9 x 9"), ((0, 9, 9), "channels"), ((1, 7, 9), "8 x 8"), ((1, 9, 7), "8 x 8")]
)
def test_images_that_do_not_fit_are_named(shape: tuple[int, int, int], word: str) -> None:
    assert word in problem_with("fog", 1, shape)
    assert problem_with("fog", 1, (4, 8, 8)) == ""
    assert "'fgo'" in problem_with("fgo", 1, shape), "the name comes first"


@pytest.mark.parametrize("corruption", EVERY, ids=lambda corruption: f"{corruption.name} {corruption.level}")
def test_an_image_depends_on_its_own_pixels_and_place_alone(
    corruption: Corruption, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(CHUNK + 5)
    given = images.copy()
    whole = corrupt(images, corruption, 3)
    assert np.array_equal(images, given)
    assert whole.shape == images.shape
    assert whole.dtype == np.uint8
    assert whole.flags.c_contiguous
    assert not np.shares_memory(whole, images)
    for count in (0, 1, 3):
        assert np.array_equal(corrupt(images[:count], corruption, 3), whole[:count]), "fewer images"
    assert np.array_equal(corrupt(images[CHUNK:], corruption, 3, first=CHUNK), whole[CHUNK:]), "the second chunk alone"
    others = pictures(8, seed=1)
    others[4] = images[4]
    assert np.array_equal(corrupt(others, corruption, 3)[4], whole[4]), "other neighbours"
    monkeypatch.setattr(applying, "_BLOCK_VALUES", 7 * images[0].size)
    monkeypatch.setattr(weather, "_MAP_VALUES", 3 * 256**2)
    assert np.array_equal(corrupt(images[:17], corruption, 3), whole[:17]), "smaller blocks"


@pytest.mark.parametrize("name", FULL_NAMES)
def test_chance_comes_from_seed_and_place(name: str) -> None:
    images = np.repeat(pictures(1, (1, 28, 28)), CHUNK + 1, axis=0)
    level = levels_of(name)[-1]
    result = corrupt(images, Corruption(name, level), 3)
    differs = (result != result[:1]).any(axis=(1, 2, 3))
    if name in WITHOUT_CHANCE:
        assert not differs.any()
    else:
        assert differs[1:].any()
        again = corrupt(images[:CHUNK], Corruption(name, level), 4)
        assert (again != result[:CHUNK]).any()
        later = corrupt(images[:CHUNK], Corruption(name, level), 3, first=CHUNK)
        assert (later != result[:CHUNK]).any(), "chunks have different numbers"
        assert np.array_equal(later[0], result[CHUNK])


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (2, 8, 13), (3, 17, 8), (4, 10, 10)])
@pytest.mark.parametrize("name", FULL_NAMES)
def test_any_shape(name: str, shape: tuple[int, int, int]) -> None:
    images = pictures(3, shape)
    result = corrupt(images, Corruption(name, levels_of(name)[-1]), 0)
    assert result.shape == images.shape
    if name not in {"identity", "rotate"}:
        assert (result != images).any()


@pytest.mark.parametrize("name", ["zoom_blur", "elastic_transform", "shear", "mnist_c/fog", "snow"])
def test_threads_change_nothing(name: str) -> None:
    images = pictures(40, (3, 32, 32))
    with threadpool_limits(1):
        alone = corrupt(images, Corruption(name, 5), 0)
    with threadpool_limits(4):
        assert np.array_equal(corrupt(images, Corruption(name, 5), 0), alone)


def test_the_address_of_the_numbers() -> None:
    assert zlib.crc32(b"cifar10_c/gaussian_noise") == 0xAA067595, "names are numbered the same everywhere"
    key = (zlib.crc32(b"cifar10_c/gaussian_noise"), 3, 1, zlib.crc32(b"noise"))
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence(7, spawn_key=key))).random((4, 5))
    draws = Draws(7, "cifar10_c/gaussian_noise", 3, 1)
    parts = [draws.uniform("noise", (1, 5)), draws.uniform("noise", (3, 5))]
    assert np.array_equal(np.concatenate(parts), expected)
    assert not np.array_equal(draws.uniform("other", (4, 5)), expected)


def test_drawn_numbers_are_in_range() -> None:
    draws = Draws(0, "any", 1, 0)
    assert set(draws.whole("a", -3, 2, (1000,))) == {-3, -2, -1, 0, 1}
    assert set(draws.signs("b", (100,))) == {-1, 1}
    between = draws.between("c", -2, 5, (1000,))
    assert -2 <= between.min() < -1.9
    assert 4.9 < between.max() < 5


def test_a_first_image_inside_a_chunk_is_refused() -> None:
    with pytest.raises(AssertionError, match="multiple of 256"):
        corrupt(pictures(1), Corruption("fog", 1), 0, first=100)


def test_no_torch() -> None:
    code = "import sys, ensemble.data.corruptions; assert not {'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
