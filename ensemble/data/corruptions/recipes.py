"""The known corruptions and the parameters of their severities, as published.

MNIST-C: N. Mu and J. Gilmer, "MNIST-C: a robustness benchmark for computer vision" (2019, arXiv 1906.02337), and its
program, github.com/google-research/mnist-c. CIFAR-10-C: D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to
common corruptions and perturbations" (ICLR 2019), and its program, github.com/hendrycks/robustness.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ensemble.data.corruptions import blurs, drawing, edges, geometry, motion, noise, spatter, tones, weather
from ensemble.data.corruptions.draws import Draws
from ensemble.types import ByteArray

LARGEST_SEVERITY = 5
LARGEST_ANGLE = 360
SMALLEST_SIDE = 8
MOST_CHANNELS = 4

# Corrupted bytes from images_NCHW, the parameter of a severity, and random numbers.
Corrupting = Callable[[ByteArray, Any, Draws], ByteArray]


@dataclass(frozen=True, slots=True)
class Corruption:
    """A corruption by its name and its level: a severity from 1 to 5, an angle in degrees, or None where there is none."""

    name: str
    level: float | None = None

    @property
    def label(self) -> str:
        """As it is shown to people: "gaussian_noise 3", "rotate 45", "stripe"."""
        plain = self.name.rpartition("/")[2]
        return plain if self.level is None else f"{plain} {self.level:g}"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a corruption does, and its parameter at each severity; None: it has no severities."""

    apply: Corrupting
    parameters: tuple[Any, ...] | None = None


_MUD, _WATER = True, False

_KINDS: dict[str, Kind] = {
    "identity": Kind(tones.identity),
    "rotate": Kind(geometry.rotate),
    "mnist_c/shot_noise": Kind(noise.shot_noise, (60, 25, 12, 5, 3)),
    "mnist_c/impulse_noise": Kind(noise.impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "mnist_c/glass_blur": Kind(blurs.glass_blur_28, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "mnist_c/motion_blur": Kind(motion.motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "mnist_c/shear": Kind(geometry.shear, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "mnist_c/scale": Kind(geometry.scale, (1 / 0.9, 1 / 0.8, 1 / 0.7, 1 / 0.6, 1 / 0.5)),
    "mnist_c/rotate": Kind(geometry.rotate_at_random, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "mnist_c/brightness": Kind(tones.brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "mnist_c/translate": Kind(geometry.translate, (1, 2, 3, 4, 5)),
    "mnist_c/stripe": Kind(drawing.stripe),
    "mnist_c/fog": Kind(weather.fog_of_256, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "mnist_c/spatter": Kind(
        spatter.spatter_grey,
        (
            (0.65, 0.3, 4, 0.69, 0.6, _MUD),
            (0.65, 0.3, 3, 0.68, 0.6, _MUD),
            (0.65, 0.3, 2, 0.68, 0.5, _MUD),
            (0.65, 0.3, 1, 0.65, 1.5, _MUD),
            (0.67, 0.4, 1, 0.65, 1.5, _MUD),
        ),
    ),
    "mnist_c/dotted_line": Kind(drawing.dotted_line),
    "mnist_c/zigzag": Kind(drawing.zigzag),
    "mnist_c/canny_edges": Kind(edges.canny_edges),
    "cifar10_c/gaussian_noise": Kind(noise.gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "cifar10_c/shot_noise": Kind(noise.shot_noise, (500, 250, 100, 75, 50)),
    "cifar10_c/impulse_noise": Kind(noise.impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "cifar10_c/defocus_blur": Kind(blurs.defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "cifar10_c/glass_blur": Kind(
        blurs.glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
    ),
    "cifar10_c/motion_blur": Kind(motion.motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "cifar10_c/zoom_blur": Kind(
        blurs.zoom_blur, ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
    ),
    "cifar10_c/snow": Kind(
        weather.snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "cifar10_c/fog": Kind(weather.fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "cifar10_c/brightness": Kind(tones.brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "cifar10_c/contrast": Kind(tones.contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "cifar10_c/elastic_transform": Kind(
        geometry.elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "cifar10_c/pixelate": Kind(tones.pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "cifar10_c/jpeg_compression": Kind(tones.jpeg_compression, (80, 65, 58, 50, 40)),
    "cifar10_c/speckle_noise": Kind(noise.speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "cifar10_c/gaussian_blur": Kind(blurs.gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
    "cifar10_c/spatter": Kind(
        spatter.spatter,
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, _WATER),
            (0.65, 0.1, 0.8, 0.7, 0.5, _WATER),
            (0.65, 0.3, 1, 0.69, 0.5, _WATER),
            (0.65, 0.1, 0.7, 0.69, 0.6, _MUD),
            (0.65, 0.1, 0.5, 0.68, 0.6, _MUD),
        ),
    ),
    "cifar10_c/saturate": Kind(tones.saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
}

# The severity of each corruption in the published MNIST-C.
_MNIST_C: dict[str, int | None] = {
    "shot_noise": 5, "impulse_noise": 4, "glass_blur": 1, "motion_blur": 1, "shear": 2, "scale": 3, "rotate": 2, "brightness": 5,
    "translate": 3, "stripe": None, "fog": 5, "spatter": 4, "dotted_line": None, "zigzag": None, "canny_edges": None,
}  # fmt: skip

# The main corruptions of CIFAR-10-C in the order of the paper, without frost; the program has four more.
_CIFAR10_C = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "fog",
    "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip

# Which corruptions each recipe is made of. CIFAR-10-C's frost lays photographs of frost over the image, which are not at hand:
# of its 15 main corruptions there are 14, at five severities.
RECIPES: dict[str, tuple[Corruption, ...]] = {
    "mnist_c": tuple(Corruption(f"mnist_c/{name}", severity) for name, severity in _MNIST_C.items()),
    "cifar10_c": tuple(
        Corruption(f"cifar10_c/{name}", severity) for name in _CIFAR10_C for severity in range(1, LARGEST_SEVERITY + 1)
    ),
}

# A plain name is CIFAR-10-C's where it has the corruption, MNIST-C's otherwise; "rotate" is the one by any angle.
_FULL_NAMES: dict[str, str] = {
    **{
        name.removeprefix(recipe): name
        for recipe in ("mnist_c/", "cifar10_c/")
        for name in _KINDS
        if name.startswith(recipe)
    },
    **{name: name for name in _KINDS},
}

NAMES: tuple[str, ...] = tuple(sorted(_FULL_NAMES))


def full_name(name: str) -> str:
    """The name with its recipe, for one of NAMES: the same corruption has the same one."""
    return _FULL_NAMES[name]


def kind_of(name: str) -> Kind:
    """What one of NAMES does."""
    return _KINDS[_FULL_NAMES[name]]


def problem_with(name: str, level: float | None, image_shape: tuple[int, int, int] | None = None) -> str:
    """Why images of a shape (C, H, W) cannot be corrupted so, as a sentence; "" where they can.

    image_shape: None leaves the images out of it.
    """
    if name not in _FULL_NAMES:
        near = difflib.get_close_matches(name, NAMES, 3, 0.5)
        meant = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected one of {', '.join(NAMES)}."
        return f"There is no corruption {name!r}; {meant}"
    return _level_problem(name, level) or ("" if image_shape is None else _shape_problem(name, image_shape))


def _level_problem(name: str, level: float | None) -> str:
    number = not isinstance(level, bool) and isinstance(level, Real) and math.isfinite(level)
    if full_name(name) == "rotate":
        if number and level is not None and abs(level) <= LARGEST_ANGLE:
            return ""
        return (
            f"The corruption {name!r} has the level {level!r}; expected an angle in degrees counter-clockwise, "
            f"from -{LARGEST_ANGLE} to {LARGEST_ANGLE}."
        )
    if kind_of(name).parameters is None:
        return (
            ""
            if level is None
            else f"The corruption {name!r} has the level {level!r}; expected none, as it has no levels."
        )
    if number and level is not None and 1 <= level <= LARGEST_SEVERITY and level == int(level):
        return ""
    return f"The corruption {name!r} has the level {level!r}; expected a severity, a whole number from 1 to {LARGEST_SEVERITY}."


def _shape_problem(name: str, image_shape: tuple[int, int, int]) -> str:
    channels, height, width = image_shape
    if 1 <= channels <= MOST_CHANNELS and min(height, width) >= SMALLEST_SIDE:
        return ""
    return (
        f"The corruption {name!r} was asked for on images of {channels} x {height} x {width}; expected 1 to {MOST_CHANNELS} channels "
        f"and at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels."
    )
