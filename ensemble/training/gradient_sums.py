"""The order in which ranks that share each batch add up their gradients."""

from __future__ import annotations

from typing import Any

import torch

from ensemble.training.batches import Batches
from ensemble.training.optimizers import forget_gradients
from ensemble.training.placement import Placement
from ensemble.training.stack import Stack


def settle_sums(
    stack: Stack, model: Any, optimizer: torch.optim.Optimizer, batches: Batches, placement: Placement
) -> None:
    """Have DistributedDataParallel choose now how it puts gradients together, which it would do after the first step.

    It sums them in groups, by the order of the layers at first and from the second step on by the order in which gradients
    came. Training that resumes would take one step more in the first order, and the sums of three ranks or more depend on
    it: it would end with other bits. A forward and a backward pass are made and thrown away for that.
    """
    before = [tensor.clone() for tensor in stack.state_dict().values()]
    batches.begin(0)
    whole = batches.at(0, batches.rows_of(0))
    batch = next(iter(whole.pieces(batches.bounds_of(whole.rows))))
    if stack.dropout or stack.draws_itself:
        stack.seed_dropout(torch.zeros(stack.num_members, dtype=torch.int64, device=placement.device))
    stack.place_dropout(batch.place)
    model.train()
    with placement.autocast():
        logits_BKC = model(batch.images, batch.batch_last)
    placement.backward(logits_BKC.float().sum())
    forget_gradients(optimizer)
    with torch.no_grad():
        for tensor, kept in zip(stack.state_dict().values(), before, strict=True):
            tensor.copy_(kept)
