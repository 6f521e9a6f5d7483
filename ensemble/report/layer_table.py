"""A network layer by layer: output size, kernel, padding, stride, receptive field and parameters.

    rows = layer_rows(build_model(config, (1, 28, 28), 10), (1, 28, 28))

Measured on the network itself: an empty image goes through, and every layer notes what it puts out. The receptive
field follows the main path (Araujo, Norris, Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks"):
r_l = r_(l-1) + (k_l - 1) * j_(l-1), j_l = j_(l-1) * s_l, with kernel k, stride s and j the distance of neighbours in
input pixels. It is cut off at the image's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ensemble.models import ImageShape

SIDE_PATHS = "downsample"  # shortcuts of residual networks: beside the main path


@dataclass(frozen=True)
class LayerRow:
    """One layer. output: sizes of what it puts out for one image; receptive_field: pixels, None once all is mixed."""

    name: str
    kind: str
    output: tuple[int, ...]
    kernel_size: int | None
    stride: int | None
    padding: int | None
    receptive_field: int | None
    parameters: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def layer_rows(model: nn.Module, image_shape: ImageShape) -> list[LayerRow]:
    """The layers in the order in which an image passes them."""
    rows: list[LayerRow] = []
    field, distance = 1, 1
    mixed = False

    def note(name: str, module: nn.Module, output: object) -> None:
        nonlocal field, distance, mixed
        output = output[0] if isinstance(output, tuple) and output else output  # as attention gives its weights too
        sizes = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        kernel, stride, padding = (_side(module, key) for key in ("kernel_size", "stride", "padding"))
        whole = isinstance(module, nn.Linear | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)
        mixed = mixed or whole
        if kernel is not None and SIDE_PATHS not in name:
            field, distance = field + (kernel - 1) * distance, distance * (stride or 1)
        seen = None if mixed else min(field, max(image_shape[1:]))
        parameters = sum(p.numel() for p in module.parameters(recurse=False))
        rows.append(LayerRow(name, type(module).__name__, sizes, kernel, stride, padding, seen, parameters))

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [
        module.register_forward_hook(lambda module, _inputs, output, name=name: note(name, module, output))
        for name, module in leaves
    ]
    model.eval()
    try:
        with torch.inference_mode():
            model(torch.zeros(1, *image_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def print_layers(title: str, rows: list[LayerRow], notes: Sequence[str] = ()) -> None:
    """The layers as a table on stdout, with the total of the parameters, then the notes."""
    from rich.table import Table

    from ensemble.tracking.terminal import open_table_console

    table = Table("layer", "kind", "output", "kernel", "stride", "padding", "receptive field", "parameters", box=None)
    table.header_style = "bold"
    for column in table.columns[3:]:
        column.justify = "right"
    for row in rows:
        numbers = (row.kernel_size, row.stride, row.padding, row.receptive_field)
        table.add_row(
            row.name, row.kind, "x".join(map(str, row.output)), *("" if n is None else str(n) for n in numbers),
            f"{row.parameters:,}" if row.parameters else "",
        )  # fmt: skip
    console = open_table_console()
    console.print(title)
    console.print(table)
    console.print(f"{sum(row.parameters for row in rows):,} parameters")
    for note in notes:
        console.print(note, soft_wrap=True)


def _side(module: nn.Module, key: str) -> int | None:
    """A square layer's kernel size, stride or padding."""
    value = getattr(module, key, None)
    if isinstance(value, tuple):
        value = value[0]
    return value if isinstance(value, int) else None
