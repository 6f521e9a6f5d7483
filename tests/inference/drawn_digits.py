"""Draws digits as people do: with strokes, thin or thick, on a sheet that a lamp lights from one side."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    angles = np.radians(np.linspace(start, end, 24))
    return [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles]


STROKES: dict[int, list[list[Point]]] = {
    0: [_arc(0.5, 0.5, 0.28, 0.4, 0, 360)],
    1: [[(0.38, 0.25), (0.52, 0.1), (0.52, 0.9)]],
    2: [[*_arc(0.5, 0.32, 0.25, 0.22, 190, 385), (0.28, 0.88), (0.78, 0.88)]],
    3: [_arc(0.47, 0.3, 0.22, 0.2, 200, 440) + _arc(0.47, 0.69, 0.26, 0.2, -80, 160)],
    4: [[(0.55, 0.1), (0.22, 0.6), (0.8, 0.6)], [(0.62, 0.38), (0.62, 0.92)]],
    5: [[(0.74, 0.12), (0.33, 0.12), (0.3, 0.45), *_arc(0.48, 0.65, 0.26, 0.24, 230, 510)]],
    6: [[(0.65, 0.1), *_arc(0.5, 0.65, 0.25, 0.25, 215, 575)]],
    7: [[(0.22, 0.13), (0.78, 0.13), (0.42, 0.92)]],
    8: [_arc(0.5, 0.3, 0.2, 0.19, 90, 450) + _arc(0.5, 0.69, 0.25, 0.21, -90, 270)],
    9: [[*_arc(0.52, 0.33, 0.22, 0.22, 0, -360), (0.74, 0.33), (0.66, 0.9)]],
}


def draw(
    digit: int, side: int = 200, width: int = 12, ink: int = 0, paper: int = 255,
    scale: float = 0.7, right: float = 0.0, down: float = 0.0,
) -> Image.Image:  # fmt: skip
    """A grey picture of one digit; `scale` is its share of the side, `right` and `down` move it off the middle."""
    picture = Image.new("L", (side * 2, side * 2), paper)
    pen = ImageDraw.Draw(picture)
    for stroke in STROKES[digit]:
        points = [
            (((x - 0.5) * scale + 0.5 + right) * 2 * side, ((y - 0.5) * scale + 0.5 + down) * 2 * side)
            for x, y in stroke
        ]
        pen.line(points, fill=ink, width=2 * width, joint="curve")
        for x, y in points:
            pen.ellipse([x - width, y - width, x + width, y + width], fill=ink)
    return picture.resize((side, side), Image.Resampling.BOX)


def photograph(digit: int, seed: int) -> Image.Image:
    """The same as a bad photograph: off the middle, blurred, unevenly lit, noisy."""
    generator = np.random.default_rng([digit, seed])
    right, down = generator.uniform(-0.14, 0.14, 2)
    drawn = draw(
        digit, 320, int(generator.integers(6, 13)), int(generator.integers(20, 80)), 235,
        generator.uniform(0.35, 0.6), right, down,
    )  # fmt: skip
    pixels = np.asarray(drawn.filter(ImageFilter.GaussianBlur(1.5)), np.float64) / 255
    y, x = np.meshgrid(np.linspace(0, 1, 320), np.linspace(0, 1, 320), indexing="ij")
    light = x * generator.uniform(-1, 1) + y * generator.uniform(-1, 1) + 0.5 * x * x
    light = 0.35 + 0.6 * (light - light.min()) / np.ptp(light)
    noisy = pixels * light + generator.normal(0, 0.03, pixels.shape)
    return Image.fromarray((noisy.clip(0, 1) * 255).astype(np.uint8))
