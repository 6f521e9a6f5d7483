"""Votes of a stack: class probabilities of every member on the same images, in data-set order."""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble.training.batches import Resident
from ensemble.training.placement import Placement
from ensemble.training.stack import Stack, channels_last

# Large enough to keep a device busy, small enough that activations of a few members stay in a CPU's cache.
CPU_BATCH, GPU_BATCH = 256, 4096


@torch.inference_mode()
def predict(stack: Stack, data: Resident, images: Tensor, rows: Tensor | None, placement: Placement) -> Tensor:
    """Probabilities [K, N, classes], float32, of the chosen rows of `images` (all rows when None), on the device."""
    return predict_logits(stack, data, images, rows, placement).softmax(-1)


@torch.inference_mode()
def predict_logits(stack: Stack, data: Resident, images: Tensor, rows: Tensor | None, placement: Placement) -> Tensor:
    """Logits [K, N, classes], float32, in the order of `rows`. Dropout is off, batch norm uses running statistics."""
    stack.eval()
    count = len(images) if rows is None else len(rows)
    step = GPU_BATCH if placement.device.type == "cuda" else CPU_BATCH
    parts = []
    for start in range(0, max(count, 1), step):  # no rows: one empty batch, so that the shape is right
        chosen = images[start : start + step] if rows is None else images[rows[start : start + step]]
        batch = channels_last(data.standardized(chosen))
        with placement.autocast():
            logits_BKC = stack(batch)
        parts.append(logits_BKC.float().transpose(0, 1))
    stack.train()
    return torch.cat(parts, dim=1)
