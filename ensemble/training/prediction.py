"""Votes of a stack: class probabilities of every member on the same images, in data-set order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble.data.views import View
from ensemble.training.batch_last import worthwhile
from ensemble.training.losses import voting_logits
from ensemble.training.placement import Placement
from ensemble.training.resident import Resident
from ensemble.training.stack import Stack

# Large enough to keep a device busy, small enough that activations of a few members stay in a CPU's cache.
CPU_BATCH, GPU_BATCH = 256, 4096
_FEWEST = 16  # rows of a batch that is not halved any more
_GPU_SHARE = 64  # prediction may always take one part in so many of a GPU's memory
_CPU_SPARE = 1 << 30  # bytes that it may always take elsewhere
BATCH_LAST_BATCH = 128  # of the kernels of that name
_ALIVE = 4  # activations of the largest size at a time: beside the way through a block, in, out, and one laid out anew
_KEPT = 0.9  # training keeps at least this share of what its layers give
_VIEW_BYTES = 64 << 20  # of images of which a view is made at a time
_SHARED_PAYS = 0.8  # members' own rows are computed apart where they are fewer than this share of all of them


@torch.inference_mode()
def predict(
    stack: Stack,
    data: Resident,
    images: Tensor,
    rows: Tensor | None,
    placement: Placement,
    views: Sequence[View] = (),
) -> Tensor:
    """Probabilities [K, N, classes], float32, of the chosen rows of `images` (see `predict_logits`; all when None), on the device.

    views: on which to vote instead of the images as they are; the probabilities are means over them.
    """
    if len(views) < 2:
        return predict_logits(stack, data, images, rows, placement).softmax(-1)
    assert not data.ready, "features have no views"
    count = len(images) if rows is None else rows.shape[-1]

    def mean(start: int, end: int) -> Tensor:
        chosen = torch.arange(start, min(end, count)) if rows is None else rows[..., start:end]
        taken = data.take(images, chosen.to(images.device)).flatten(0, -4)
        own = None if chosen.dim() == 1 else torch.arange(len(taken), device=taken.device).view(chosen.shape)
        whole = sum(predict_logits(stack, data, view(taken).contiguous(), own, placement).softmax(-1) for view in views)
        assert isinstance(whole, Tensor), "there are views"
        return whole / len(views)

    members = 1 if rows is None or rows.dim() == 1 else len(rows)
    return torch.cat(list(in_batches(mean, count, _block_of_views(images, members))), dim=1)


@torch.inference_mode()
def predict_energy(stack: Stack, data: Resident, images: Tensor, placement: Placement) -> Tensor | None:
    """log sum exp of the logits [K, N], float32, of the images as they are: the negative energy of Liu et al. 2020, eq. 4 with T = 1.

    None of a network that is trained with a sigmoid for each class, whose logits are not those of one distribution.
    """
    if stack.one_vs_all:
        return None
    return predict_logits(stack, data, images, None, placement).logsumexp(-1)


def _block_of_views(images: Tensor, members: int) -> int:
    """Rows of which views are made at a time, of the images of so many members each; whole batches of them."""
    each = max(1, images[:1].numel()) * members
    return max(1, _VIEW_BYTES // (each * GPU_BATCH)) * GPU_BATCH if each * GPU_BATCH <= _VIEW_BYTES else CPU_BATCH


@torch.inference_mode()
def predict_own(
    stack: Stack,
    data: Resident,
    images: Tensor,
    rows: Sequence[Tensor],
    placement: Placement,
    views: Sequence[View] = (),
) -> list[Tensor]:
    """Probabilities [R, classes] of every member's own rows of `images`.

    Images that most members want are computed for all of them at once; where they want different ones (the rows out of
    their bags are about a third), each member computes its own.
    """
    where = placement.device if data.stream is None else torch.device("cpu")
    wanted = torch.unique(torch.cat(list(rows))).to(where)
    longest = max(map(len, rows))
    if longest >= _SHARED_PAYS * len(wanted):
        shared = predict(stack, data, images, wanted, placement, views)
        return [shared[k][torch.searchsorted(wanted, own.to(where)).to(placement.device)] for k, own in enumerate(rows)]
    filled = torch.stack([F.pad(own, (0, longest - len(own)), value=int(wanted[0])) for own in rows])
    probabilities = predict(stack, data, images, filled.to(where), placement, views)
    return [probabilities[k, : len(own)] for k, own in enumerate(rows)]


@torch.inference_mode()
def predict_logits(stack: Stack, data: Resident, images: Tensor, rows: Tensor | None, placement: Placement) -> Tensor:
    """Logits of the votes [K, N, classes] (see `losses.voting_logits`), float32, in the order of `rows`, which are [N] for all members or [K, N].

    Dropout is off, batch norm uses running statistics.
    """
    stack.eval()
    count = len(images) if rows is None else rows.shape[-1]
    kernels = stack.kernels

    def part_of(start: int, end: int) -> Tensor:
        return torch.arange(start, min(end, count)) if rows is None else rows[..., start:end]

    def ask_for(start: int, end: int) -> None:
        if start < count:
            data.will_need(images, part_of(start, end))

    def logits(start: int, end: int) -> Tensor:
        if kernels is not None and worthwhile(end - start):
            part = part_of(start, end)
            x = data.gathered(images, part.reshape(-1, end - start), kernels)
            ask_for(end, 2 * end - start)
            logits_BKC = stack(x.expand(stack.num_members, *x.shape[1:]), end - start)
        else:
            whole = rows is None and data.stream is None
            chosen = images[start:end] if whole else data.take(images, part_of(start, end))
            ask_for(end, 2 * end - start)
            with placement.autocast():
                logits_BKC = stack(data.standardized(chosen))
        logits_KBC: Tensor = voting_logits(logits_BKC.float(), stack.one_vs_all).transpose(0, 1)
        return logits_KBC

    size = stack.evaluation_rows or CPU_BATCH
    if placement.device.type != "cuda":
        size = min(size, CPU_BATCH if kernels is None else BATCH_LAST_BATCH)
        ask_for(0, size)
    whole = _joined(in_batches(logits, count, size), count)
    stack.train()
    return whole


def _joined(parts: Iterator[Tensor], count: int) -> Tensor:
    """Batches [K, B, classes] as one tensor for all `count` rows.

    None is kept beside the next: a small block in the room that a batch of images has left makes that room too small for the next
    batch, and a process that keeps freed memory grew by one batch after the other (docs/log.md).
    """
    whole: Tensor | None = None
    done = 0
    for part in parts:
        if whole is None:
            whole = part.new_empty((part.shape[0], count, part.shape[2]))
        whole[:, done : done + part.shape[1]] = part
        done += part.shape[1]
    assert whole is not None, "there is a batch, if need be of no rows"
    return whole


def in_batches(compute: Callable[[int, int], Tensor], count: int, size: int) -> Iterator[Tensor]:
    """`compute(start, end)` for `count` rows in batches of `size`, of half the size after each GPU out-of-memory error.

    For no rows one empty batch is computed, so that the shape of a result is right.
    """
    start = 0
    while start < count or start == 0:
        end = min(start + size, count)
        try:
            part = compute(start, end)
        except torch.OutOfMemoryError:
            if size <= _FEWEST:
                raise
            part, size = None, max(_FEWEST, size // 2)
        if part is None:  # outside of the handler, whose traceback holds what did not fit
            torch.cuda.empty_cache()
            continue
        yield part
        start = max(end, 1)


def evaluation_rows(sizes: Sequence[int], num_members: int, training_rows: int, gpu_memory: int | None) -> int:
    """How many images to evaluate at a time, so that a stack that can be trained can also be evaluated.

    sizes: see `models.work.activation_sizes`. training_rows: of a training batch. gpu_memory: in bytes; None on a CPU.

    Training keeps what every layer gives for the way back; evaluation only a block's input, what a layer reads and writes,
    and a copy in another memory layout: four times the largest activation. All of it is known beforehand and the same at
    every start, so the batches, and with them the last bits of the votes, are too.
    """
    at_a_time = _ALIVE * max(sizes)
    as_training = training_rows * max(1.0, _KEPT * sum(sizes) / at_a_time)
    spare = _CPU_SPARE if gpu_memory is None else gpu_memory / _GPU_SHARE
    most = CPU_BATCH if gpu_memory is None else GPU_BATCH
    return max(1, int(min(most, max(as_training, spare / (4 * num_members * at_a_time)))))
