"""RandAugment (Cubuk et al. 2020) on whole batches on their device: each image gets operations of its own.

    kinds_BN, signs_BN        # which of KINDS each of the N operations of an image is; and whether it goes up (1) or down (0)
    images_BCHW = operated(images_BCHW, kinds_BN, signs_BN, magnitude=9)

The 14 operations, their ranges and formulas are those of torchvision's RandAugment (0.21), which takes them from the paper's
code: magnitude 30 of 0 to 30 is a shear by 0.3, a shift by 150/331 of the side, a turn by 30 degrees, a factor of
1 +- 0.9 for brightness, colour, contrast and sharpness, 4 bits for posterize, and solarize from 0 on. Images are
float32 in [0, 1] and stay so: what torchvision computes of bytes differs by rounding to bytes. Moves
sample bilinearly with zeros outside. Posterize, solarize and equalize look at values as bytes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ensemble.data.colours import blended, changed_where, greys
from ensemble.data.sampling import sampled

KINDS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
LARGEST = 30  # magnitude
_MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_BLENDS = ("brightness", "color", "contrast", "sharpness")
_SHEAR, _SHIFT, _DEGREES, _FACTOR, _BITS = 0.3, 150 / 331, 30.0, 0.9, 4


def operated(
    images_BCHW: Tensor, kinds_BN: Tensor, signs_BN: Tensor, magnitude: int, whole: bool | None = None
) -> Tensor:
    """The images after their operations, one after the other; the given ones are not changed in place.

    kinds_BN: int64, positions in KINDS. signs_BN: int64, 0 or 1, heeded by moves and blends. whole: see `changed_where`; by default
    on a GPU.
    """
    whole = images_BCHW.is_cuda if whole is None else whole
    images_BCHW = images_BCHW.clone()
    for kinds_B, signs_B in zip(kinds_BN.unbind(1), signs_BN.unbind(1), strict=True):
        images_BCHW = _operated_once(images_BCHW, kinds_B, signs_B, magnitude, whole)
    return images_BCHW


def _operated_once(images_BCHW: Tensor, kinds_B: Tensor, signs_B: Tensor, magnitude: int, whole: bool) -> Tensor:
    level = magnitude / LARGEST
    sources = _sources(magnitude, *images_BCHW.shape[2:], images_BCHW.device)
    factor_B = 1 + _FACTOR * level * (2 * signs_B - 1).float()

    def moved(images: Tensor, rows: Tensor | slice) -> Tensor:
        return sampled(images, sources[kinds_B[rows], signs_B[rows]])

    def toned(images: Tensor, rows: Tensor | slice) -> Tensor:
        return blended(images, _others(images, kinds_B[rows]), factor_B[rows])

    groups = ((_MOVES, moved), (_BLENDS, toned))
    alone = {
        "posterize": lambda images, _: _posterized(images, round(8 - _BITS * level)),
        "solarize": lambda images, _: torch.where(_as_bytes(images) >= _threshold(magnitude), 1 - images, images),
        "autocontrast": lambda images, _: _autocontrasted(images),
        "equalize": lambda images, _: _equalized(images),
    }
    chosen = [_any_of(kinds_B, names) for names, _ in groups] + [_any_of(kinds_B, (name,)) for name in alone]
    changes = [*(change for _, change in groups), *alone.values()]
    for chosen_B, change in zip(chosen, changes, strict=True):
        images_BCHW = changed_where(chosen_B, images_BCHW, change, whole)
    return images_BCHW


def _any_of(kinds_B: Tensor, names: tuple[str, ...]) -> Tensor:
    """Which images get one of these operations, which stand side by side in KINDS."""
    first = KINDS.index(names[0])
    return (kinds_B >= first) & (kinds_B < first + len(names))


@lru_cache(maxsize=32)
def _sources(magnitude: int, height: int, width: int, device: torch.device) -> Tensor:
    """Where pixels come from, [kinds, down or up, 2, 3], as `sampled` takes it; of operations that move nothing the identity.

    As in Pillow, which these operations were first written with, shears leave the upper left corner where it is and shifts are by
    whole pixels.
    """
    level = magnitude / LARGEST
    table = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64).repeat(len(KINDS), 2, 1, 1)
    for up, sign in enumerate((-1, 1)):
        shear, angle = sign * _SHEAR * level, math.radians(sign * _DEGREES * level)
        right, down = (sign * int(_SHIFT * side * level) for side in (width, height))
        moves = {
            "shear_x": [[1, shear, shear * height / 2], [0, 1, 0]],
            "shear_y": [[1, 0, 0], [shear, 1, shear * width / 2]],
            "translate_x": [[1, 0, -right], [0, 1, 0]],
            "translate_y": [[1, 0, 0], [0, 1, -down]],
            "rotate": [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]],
        }
        for name, move in moves.items():
            table[KINDS.index(name), up] = torch.tensor(move, dtype=torch.float64)
    return table.float().to(device)


def _others(images_BCHW: Tensor, kinds_B: Tensor) -> Tensor:
    """What brightness (black), colour (the image in grey), contrast (its mean grey) and sharpness (it smoothed) lead away from or to."""
    grey = greys(images_BCHW)
    # Summed in float64, the rounded mean does not depend on the order of summation, which the batch can change.
    mean = grey.mean(dim=(1, 2, 3), dtype=torch.float64, keepdim=True).float()
    by_name = {
        "brightness": torch.zeros_like(mean),
        "color": grey,
        "contrast": mean,
        "sharpness": _smoothed(images_BCHW),
    }
    others = images_BCHW
    for name, other in by_name.items():
        others = torch.where((kinds_B == KINDS.index(name))[:, None, None, None], other, others)
    return others


def _smoothed(images_BCHW: Tensor) -> Tensor:
    """Every pixel but those of the border as the mean of the nine around it, itself counted five times."""
    if min(images_BCHW.shape[2:]) < 3:
        return images_BCHW
    columns = images_BCHW[..., :-2] + images_BCHW[..., 1:-1] + images_BCHW[..., 2:]
    nine = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :]
    smooth = images_BCHW.clone()
    smooth[..., 1:-1, 1:-1] = (nine + 4 * images_BCHW[..., 1:-1, 1:-1]) / 13
    return smooth


def _as_bytes(images_BCHW: Tensor) -> Tensor:
    """The values 0 to 255 that they would have as bytes, in float32."""
    return (images_BCHW * 255).round()


def _posterized(images_BCHW: Tensor, bits: int) -> Tensor:
    """Only the upper bits of every byte."""
    step = 2 ** (8 - bits)
    kept: Tensor = (_as_bytes(images_BCHW) / step).floor() * step / 255
    return kept


@lru_cache(maxsize=32)
def _threshold(magnitude: int) -> float:
    """The byte from which on solarize inverts, rounded as torchvision's is."""
    return 255 * float(torch.linspace(1.0, 0.0, LARGEST + 1)[magnitude])


def _autocontrasted(images_BCHW: Tensor) -> Tensor:
    """Every channel stretched to the whole range; one that is all alike stays."""
    least, most = images_BCHW.amin((2, 3), keepdim=True), images_BCHW.amax((2, 3), keepdim=True)
    flat = most == least
    return torch.where(flat, images_BCHW, ((images_BCHW - least) / torch.where(flat, 1, most - least)).clamp(0, 1))


def _equalized(images_BCHW: Tensor) -> Tensor:
    """Every channel with values that are spread as evenly as Pillow spreads them; one with next to nothing but its maximum stays."""
    values = _as_bytes(images_BCHW).long().flatten(2)
    counts = torch.zeros((*values.shape[:2], 256), dtype=torch.int64, device=values.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    below_the_top = values.shape[2] - counts.gather(2, values.amax(2, keepdim=True))
    step = below_the_top // 255
    smaller = counts.cumsum(2) - counts
    table = ((smaller + step // 2) // step.clamp(min=1)).clamp(max=255)
    spread = torch.where(step > 0, table.gather(2, values), values)
    return (spread.float() / 255).view_as(images_BCHW)
