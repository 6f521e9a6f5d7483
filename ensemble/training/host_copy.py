"""Copies of many tensors in the host's memory, with few transfers: each waits for the GPU, however small it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_TRANSFER_BYTES = 256 << 20  # a transfer gathers its tensors on the GPU first, which must have the room


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Contiguous copies on the CPU, which share no memory with the tensors, in their order."""
    copies: dict[int, Tensor] = {}
    for positions in _transfers(tensors):
        chosen = [tensors[position].detach() for position in positions]
        if chosen[0].device.type == "cpu":
            copied = [tensor.clone(memory_format=torch.contiguous_format) for tensor in chosen]
        else:
            flat = torch.cat([tensor.reshape(-1) for tensor in chosen]).cpu()
            parts = torch.split(flat, [tensor.numel() for tensor in chosen])
            copied = [part.view(tensor.shape) for part, tensor in zip(parts, chosen, strict=True)]
        copies.update(zip(positions, copied, strict=True))
    return [copies[position] for position in range(len(tensors))]


def _transfers(tensors: Sequence[Tensor]) -> Iterator[list[int]]:
    """Positions of tensors that travel together: of one type and device, up to a size."""
    waiting: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    sizes: dict[tuple[torch.dtype, torch.device], int] = {}
    for position, tensor in enumerate(tensors):
        kind, size = (tensor.dtype, tensor.device), tensor.numel() * tensor.element_size()
        if kind in waiting and sizes[kind] + size > _TRANSFER_BYTES:
            yield waiting.pop(kind)
            sizes[kind] = 0
        waiting.setdefault(kind, []).append(position)
        sizes[kind] = sizes.get(kind, 0) + size
    yield from waiting.values()
