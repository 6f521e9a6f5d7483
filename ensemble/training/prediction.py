"""Votes of a stack: class probabilities of every member on the same images, in data-set order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble.training.batch_last import worthwhile
from ensemble.training.batches import Resident
from ensemble.training.placement import Placement
from ensemble.training.stack import Stack

# Large enough to keep a device busy, small enough that activations of a few members stay in a CPU's cache.
CPU_BATCH, GPU_BATCH = 256, 4096
BATCH_LAST_BATCH = 128  # of the kernels of that name
_SHARED_PAYS = 0.8  # members' own rows are computed apart where they are fewer than this share of all of them


@torch.inference_mode()
def predict(stack: Stack, data: Resident, images: Tensor, rows: Tensor | None, placement: Placement) -> Tensor:
    """Probabilities [K, N, classes], float32, of the chosen rows of `images` (see `predict_logits`; all when None), on the device."""
    return predict_logits(stack, data, images, rows, placement).softmax(-1)


@torch.inference_mode()
def predict_own(
    stack: Stack, data: Resident, images: Tensor, rows: Sequence[Tensor], placement: Placement
) -> list[Tensor]:
    """Probabilities [R, classes] of every member's own rows of `images`.

    Images that most members want are computed for all of them at once; where they want different ones (the rows out of
    their bags are about a third), each member computes its own.
    """
    wanted = torch.unique(torch.cat(list(rows))).to(placement.device)
    longest = max(map(len, rows))
    if longest >= _SHARED_PAYS * len(wanted):
        shared = predict(stack, data, images, wanted, placement)
        return [shared[k][torch.searchsorted(wanted, own.to(placement.device))] for k, own in enumerate(rows)]
    filled = torch.stack([F.pad(own, (0, longest - len(own)), value=int(wanted[0])) for own in rows])
    probabilities = predict(stack, data, images, filled.to(placement.device), placement)
    return [probabilities[k, : len(own)] for k, own in enumerate(rows)]


@torch.inference_mode()
def predict_logits(stack: Stack, data: Resident, images: Tensor, rows: Tensor | None, placement: Placement) -> Tensor:
    """Logits [K, N, classes], float32, in the order of `rows`, which are [N] for all members or [K, N].

    Dropout is off, batch norm uses running statistics.
    """
    stack.eval()
    count = len(images) if rows is None else rows.shape[-1]
    kernels = stack.kernels
    step = GPU_BATCH if placement.device.type == "cuda" else CPU_BATCH if kernels is None else BATCH_LAST_BATCH
    parts = []
    for start in range(0, max(count, 1), step):  # no rows: one empty batch, so that the shape is right
        end = min(start + step, count)
        if kernels is not None and worthwhile(end - start):
            part = torch.arange(start, end) if rows is None else rows[..., start:end]
            x = data.gathered(images, part.reshape(-1, end - start), kernels)
            logits_BKC = stack(x.expand(stack.num_members, *x.shape[1:]), end - start)
        else:
            chosen = images[start:end] if rows is None else images[rows[..., start:end]]
            with placement.autocast():
                logits_BKC = stack(data.standardized(chosen))
        parts.append(logits_BKC.float().transpose(0, 1))
    stack.train()
    return torch.cat(parts, dim=1)
