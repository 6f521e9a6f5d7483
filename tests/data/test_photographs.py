"""What is meant for photographs: RandAugment, saturation, hue, grey and blur against torchvision's, operation by operation.

torchvision computes bytes and rounds or cuts off after every operation; here values stay float32. So results may differ by up to one
of 255 levels, or two where a grey or smoothed image that was cut off to bytes is multiplied again (colour, contrast, sharpness); and
where an operation looks at values as bytes (posterize, solarize, equalize) they are the same.
"""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandAugment
from torchvision.transforms.v2 import functional as tv

from ensemble.config.recipe import AugmentationConfig
from ensemble.data import colours
from ensemble.data.augmentation import Draw, augment, draw
from ensemble.data.randaugment import KINDS, LARGEST, operated
from ensemble.seeding import Purpose, member_seed
from tests.data.operations import ON_THE_HOST, Operations

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 27, 20)]
NAMES = ("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
         "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize")  # fmt: skip
AS_BYTES = ("posterize", "solarize", "equalize", "identity")
LEVEL = 1.0 + 1e-3  # of 255, and float32 rounding
MAGNITUDES = (
    0,
    1,
    7,
    9,
    10,
    15,
    20,
    23,
    30,
)  # with those where posterize changes its bits and solarize meets a byte exactly
CONFIGS = {
    "randaugment": {"randaugment_operations": 2},
    "strong randaugment": {"randaugment_operations": 3, "randaugment_magnitude": 30},
    "colours": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "grey and blur": {"grey_probability": 0.5, "blur_probability": 0.5},
    "everything": {
        "shift": 0.1, "rotation_degrees": 10.0, "brightness": 0.4, "saturation": 0.4, "hue": 0.1, "grey_probability": 0.3,
        "blur_probability": 0.3, "blur_sigma": 1.0, "randaugment_operations": 2,
    },
}  # fmt: skip


def pictures(count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Bytes of smooth pictures with noise, the first all black, the second all of one colour, the third of few and high values."""
    random = torch.Generator().manual_seed(5)
    coarse = torch.rand((count, shape[0], 5, 5), generator=random)
    smooth = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    found = (smooth * 200 + torch.rand((count, *shape), generator=random) * 55).to(torch.uint8)
    found[0], found[1], found[2] = 0, 100, found[2] // 8 + 200
    return found


def keys(*seeds: int) -> torch.Tensor:
    return torch.tensor([member_seed(seed, 0, Purpose.AUGMENT, 0) for seed in seeds or (0,)])


def by_torchvision(images: torch.Tensor, name: str, magnitude: int, sign: int) -> torch.Tensor:
    """One operation of torchvision's RandAugment, with its own table of magnitudes."""
    table, signed = RandAugment._AUGMENTATION_SPACE[name]
    levels = table(LARGEST + 1, *images.shape[2:])
    level = 0.0 if levels is None else float(levels[magnitude]) * (sign if signed else 1)
    how = {"interpolation": InterpolationMode.BILINEAR, "fill": {torch.Tensor: None}}
    return torch.stack([RandAugment()._apply_image_or_video_transform(image, name, level, **how) for image in images])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_torchvision_s_within_a_level(name: str, shape: tuple[int, int, int]) -> None:
    images, kind = pictures(6, shape), NAMES.index(name)
    for magnitude in MAGNITUDES:
        for up, sign in enumerate((-1, 1)):
            kinds, signs = torch.full((6, 1), kind), torch.full((6, 1), up)
            found = operated(images / 255, kinds, signs, magnitude) * 255
            expected = by_torchvision(images, name, magnitude, sign).float()
            twice = KINDS[kind] in ("color", "contrast", "sharpness")
            limit = 1e-3 if KINDS[kind] in AS_BYTES else 2 * LEVEL if twice else LEVEL
            assert (found - expected).abs().max() <= limit, (magnitude, sign)


def test_the_operations_are_all_of_torchvision_s() -> None:
    assert tuple(RandAugment._AUGMENTATION_SPACE) == NAMES
    assert len(KINDS) == len(NAMES)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_saturation_is_torchvision_s(factor: float) -> None:
    images = pictures(6, (3, 32, 32)) / 255
    expected = tv.adjust_saturation(images, factor)
    torch.testing.assert_close(colours.saturated(images, torch.full((6,), factor)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("hue", [-0.5, -0.2, -0.01, 0.0, 0.1, 1 / 3, 0.5])
def test_hue_is_torchvision_s(hue: float) -> None:
    images = pictures(6, (3, 32, 32)) / 255
    found = colours.turned(images, torch.full((6,), hue))
    torch.testing.assert_close(found, tv.adjust_hue(images, hue), rtol=0, atol=2e-5)
    if hue == 0:
        torch.testing.assert_close(found, images, rtol=0, atol=1e-6)


def test_each_image_has_factors_of_its_own() -> None:
    images, factors = pictures(6, (3, 32, 32)) / 255, torch.linspace(-0.5, 0.5, 6)
    for change in (colours.turned, lambda x, f: colours.saturated(x, 1 + f)):
        alone = torch.cat([change(images[i : i + 1], factors[i : i + 1]) for i in range(6)])
        assert torch.equal(change(images, factors), alone)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_torchvision_s(sigma: float, shape: tuple[int, int, int]) -> None:
    images = pictures(6, shape) / 255
    radius = colours.blur_radius(2.0, *shape[1:])
    assert radius == 6
    found = colours.blurred(images, torch.full((6,), sigma), radius)
    expected = tv.gaussian_blur(images, [2 * radius + 1] * 2, [sigma] * 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_a_blur_never_reaches_beyond_the_mirrored_image() -> None:
    small = pictures(4, (3, 4, 9)) / 255
    assert colours.blur_radius(5.0, 4, 9) == 3
    flat = torch.full_like(small, 0.3)
    torch.testing.assert_close(colours.blurred(flat, torch.full((4,), 5.0), 3), flat)
    assert bool((colours.blurred(small, torch.full((4,), 5.0), 3).std((2, 3)) <= small.std((2, 3)) + 1e-6).all())


def test_grey_images_are_torchvision_s_grey() -> None:
    images = pictures(40, (3, 32, 32)) / 255
    config = AugmentationConfig(grey_probability=0.5)
    result = augment(images, config, draw(config, 40, (3, 32, 32), keys(), 0))
    grey, kept = (result == result[:, :1]).flatten(1).all(1), (result == images).flatten(1).all(1)
    assert bool((grey | kept).all())
    grey &= ~kept
    assert 10 < int(grey.sum()) < 30
    expected = tv.rgb_to_grayscale(images, 3)
    torch.testing.assert_close(result[grey], expected[grey], rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_a_member_in_a_stack_gets_the_bits_it_gets_alone(options: dict[str, float]) -> None:
    config, shape, batch = AugmentationConfig(**options), (3, 32, 32), 37
    images = [(pictures(batch, shape) / 255).roll(member, 0) for member in range(3)]
    stacked = augment(torch.cat(images), config, draw(config, batch, shape, keys(0, 1, 2), 64))
    for member in range(3):
        alone = augment(images[member], config, draw(config, batch, shape, keys(member), 64))
        assert torch.equal(stacked[member * batch : (member + 1) * batch], alone)
    assert float(stacked.min()) >= 0
    assert float(stacked.max()) <= 1
    assert not torch.equal(stacked, torch.cat(images))


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_images_that_are_chosen_get_the_bits_that_all_get(shape: tuple[int, int, int]) -> None:
    """Where shapes cannot depend on data, every operation is computed for all images: a CUDA graph's way, here on the CPU."""
    images, config = pictures(64, shape) / 255, AugmentationConfig(randaugment_operations=3, blur_probability=0.5)
    drawn = draw(config, 64, shape, keys(7), 0)
    before = images.clone()
    ways = [operated(images, drawn.kinds_BN, drawn.signs_BN, 17, whole) for whole in (True, False)]
    assert torch.equal(*ways)
    ways = [colours.sometimes_blurred(images, drawn.sigma_B, 2.0, whole) for whole in (True, False)]
    assert torch.equal(*ways)
    assert torch.equal(images, before)


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_what_is_drawn_belongs_to_key_and_position(options: dict[str, float]) -> None:
    config, shape = AugmentationConfig(**options), (3, 27, 20)
    whole = draw(config, 60, shape, keys(1, 2), 100)
    for start, many in ((0, 20), (53, 7)):
        part = draw(config, many, shape, keys(2, 1), torch.tensor([100 + start]))
        expected = whole.rows(torch.cat([torch.arange(many) + start + k * 60 for k in (1, 0)]))
        for found, wanted in zip(part.parts, expected.parts, strict=True):
            assert (found is None) == (wanted is None)
            assert found is None or torch.equal(found, wanted)


def test_switching_something_on_changes_no_other_number() -> None:
    """Neither those of the older kinds nor those of photographs."""
    shape = (3, 32, 32)
    older = {"rotation_degrees": 10.0, "brightness": 0.4, "elastic_alpha": 1.0}
    alone, both = (
        draw(AugmentationConfig(**options), 8, shape, keys(1), 0)
        for options in (older, {**older, "hue": 0.1, "randaugment_operations": 2})
    )
    for name in ("source_B23", "noise_B2hw", "brightness_B"):
        assert torch.equal(getattr(alone, name), getattr(both, name))
    hue = draw(AugmentationConfig(hue=0.1), 8, shape, keys(1), 0).hue_B
    assert torch.equal(hue, both.hue_B)
    more = draw(AugmentationConfig(randaugment_operations=4), 8, shape, keys(1), 0)
    assert torch.equal(more.kinds_BN[:, :2], both.kinds_BN)
    assert len({tuple(numbers.tolist()) for numbers in more.kinds_BN.T}) == 4, "each operation is drawn by itself"


def test_draws_fill_their_ranges() -> None:
    config = AugmentationConfig(
        saturation=0.4, hue=0.1, grey_probability=0.2, blur_probability=0.5, blur_sigma=3.0, randaugment_operations=2
    )
    drawn = draw(config, 20_000, (3, 32, 32), keys(3), 0)
    for numbers, low, high in ((drawn.saturation_B, 0.6, 1.4), (drawn.hue_B, -0.1, 0.1)):
        assert low <= numbers.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < numbers.max() <= high
    assert drawn.grey_B.double().mean() == pytest.approx(0.2, abs=0.012)  # standard error 0.003
    sigmas = drawn.sigma_B[drawn.sigma_B > 0]
    assert len(sigmas) / 20_000 == pytest.approx(0.5, abs=0.015)
    assert 0.1 <= sigmas.min() < 0.12
    assert 2.98 < sigmas.max() <= 3
    counts = drawn.kinds_BN.flatten().bincount(minlength=len(KINDS))
    expected = 40_000 / len(KINDS)
    assert len(counts) == len(KINDS)
    assert (counts - expected).abs().max() < 4.5 * math.sqrt(expected)
    assert drawn.signs_BN.double().mean() == pytest.approx(0.5, abs=0.01)
    assert drawn.kinds_BN.shape == (20_000, 2)


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_drawing_does_not_touch_the_host(options: dict[str, float]) -> None:
    arguments = AugmentationConfig(**options), 16, (3, 32, 32), keys(1, 2), torch.tensor(32)
    draw(*arguments)  # puts its constants on the device
    with Operations() as done:
        draw(*arguments)
    assert "mul" in done.names
    assert not done.names & ON_THE_HOST


def test_nor_does_computing_all_images() -> None:
    images, config = pictures(16, (3, 32, 32)) / 255, AugmentationConfig(randaugment_operations=2, blur_probability=0.5)
    drawn = draw(config, 16, (3, 32, 32), keys(1), 0)
    operated(images, drawn.kinds_BN, drawn.signs_BN, 9, True)  # puts its table on the device
    with Operations() as done:
        operated(images, drawn.kinds_BN, drawn.signs_BN, 9, True)
        colours.sometimes_blurred(images, drawn.sigma_B, 2.0, True)
        colours.turned(images, torch.full((16,), 0.1))
        colours.saturated(images, torch.full((16,), 0.9))
    assert {"grid_sampler_2d", "scatter_add_", "reflection_pad2d"} & done.names
    assert not done.names & (ON_THE_HOST - {"copy_"}), "copy_ is that of values on the device"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur_sigma": 1.0}, "blur_sigma has no effect without blur_probability"),
        ({"randaugment_magnitude": 5}, "randaugment_magnitude has no effect without randaugment_operations"),
    ],
)
def test_strengths_without_their_switch_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentationConfig(**options)


def test_a_draw_can_be_taken_by_rows() -> None:
    whole = Draw(hue_B=torch.arange(4.0), kinds_BN=torch.arange(8).view(4, 2))
    part = whole.rows(torch.tensor([2, 0]))
    assert part.hue_B.tolist() == [2, 0]
    assert part.kinds_BN.tolist() == [[4, 5], [0, 1]]
    assert part.source_B23 is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_gpu_agrees_with_cpu(options: dict[str, float]) -> None:
    """But for the rounding of float32, which posterize, solarize and equalize may turn into a whole level and more: seldom."""
    images, config = pictures(64, (3, 32, 32)) / 255, AugmentationConfig(**options)
    drawn = draw(config, 64, (3, 32, 32), keys(2), 0)
    on_gpu = augment(images.cuda(), config, drawn)
    assert on_gpu.is_cuda
    differences = (on_gpu.cpu() - augment(images, config, drawn)).abs()
    assert (differences > 1e-4).double().mean() < 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_in_a_cuda_graph_it_is_what_it_is_outside(options: dict[str, float]) -> None:
    images, config = (pictures(32, (3, 32, 32)) / 255).cuda(), AugmentationConfig(**options)
    keys_K, first = keys(1).cuda(), torch.zeros((), dtype=torch.int64, device="cuda")
    augment(images, config, draw(config, 32, (3, 32, 32), keys_K, first))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = augment(images, config, draw(config, 32, (3, 32, 32), keys_K, first))
    first.fill_(96)
    graph.replay()
    assert torch.equal(recorded, augment(images, config, draw(config, 32, (3, 32, 32), keys_K, 96)))
