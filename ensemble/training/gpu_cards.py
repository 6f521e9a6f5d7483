"""What was measured on graphics cards: speed and memory of stacks, and the fastest way of each convolution.

gpu_cards.json is a table by the card's name, as `torch.cuda.get_device_name()` gives it; `python -m benchmarks.tune_gpu` adds
the card that it runs on. It holds nothing but such measurements. Importing this needs no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ensemble.config.network import Network
from ensemble.training.job import Ways

MEMORY_SHARE = 0.8  # of a card's memory that a stack may fill
_NEAR = 1.0  # a convolution counts as measured where members and batch size are within a factor of 2 (its logarithm)


@dataclass(frozen=True)
class Card:
    """A graphics card. name: as `torch.cuda.get_device_name()` gives it."""

    name: str
    memory_gib: float


@dataclass(frozen=True)
class Measured:
    """One kind of network on one card, by stack size.

    images_per_s: member-images of training per second. peak_bytes: of one member, at `batch_size` images.
    """

    batch_size: int
    images_per_s: Mapping[int, float]
    peak_bytes: Mapping[int, float]

    def largest_stack(self, memory_gib: float, batch_size: int) -> int:
        """The most members whose training fills at most MEMORY_SHARE of the memory; at least 1.

        Memory of batches of another size is taken to grow with their size, as that of activations does.
        """
        room = MEMORY_SHARE * memory_gib * 2**30 * self.batch_size / batch_size
        sizes = sorted(self.peak_bytes)
        total = {size: size * self.peak_bytes[size] for size in sizes}
        if total[sizes[-1]] <= room:
            return math.floor(room / self.peak_bytes[sizes[-1]])
        below = max((size for size in sizes if total[size] <= room), default=0)
        above = min(size for size in sizes if size > below)
        step = (total[above] - total.get(below, 0.0)) / (above - below)
        return max(1, math.floor(below + (room - total.get(below, 0.0)) / step))


def local_card() -> Card | None:
    """The GPU of this process; None where it has none."""
    import torch  # only here: the driver of a CPU run needs no torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Card(properties.name, properties.total_memory / 2**30)


def measured(card: Card, model: Network, precision: str) -> Measured | None:
    """What is known of networks of a model's kind on a card; None where they were not measured there."""
    found = _cards().get(card.name, {}).get("networks", {}).get(f"{model.measured_as} {precision}")
    if found is None or not found["images_per_s"]:
        return None
    images_per_s, peak_bytes = (
        {int(size): value for size, value in found[key].items()} for key in ("images_per_s", "peak_bytes")
    )
    return Measured(found["batch_size"], images_per_s, peak_bytes)


def stored_ways(
    card: Card,
    model: Network,
    precision: str,
    count: int,
    batch_size: int,
    shape: tuple[int, int, int],
    classes: int,
) -> Ways | None:
    """The fastest ways of a network's convolutions on a card, where they were measured; None where none was.

    count: stack size; shape: of an image [C, H, W].
    """
    entries = [
        entry for entry in _cards().get(card.name, {}).get("convolutions", []) if entry["precision"] == precision
    ]
    if not entries:
        return None
    found = {}
    for name, layer in convolutions(model, shape, classes):
        alike = [entry for entry in entries if entry["layer"] == layer]
        nearest = min(alike, key=lambda entry: _distance(entry, count, batch_size), default=None)
        if nearest is not None and _distance(nearest, count, batch_size) <= _NEAR:
            found[name] = str(nearest["fastest"])
    return Ways(False, found) if found else None


def convolutions(model: Network, shape: tuple[int, int, int], classes: int) -> Iterator[tuple[str, str]]:
    """Name and description of every convolution of a network, on images [C, H, W]; nothing is computed."""
    import torch
    from torch import Tensor, nn

    from ensemble.models import build_model

    found: list[tuple[str, str]] = []
    with torch.device("meta"):
        network = build_model(model, shape, classes).eval()
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d):

                def note(layer: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor, name: str = name) -> None:
                    assert isinstance(layer, nn.Conv2d)
                    found.append((name, describe(layer, inputs[0].shape[2], inputs[0].shape[3])))

                layer.register_forward_hook(note)
        network(torch.empty(1, *shape))
    yield from found


def describe(layer: Any, height: int, width: int) -> str:
    """A convolution (an nn.Conv2d) on images of so many pixels, in words; those that are alike have the same."""
    rows, columns = layer.kernel_size
    words = f"{layer.in_channels}x{height}x{width} to {layer.out_channels} by {rows}x{columns}"
    options = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    unusual = (f", {name} {getattr(layer, name)}" for name, usual in options.items() if getattr(layer, name) != usual)
    return words + "".join(unusual)


def _distance(entry: Mapping[str, Any], count: int, batch_size: int) -> float:
    """How far a measurement is from what is planned, in factors of 2; the larger one of members and batch size."""
    return max(abs(math.log2(entry["members"] / count)), abs(math.log2(entry["batch_size"] / batch_size)))


@cache
def _cards() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("ensemble.training") / "gpu_cards.json").read_text())
    return found
