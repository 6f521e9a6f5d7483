"""Augmentation against pictures worked out by hand, and the independence of every sample from its batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from ensemble.config.recipe import AugmentationConfig
from ensemble.data.augmentation import Draw, augment, draw
from ensemble.seeding import Purpose, member_seed
from tests.data.operations import ON_THE_HOST, Operations

MOVING = {"rotation_degrees": 15.0, "scale": 0.2, "shear_degrees": 10.0, "shift": 0.1, "crop_padding": 2}
EVERYTHING = AugmentationConfig(**MOVING, horizontal_flip=True, elastic_alpha=1.5, brightness=0.3, contrast=0.3)
CONFIGS = {
    "affine": AugmentationConfig(rotation_degrees=15.0, scale=0.2, shear_degrees=10.0, shift=0.1),
    "crop and flip": AugmentationConfig(crop_padding=4, horizontal_flip=True),
    "elastic": AugmentationConfig(elastic_alpha=2.0, elastic_sigma=3.0),
    "tone": AugmentationConfig(brightness=0.4, contrast=0.4),
    "stretched crop": AugmentationConfig(crop_area=0.2, crop_padding=1, horizontal_flip=True, shift=0.1),
    "everything": EVERYTHING,
}
SHAPES = [(1, 28, 28), (3, 32, 32), (1, 27, 20)]


def pictures(count: int, shape: tuple[int, int, int] = (1, 28, 28)) -> torch.Tensor:
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(11))


def keys(*seeds: int) -> torch.Tensor:
    """One key per seed, far apart as those of members are."""
    return torch.tensor([member_seed(seed, 0, Purpose.AUGMENT, 0) for seed in seeds or (0,)])


def upper_end(keys_K: torch.Tensor, starts_N: torch.Tensor, count: int, dtype: torch.dtype) -> torch.Tensor:
    """In place of random numbers: the end of their range."""
    return torch.ones(len(starts_N), len(keys_K), count, dtype=dtype)


def source(*rows: list[float], count: int = 1) -> Draw:
    return Draw(source_B23=torch.tensor([rows] * count))


def resampled(images: torch.Tensor, *rows: list[float]) -> torch.Tensor:
    return augment(images, AugmentationConfig(), source(*rows, count=len(images)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_identity_is_exact(shape):
    images = pictures(5, shape)
    assert torch.equal(resampled(images, [1.0, 0, 0], [0, 1.0, 0]), images)


def test_nothing_switched_on_returns_the_images_themselves():
    images = pictures(3)
    nothing = draw(AugmentationConfig(), 3, (1, 28, 28), keys(), 0)
    assert set(nothing.parts) == {None}
    assert augment(images, AugmentationConfig(), nothing) is images


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whole_pixel_moves_are_exact_and_filled_with_zeros(shape):
    """The source lies 2 to the left and 3 below, so the picture moves right by 2 and up by 3."""
    images = pictures(2, shape)
    expected = torch.zeros_like(images)
    expected[:, :, :-3, 2:] = images[:, :, 3:, :-2]
    assert torch.equal(resampled(images, [1.0, 0, -2], [0, 1.0, 3]), expected)


def test_half_pixel_move_averages_neighbours():
    images = pictures(1)
    expected = (images[..., :-1] + images[..., 1:]) / 2
    torch.testing.assert_close(resampled(images, [1.0, 0, 0.5], [0, 1.0, 0])[..., :-1], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mirror_is_exact(shape):
    images = pictures(3, shape)
    assert torch.equal(resampled(images, [-1.0, 0, 0], [0, 1.0, 0]), images.flip(3))


def test_quarter_turns_are_exact_and_counter_clockwise():
    """A fixed angle through the real drawing, whose random numbers are replaced."""
    images = pictures(2)
    quarter = AugmentationConfig(rotation_degrees=90.0)
    turned = augment(images, quarter, draw(quarter, 2, (1, 28, 28), keys(), 0, upper_end))
    assert torch.equal(turned, torch.rot90(images, 1, (2, 3)))
    half = AugmentationConfig(rotation_degrees=180.0)
    turned = augment(images, half, draw(half, 2, (1, 28, 28), keys(), 0, upper_end))
    assert torch.equal(turned, torch.rot90(images, 2, (2, 3)))


def test_drawn_matrices_invert_the_forward_composition():
    """Forwards: shear y, shear x, scale, rotate, shift; every parameter at the upper end of its range."""
    config = AugmentationConfig(rotation_degrees=20.0, scale=0.25, shear_degrees=30.0, shift=0.1)
    drawn = draw(config, 1, (1, 40, 20), keys(), 0, upper_end).source_B23
    a, k = math.radians(20), math.tan(math.radians(30))
    turn = np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
    forward = np.eye(3)
    forward[:2, :2] = 1.25 * turn @ np.array([[1, k], [0, 1]]) @ np.array([[1, 0], [k, 1]])
    forward[:2, 2] = [0.1 * 20, 0.1 * 40]
    np.testing.assert_allclose(drawn[0].numpy(), np.linalg.inv(forward)[:2], atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_affine_agrees_with_scipy(shape):
    config = CONFIGS["affine"]
    images = pictures(6, shape)
    drawn = draw(config, 6, shape, keys(), 0)
    result = augment(images, config, drawn)
    _, height, width = shape
    y, x = np.mgrid[:height, :width]
    grid = np.stack([x - (width - 1) / 2, y - (height - 1) / 2, np.ones((height, width))])
    for i in range(6):
        place = np.einsum("ij,jhw->ihw", drawn.source_B23[i].double().numpy(), grid)
        rows_columns = [place[1] + (height - 1) / 2, place[0] + (width - 1) / 2]
        for c in range(shape[0]):
            padded = np.pad(images[i, c].double().numpy(), 2)  # so that the border fades to zero as in torch
            expected = map_coordinates(padded, [axis + 2 for axis in rows_columns], order=1)
            np.testing.assert_allclose(result[i, c].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_member_in_a_stack_gets_the_bits_it_gets_alone(config, shape):
    batch, members = 37, 5
    images = [pictures(batch, shape).roll(member, 0) for member in range(members)]
    drawn = draw(config, batch, shape, keys(*range(members)), 64)
    stacked = augment(torch.cat(images), config, drawn)
    for member in range(members):
        alone = augment(images[member], config, draw(config, batch, shape, keys(member), 64))
        assert torch.equal(stacked[member * batch : (member + 1) * batch], alone)


@settings(deadline=None, max_examples=30)
@given(order=st.permutations(range(12)), count=st.integers(1, 12))
def test_samples_do_not_see_each_other(order, count):
    """Any samples in any order give what they give in the whole batch."""
    index = torch.tensor(order[:count])
    images, drawn = pictures(12), draw(EVERYTHING, 12, (1, 28, 28), keys(4), 0)
    whole = augment(images, EVERYTHING, drawn)
    assert torch.equal(augment(images[index], EVERYTHING, drawn.rows(index)), whole[index])


def test_threads_do_not_change_the_bits():
    images, drawn = pictures(200), draw(EVERYTHING, 200, (1, 28, 28), keys(4), 0)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(augment(images, EVERYTHING, drawn))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_draws_repeat_with_the_key_and_differ_between_samples():
    first, again, other = (draw(EVERYTHING, 8, (1, 28, 28), keys(seed), 0) for seed in (1, 1, 2))
    for part, same, different in list(zip(first.parts, again.parts, other.parts, strict=True))[:4]:
        assert torch.equal(part, same)
        assert not torch.equal(part, different)
        assert len(torch.unique(part.flatten(1) if part.ndim > 1 else part[:, None], dim=0)) == 8


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("first", [0, 5000], ids=str)
def test_an_image_is_addressed_by_key_and_position(config, first):
    """However an epoch is cut into batches, in whichever order, and whether a position is an int or a tensor."""
    shape = (1, 27, 20)
    whole = draw(config, 60, shape, keys(1, 2), first)
    for count in (60, 20, 7):
        for start in reversed(range(0, 60, count)):
            many = min(count, 60 - start)
            part = draw(config, many, shape, keys(2, 1), torch.tensor([first + start]))
            expected = whole.rows(torch.cat([torch.arange(many) + start + k * 60 for k in (1, 0)]))
            for found, wanted in zip(part.parts, expected.parts, strict=True):
                assert (found is None) == (wanted is None)
                assert found is None or torch.equal(found, wanted)


SWITCHES = {
    "rotation_degrees": "source", "scale": "source", "shear_degrees": "source", "shift": "source",
    "crop_padding": "source", "horizontal_flip": "source", "elastic_alpha": "noise", "brightness": "brightness",
    "contrast": "contrast",
}  # fmt: skip


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_alone(switch):
    value = {"crop_padding": 1, "horizontal_flip": True}.get(switch, 0.5)
    drawn = draw(AugmentationConfig(**{switch: value}), 7, (3, 32, 24), keys(1, 2), 9)
    shapes = {"source": (14, 2, 3), "noise": (14, 2, 8, 7), "brightness": (14,), "contrast": (14,)}
    assert set(drawn.parts[4:]) == {None}, "of photographs"
    for name, part in zip(shapes, drawn.parts[:4], strict=True):
        if name != SWITCHES[switch]:
            assert part is None
            continue
        assert part.shape == shapes[name]
        assert part.dtype == torch.float32
        assert part.is_contiguous()
        assert len(part.flatten(1 if part.ndim > 1 else 0).unique(dim=0)) > 1


def test_noise_has_unit_variance_and_no_correlation():
    config = AugmentationConfig(elastic_alpha=1.0, elastic_sigma=4.0)
    noise = draw(config, 2000, (1, 28, 28), keys(1, 2), 0).noise_B2hw.double()
    assert noise.mean().item() == pytest.approx(0, abs=0.008)  # 392,000 numbers: standard error 0.0016
    assert noise.var().item() == pytest.approx(1, abs=0.008)  # standard error 0.0014
    nodes = torch.corrcoef(noise.flatten(1).T) - torch.eye(98)
    assert nodes.abs().max() < 5.5 / math.sqrt(4000)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_drawing_does_not_touch_the_host(config):
    arguments = config, 16, (1, 28, 28), keys(1, 2), torch.tensor(32)
    draw(*arguments)  # puts its constants on the device
    with Operations() as done:
        draw(*arguments)
    assert "mul" in done.names
    assert not done.names & ON_THE_HOST


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_output_stays_in_range_and_input_unchanged(config):
    images = pictures(64)
    before = images.clone()
    result = augment(images, config, draw(config, 64, (1, 28, 28), keys(9), 0))
    assert torch.equal(images, before)
    assert result.dtype == torch.float32
    assert result.shape == images.shape
    assert result.min() >= 0
    assert result.max() <= 1
    assert not torch.equal(result, images)


def test_white_never_exceeds_white():
    """The four weights of a pixel add up to 1 at most, so resampling needs no clamp."""
    white = torch.ones(256, 1, 28, 28)
    result = augment(white, CONFIGS["affine"], draw(CONFIGS["affine"], 256, (1, 28, 28), keys(), 0))
    assert result.max() == 1


def test_rotation_angles_fill_their_range():
    matrix = draw(AugmentationConfig(rotation_degrees=15.0), 5000, (1, 28, 28), keys(), 0).source_B23
    angle = torch.rad2deg(torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]))
    assert 14.9 < angle.max() <= 15.001
    assert -15.001 <= angle.min() < -14.9
    assert abs(angle.mean()) < 0.5  # standard error 0.12
    torch.testing.assert_close(torch.linalg.det(matrix[:, :, :2]), torch.ones(5000))


def test_scale_is_the_size_of_the_picture():
    matrix = draw(AugmentationConfig(scale=0.2), 5000, (1, 28, 28), keys(), 0).source_B23
    size = 1 / matrix[:, 0, 0]
    assert 1.19 < size.max() <= 1.2001
    assert 0.7999 <= size.min() < 0.81
    assert torch.equal(matrix[:, 0, 0], matrix[:, 1, 1])
    assert (matrix[:, [0, 1], [1, 0]] == 0).all()


def test_shift_is_a_share_of_each_side():
    move = draw(AugmentationConfig(shift=0.25), 5000, (1, 40, 20), keys(), 0).source_B23[:, :, 2]
    for axis, limit in ((0, 5), (1, 10)):
        assert 0.99 * limit < move[:, axis].max() <= limit
        assert -limit <= move[:, axis].min() < -0.99 * limit


def test_crop_offsets_are_whole_and_evenly_spread():
    move = draw(AugmentationConfig(crop_padding=2), 5000, (1, 28, 28), keys(), 0).source_B23[:, :, 2]
    for axis in (0, 1):
        values, counts = move[:, axis].unique(return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        assert counts.min() > 850  # 1000 expected, standard deviation 28
    assert abs(torch.corrcoef(move.T)[0, 1]) < 0.06


def test_a_stretched_crop_has_the_area_ratio_and_place_of_torchvision_s():
    """The source of the corners of a 40 x 20 image: within it, area 0.3 to 1, sides' ratio 3/4 to 4/3 where no side was cut."""
    drawn = draw(AugmentationConfig(crop_area=0.3), 20_000, (1, 20, 40), keys(4), 0).source_B23
    width, height = drawn[:, 0, 0].double(), drawn[:, 1, 1].double()
    assert torch.equal(drawn[:, 0, 1], torch.zeros(20_000))
    assert torch.equal(drawn[:, 1, 0], torch.zeros(20_000))
    assert width.max() <= 1
    assert height.max() <= 1
    whole = (width < 1) & (height < 1)
    area, ratio = (width * height)[whole], (width / height)[whole]
    assert 0.3 - 1e-6 <= area.min() < 0.31
    assert area.max() > 0.95
    assert ratio.log().abs().max() <= math.log(4 / 3) + 1e-6
    assert ratio.log().mean().abs() < 0.01
    for shift, share, side in ((drawn[:, 0, 2], width, 40), (drawn[:, 1, 2], height, 20)):
        room = (1 - share) * side / 2
        assert bool((shift.double().abs() <= room + 1e-4).all()), "the crop lies inside the image"
        assert (shift.double() / room)[whole].mean().abs() < 0.02


def test_half_of_the_samples_are_mirrored():
    config = AugmentationConfig(horizontal_flip=True)
    images = pictures(400)
    result = augment(images, config, draw(config, 400, (1, 28, 28), keys(), 0))
    mirrored = (result == images.flip(3)).flatten(1).all(1)
    kept = (result == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("sigma", [0.05, 1.0, 4.0, 9.0])
def test_elastic_displacement_has_the_asked_size_at_every_pixel(sigma):
    """On a ramp the displacement can be read off the output: the picture of x moves by d changes by d * slope."""
    config = AugmentationConfig(elastic_alpha=0.5, elastic_sigma=sigma)
    count, side = 600, 32
    ramp = (torch.arange(side) / 64 + 0.25).expand(count, 1, side, side).contiguous()
    result = augment(ramp, config, draw(config, count, (1, side, side), keys(), 0))
    moved = ((result - ramp) * 64)[:, 0, 4:-4, 4:-4]
    rms = moved.square().mean(0).sqrt()
    assert rms.mean().item() == pytest.approx(0.5, rel=0.03)
    assert (rms - 0.5).abs().max() < 0.1
    assert abs(moved.mean()) < 0.02


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_elastic_displacement_is_as_smooth_as_the_gaussian(sigma):
    """Noise smoothed by a Gaussian has the autocorrelation exp(-lag^2 / (4 sigma^2))."""
    config = AugmentationConfig(elastic_alpha=0.5, elastic_sigma=sigma)
    count, side = 600, 32
    ramp = (torch.arange(side) / 64 + 0.25).expand(count, 1, side, side).contiguous()
    moved = ((augment(ramp, config, draw(config, count, (1, side, side), keys(), 0)) - ramp) * 64)[:, 0, 4:-4, 4:-4]
    for lag in (1, round(sigma), round(2 * sigma)):
        correlation = (moved[:, lag:] * moved[:, :-lag]).mean() / moved.square().mean()
        assert correlation.item() == pytest.approx(math.exp(-(lag**2) / (4 * sigma**2)), abs=0.06)


def test_brightness_and_contrast_by_hand():
    """One picture of 0.2 and 0.6 (mean 0.4): contrast 0.5 gives 0.3 and 0.5, brightness 1.5 then 0.45 and 0.75."""
    images = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2)
    config = AugmentationConfig(brightness=0.5, contrast=0.5)
    toned = augment(images, config, Draw(brightness_B=torch.tensor([1.5]), contrast_B=torch.tensor([0.5])))
    torch.testing.assert_close(toned.flatten(), torch.tensor([0.45, 0.75]))
    cut = augment(images, config, Draw(brightness_B=torch.tensor([2.0])))
    torch.testing.assert_close(cut.flatten(), torch.tensor([0.4, 1.0]))
    spread = augment(images, config, Draw(contrast_B=torch.tensor([4.0])))
    torch.testing.assert_close(spread.flatten(), torch.tensor([0.0, 1.0]))


def test_tone_factors_fill_their_range():
    drawn = draw(AugmentationConfig(brightness=0.2, contrast=0.4), 5000, (1, 28, 28), keys(), 0)
    for factor, limit in ((drawn.brightness_B, 0.2), (drawn.contrast_B, 0.4)):
        assert 1 + 0.99 * limit < factor.max() <= 1 + limit
        assert 1 - limit <= factor.min() < 1 - 0.99 * limit


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_gpu_agrees_with_cpu(config):
    images, drawn = pictures(32), draw(config, 32, (1, 28, 28), keys(2), 0)
    on_gpu = augment(images.cuda(), config, drawn)
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), augment(images, config, drawn), rtol=0, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_draws_on_a_gpu_and_in_a_cuda_graph(config):
    """Alike but for the last bit of what comes of cos, sin and tan; a graph does what is done without it."""
    on_cpu = draw(config, 32, (1, 28, 28), keys(1, 2), 96)
    keys_K, first = keys(1, 2).cuda(), torch.zeros((), dtype=torch.int64, device="cuda")
    draw(config, 32, (1, 28, 28), keys_K, first)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = draw(config, 32, (1, 28, 28), keys_K, first)
    first.fill_(96)
    graph.replay()
    plain = draw(config, 32, (1, 28, 28), keys_K, 96)
    for cpu, gpu, replayed in zip(on_cpu.parts, plain.parts, recorded.parts, strict=True):
        assert (cpu is None) == (gpu is None) == (replayed is None)
        if cpu is not None:
            assert torch.equal(gpu, replayed)
            torch.testing.assert_close(gpu.cpu(), cpu, rtol=2e-7, atol=2e-7)
    for part in ("noise_B2hw", "brightness_B", "contrast_B"):
        assert getattr(on_cpu, part) is None or torch.equal(getattr(plain, part).cpu(), getattr(on_cpu, part))
