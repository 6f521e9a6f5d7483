"""Random deformation of whole batches on their device, every sample with parameters of its own.

    keys_K = torch.tensor([seed of (member, epoch) for every member])         # int64, on the device of the images
    draws = draw(config, 64, image_shape, keys_K, first)      # for positions first .. first + 63 in every member's epoch
    images_BCHW = augment(images_BCHW, config, draws)         # B = K * 64, one member's images after the other's

Rotation, scale, shear, shift, crops, flip and elastic deformation are composed into one grid of source coordinates, so
an image is resampled once, bilinearly, with zeros outside. Brightness, contrast, saturation and hue follow, then RandAugment, grey
and blur; `mixing` comes after them.

The parameters of an image depend on its member's key and on its position in the epoch alone (see `counter_random`): not
on the batch size, the other members, the number of ranks, or the epoch's interruption. Every step afterwards works on
one image at a time in an order that does not depend on how many are in the batch. So in a stack of members each gets
the bits it gets alone (on a GPU the elastic field may differ by the rounding of its small products, where the library
picks them by batch size).

What `augment` does, the kernels of ensemble/native do for narrow networks on a CPU while they gather a batch, to the
rounding of float32; `spline_taps` is what they take of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from ensemble.config.recipe import AugmentationConfig
from ensemble.data import colours
from ensemble.data.counter_random import SignedUniform, signed_uniform, stream_starts
from ensemble.data.randaugment import KINDS, operated
from ensemble.data.sampling import Frame, frame_of, sampled

# A uniform cubic B-spline with nodes `s` apart has a standard deviation of s / sqrt(3).
NODE_SPACING_IN_SIGMAS = math.sqrt(3.0)
# Streams of an image's numbers, of which `draw` takes as many as are switched on from 0, and `_draw_photograph` those from here on,
# each for one thing whatever else is switched on.
_PHOTOGRAPH = 32
_SATURATION, _HUE, _GREY, _BLURS, _SIGMA, _OPERATIONS = range(6)  # two for every operation


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """The parameters of a batch, leading axis B; None for what is off.

    source_B23: output pixel -> source pixel, both counted from the image centre as (x, y, 1) and (x, y).
    noise_B2hw: displacement at the nodes of the elastic deformation, uniform with unit variance.
    brightness_B, contrast_B, saturation_B: factors. hue_B: shares of the colour circle. grey_B: which become grey, bool.
    sigma_B: of the blur, in pixels; 0: none. kinds_BN, signs_BN: operations of RandAugment, see `randaugment.operated`.
    """

    source_B23: Tensor | None = None
    noise_B2hw: Tensor | None = None
    brightness_B: Tensor | None = None
    contrast_B: Tensor | None = None
    saturation_B: Tensor | None = None
    hue_B: Tensor | None = None
    grey_B: Tensor | None = None
    sigma_B: Tensor | None = None
    kinds_BN: Tensor | None = None
    signs_BN: Tensor | None = None

    def rows(self, index: slice | Tensor) -> Draw:
        """The draw of some of the samples."""
        return Draw(*(None if part is None else part[index] for part in self.parts))

    def to(self, device: torch.device) -> Draw:
        """The draw on another device."""
        return Draw(*(None if part is None else part.to(device, non_blocking=True) for part in self.parts))

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        """The fields in order."""
        return tuple(getattr(self, each.name) for each in fields(self))


def draw(
    config: AugmentationConfig,
    count: int,
    image_shape: tuple[int, int, int],
    keys_K: Tensor,
    first: int | Tensor,
    numbers: SignedUniform = signed_uniform,
    margin: int = 0,
) -> Draw:
    """Parameters of the images (C, H, W) at the positions first .. first + count - 1 of every key's epoch.

    Returns K * count rows, one key's after the other's, on the device of the keys; only what is switched on is drawn.
    keys_K: int64. first: an int, or an int64 tensor of one element on that device.
    numbers: computes the random numbers, to the bits of `signed_uniform`. margin: pixels on each side that images are kept with beyond
    (H, W); each is then seen through a window of that size at a random place.

    May be recorded in a CUDA graph after a first call outside it: nothing is copied from or to the host. Noise
    and tones have the same bits on every device. The affine parameters are composed in float64 and then
    rounded; since devices may compute cos, sin and tan to different last bits, now and then an entry of source_B23
    differs by the last bit of its float32.
    """
    _, height, width = image_shape
    limits = _Limits.of(config, height, width, margin)
    starts_N = stream_starts(limits.count + 1, keys_K.device)  # the noise comes last
    photograph = _draw_photograph(config, count, keys_K, first, numbers) if config.photographic else {}
    noise, source = None, None
    if config.elastic_alpha:
        nodes = (2, _nodes(height, config.elastic_sigma), _nodes(width, config.elastic_sigma))
        each = math.prod(nodes)
        noise = numbers(keys_K, starts_N[-1:] + first * each, count * each, torch.float32)
        noise = noise.mul_(math.sqrt(3.0)).view(-1, *nodes)
    if not limits.count:
        return Draw(noise_B2hw=noise, **photograph)
    signed_NB = numbers(keys_K, starts_N[:-1] + first, count, torch.float64).flatten(1)
    spread = limits.spread(signed_NB)
    if limits.moves:
        source = limits.source(spread, signed_NB, height, width)
    tones = [(1 + spread[name][0]).float() if name in spread else None for name in ("brightness", "contrast")]
    return Draw(source, noise, *tones, **photograph)


def _draw_photograph(
    config: AugmentationConfig, count: int, keys_K: Tensor, first: int | Tensor, numbers: SignedUniform
) -> dict[str, Tensor]:
    """The parameters of what is meant for photographs, by the names of Draw."""
    wanted = _OPERATIONS + 2 * config.randaugment_operations
    starts_N = stream_starts(_PHOTOGRAPH + wanted, keys_K.device)[_PHOTOGRAPH:] + first
    signed_NB = numbers(keys_K, starts_N, count, torch.float64).flatten(1)
    uniform_NB = (signed_NB + 1) / 2
    found: dict[str, Tensor] = {}
    if config.saturation:
        found["saturation_B"] = (1 + config.saturation * signed_NB[_SATURATION]).float()
    if config.hue:
        found["hue_B"] = (config.hue * signed_NB[_HUE]).float()
    if config.grey_probability:
        found["grey_B"] = uniform_NB[_GREY] < config.grey_probability
    if config.blur_probability:
        smallest = colours.SMALLEST_SIGMA
        sigma_B = smallest + (config.blur_sigma - smallest) * uniform_NB[_SIGMA]
        found["sigma_B"] = torch.where(uniform_NB[_BLURS] < config.blur_probability, sigma_B, 0).float()
    if config.randaugment_operations:
        kinds_NB, signs_NB = uniform_NB[_OPERATIONS::2], uniform_NB[_OPERATIONS + 1 :: 2]
        found["kinds_BN"] = (kinds_NB * len(KINDS)).floor().long().T.contiguous()
        found["signs_BN"] = (signs_NB >= 0.5).long().T.contiguous()
    return found


def augment(images_BCHW: Tensor, config: AugmentationConfig, draw: Draw, margin: int = 0) -> Tensor:
    """The images (float32 in [0, 1]) changed as `draw` says, on their device, again in [0, 1].

    `draw` must come from the same configuration and margin, which the result is without. The given images are not changed in place;
    where nothing is switched on they are returned themselves.
    """
    draw = draw.to(images_BCHW.device)
    if draw.source_B23 is not None or draw.noise_B2hw is not None:
        images_BCHW = _resample(images_BCHW, config, draw, margin)
    if draw.brightness_B is not None or draw.contrast_B is not None:
        images_BCHW = _retone(images_BCHW, draw)
    return _photographed(images_BCHW, config, draw) if config.photographic else images_BCHW


def _photographed(images_BCHW: Tensor, config: AugmentationConfig, draw: Draw) -> Tensor:
    """The images after what is meant for photographs, in its order; the given ones are not changed in place."""
    if draw.saturation_B is not None:
        images_BCHW = colours.saturated(images_BCHW, draw.saturation_B)
    if draw.hue_B is not None:
        images_BCHW = colours.turned(images_BCHW, draw.hue_B)
    if draw.kinds_BN is not None:
        assert draw.signs_BN is not None
        images_BCHW = operated(images_BCHW, draw.kinds_BN, draw.signs_BN, config.randaugment_magnitude)
    if draw.grey_B is not None:
        images_BCHW = torch.where(draw.grey_B[:, None, None, None], colours.greys(images_BCHW), images_BCHW)
    if draw.sigma_B is not None:
        images_BCHW = colours.sometimes_blurred(images_BCHW, draw.sigma_B, config.blur_sigma)
    return images_BCHW


@dataclass(frozen=True, slots=True)
class _Limits:
    """What a configuration changes images of some size by, at most: angles as radians, shifts and crops as pixels."""

    spreads: tuple[tuple[str, tuple[float, ...]], ...]  # names and limits of what is drawn around zero, where it is on
    crop: int
    flip: bool
    crop_area: float
    margin: int

    @classmethod
    def of(cls, config: AugmentationConfig, height: int, width: int, margin: int) -> _Limits:
        """A window within a margin is a crop; a stretched crop takes its place, and is of all that is kept."""
        shear = math.radians(config.shear_degrees)
        limits = {
            "angle": (math.radians(config.rotation_degrees),), "scale": (config.scale,), "shear": (shear, shear),
            "shift": (config.shift * width, config.shift * height),
            "brightness": (config.brightness,), "contrast": (config.contrast,),
        }  # fmt: skip
        spreads = tuple((name, each) for name, each in limits.items() if any(each))
        crop = config.crop_padding + (margin if config.crop_area == 1 else 0)
        return cls(spreads, crop, config.horizontal_flip, config.crop_area, margin)

    @property
    def count(self) -> int:
        """Numbers that an image takes besides its noise: the spreads, two for a crop, one for a flip, four for a stretched crop."""
        return self._spread + (2 if self.crop else 0) + self.flip + (4 if self.crop_area < 1 else 0)

    @property
    def _spread(self) -> int:
        return sum(len(each) for _, each in self.spreads)

    @property
    def moves(self) -> bool:
        """Whether any of it changes where a pixel comes from."""
        own = self.crop or self.flip or self.crop_area < 1
        return bool(own or any(name not in ("brightness", "contrast") for name, _ in self.spreads))

    def spread(self, signed_NB: Tensor) -> dict[str, Tensor]:
        """The spreads by name, [how many, B] each, of the first rows of numbers in [-1, 1)."""
        if not self.spreads:
            return {}
        limits_N1 = _column(tuple(limit for _, each in self.spreads for limit in each), signed_NB.device)
        parts = torch.split(signed_NB[: len(limits_N1)] * limits_N1, [len(each) for _, each in self.spreads])
        return dict(zip((name for name, _ in self.spreads), parts, strict=True))

    def source(self, spread: dict[str, Tensor], signed_NB: Tensor, height: int, width: int) -> Tensor:
        """source_B23 of the composition: stretched crop, mirror, crop, shear y, shear x, scale, rotate, shift.

        Forwards that is out = R(angle) scale Sx Sy (mirror(in) - crop) + shift, with y pointing down and a positive
        angle turning counter-clockwise; what the sampling grid needs is its inverse. In float64, so that quarter turns
        and whole pixels stay exact.
        """
        zeros_2B = signed_NB.new_zeros((2, signed_NB.shape[1]))
        angle_1B = spread.get("angle", zeros_2B[:1])
        y_2B = torch.cat((torch.sin(angle_1B), torch.cos(angle_1B)))  # what x and y add to the source's y
        if "scale" in spread:
            y_2B = y_2B / (1 + spread["scale"])
        x_2B = torch.stack((y_2B[1], -y_2B[0]))
        if "shear" in spread:
            shear_x, shear_y = torch.tan(spread["shear"])
            x_2B = x_2B - shear_x * y_2B
            y_2B = y_2B - shear_y * x_2B
        linear_22B, constant_2B = torch.stack((x_2B, y_2B)), zeros_2B
        if "shift" in spread:
            constant_2B = -(linear_22B * spread["shift"]).sum(1)
        at = self._spread
        if self.crop:
            constant_2B = constant_2B + ((signed_NB[at : at + 2] + 1) * (self.crop + 0.5)).floor_() - self.crop
            at += 2
        source_23B = torch.cat((linear_22B, constant_2B[:, None]), 1)
        if self.flip:
            source_23B[0].mul_(2 * signed_NB[at].floor() + 1)
            at += 1
        if self.crop_area < 1:
            self._stretch(source_23B, signed_NB[at : at + 4], (width, height))
        return source_23B.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)

    def _stretch(self, source_23B: Tensor, signed_4B: Tensor, sides: tuple[int, int]) -> None:
        """Put a crop of random area, ratio of its sides and place behind the source, in place.

        Area and ratio are drawn as by torchvision's RandomResizedCrop; a side longer than the image's becomes that. The
        ratio is of shares of the sides, so that nothing is stretched by more than 4/3 in an image that is no square either. sides: of
        what a network is shown; the shares are of the image with its margin.
        """
        area_B = self.crop_area + (1 - self.crop_area) * (signed_4B[0] + 1) / 2
        ratio_B = (math.log(4 / 3) * signed_4B[1]).exp()
        shares_2B = torch.stack(((area_B * ratio_B).sqrt(), (area_B / ratio_B).sqrt())).clamp_(max=1)
        kept = tuple(side + 2 * self.margin for side in sides)
        larger_21 = _column(tuple(whole / side for whole, side in zip(kept, sides, strict=True)), signed_4B.device)
        source_23B.mul_((shares_2B * larger_21)[:, None])
        source_23B[:, 2].add_(signed_4B[2:] * (1 - shares_2B) * _column(kept, signed_4B.device) / 2)


@lru_cache(maxsize=32)
def _column(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers as a float64 tensor [N, 1]; kept, because a CUDA graph cannot copy them from the host."""
    return torch.tensor(numbers, dtype=torch.float64)[:, None].to(device)


def _resample(images_BCHW: Tensor, config: AugmentationConfig, draw: Draw, margin: int) -> Tensor:
    """Samples the images once at the composed source coordinates."""
    if draw.noise_B2hw is None:
        return sampled(images_BCHW, draw.source_B23, margin=margin)
    frame = frame_of(*images_BCHW.shape[2:], images_BCHW.device, margin)
    return sampled(images_BCHW, draw.source_B23, _displacement(draw.noise_B2hw, config, frame), margin)


def _spacing(sigma: float) -> float:
    """Pixels between the nodes whose spline smooths like a Gaussian of `sigma` pixels.

    Below a quarter pixel no two pixels share a node: the noise is white, as it is for so small a sigma.
    """
    return max(sigma * NODE_SPACING_IN_SIGMAS, 0.25)


def _nodes(side: int, sigma: float) -> int:
    """Number of nodes that reach the pixels of one axis."""
    return int((side - 1) / _spacing(sigma)) + 4


@lru_cache(maxsize=32)
def spline_taps(side: int, sigma: float) -> tuple[Tensor, Tensor]:
    """For each pixel of one axis the first of the four nodes that move it, and their weights, squares adding to 1.

    Unit squares make the displacement's variance that of the noise, at every pixel. Returns int32 [side] and float32
    [side, 4].
    """
    place_S = torch.arange(side, dtype=torch.float64) / _spacing(sigma)
    first_S = place_S.floor()
    f = place_S - first_S
    taps_S4 = torch.stack(((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3), dim=1)
    return first_S.int(), (taps_S4 / taps_S4.square().sum(1, keepdim=True).sqrt()).float()


@lru_cache(maxsize=32)
def _spline(side: int, sigma: float, device: torch.device) -> Tensor:
    """What each node contributes to each pixel of one axis: (side, nodes), the taps among zeros."""
    first_S, taps_S4 = spline_taps(side, sigma)
    weights = torch.zeros(side, _nodes(side, sigma))
    return weights.scatter_(1, first_S.long()[:, None] + torch.arange(4), taps_S4).to(device)


def _displacement(noise_B2hw: Tensor, config: AugmentationConfig, frame: Frame) -> Tensor:
    """The elastic displacement field in grid units (Simard et al. 2003): smoothed uniform noise.

    Its root mean square is elastic_alpha pixels along each axis. The Gaussian is taken as a cubic B-spline on nodes
    1.73 sigma apart: two small products per image instead of a wide kernel over noise for every pixel.
    """
    batch, _, rows, columns = noise_B2hw.shape
    height, width = len(frame.y_H), len(frame.x_W)
    down_Hh = _spline(height, config.elastic_sigma, noise_B2hw.device)
    across_Ww = _spline(width, config.elastic_sigma, noise_B2hw.device)
    noise = (noise_B2hw * (config.elastic_alpha * frame.unit_21[:, :, None])).view(2 * batch, rows, columns)
    # One product per image, not one over the whole batch: the order of its sums is the image's own.
    stretched = torch.bmm(noise, across_Ww.T.expand(2 * batch, columns, width))
    return torch.bmm(down_Hh.expand(2 * batch, height, rows), stretched).view(batch, 2, height, width)


def _retone(images_BCHW: Tensor, draw: Draw) -> Tensor:
    """brightness * (contrast * (x - mean) + mean), the mean over each image's channels and pixels."""
    gain_B, offset_B = draw.brightness_B, None
    if draw.contrast_B is not None:
        # Summed in float64, the rounded mean does not depend on the order of summation, which the batch can change.
        mean_B = images_BCHW.mean(dim=(1, 2, 3), dtype=torch.float64).float()
        gain_B, offset_B = draw.contrast_B, (1 - draw.contrast_B) * mean_B
        if draw.brightness_B is not None:
            gain_B, offset_B = gain_B * draw.brightness_B, offset_B * draw.brightness_B
    assert gain_B is not None
    toned = images_BCHW * gain_B[:, None, None, None]
    if offset_B is not None:
        toned += offset_B[:, None, None, None]
    return toned.clamp_(0, 1)
