"""Training sets that earlier networks choose: boosting by filtering (Drucker, Schapire, Simard 1993; LeCun et al. 1998).

The source is endless: the member's training rows, pass after pass, each time deformed anew by the recipe's
augmentation. The judges (the networks trained before) look at every image, and the rule says which ones are taken:

half_wrong  half of the set are images the judge gets wrong, half are images it gets right. (The paper tosses a coin
            before each image it waits for; taking exactly half of each gives the same set without the scatter.)
disagree    images on which the two judges name different classes.

Images are taken until the set is full or the passes are used up. Then those found stand several times, and `facts`
says how many were distinct.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble.data.augmentation import augment, draw
from ensemble.errors import ComputeError
from ensemble.seeding import Purpose, member_seed
from ensemble.training.batches import seeded
from ensemble.training.job import Job
from ensemble.training.layers import channels_last
from ensemble.training.placement import Placement
from ensemble.training.resident import Resident, tensor_of
from ensemble.training.stack import Stack
from ensemble.training.suitability import largest_stack
from ensemble.types import Filter, MemberSpec

BATCH = 512


@dataclass(frozen=True)
class Filtered:
    """A chosen set: uint8 images [R, C, H, W] and labels [R]. looked_at: images the judges saw; distinct: taken."""

    images: Tensor
    labels: Tensor
    looked_at: int
    distinct: int

    def facts(self) -> dict[str, float]:
        """The figures a report wants."""
        return {"filter_looked_at": float(self.looked_at), "filter_distinct": float(self.distinct)}


def filtered_set(member: MemberSpec, job: Job, data: Resident, placement: Placement) -> Filtered:
    """The set that the member's filter chooses, a function of (seed, member) and the judges alone.

    Raises ComputeError when the judges leave nothing to train on.
    """
    wanted = member.filter
    assert wanted is not None, "no filter"
    judges = _judges(wanted, job, data, placement)
    # Quotas: how many images of each kind are still wanted. With half_wrong kind 1 is "wrong".
    quotas = [wanted.count - wanted.count // 2, wanted.count // 2] if wanted.rule == "half_wrong" else [0, wanted.count]
    found: list[list[tuple[Tensor, Tensor]]] = [[], []]
    looked_at = 0
    for images, labels in _source(member, job, data, wanted.passes):
        kinds = _kinds(wanted, judges, data, placement, images, labels)
        looked_at += len(labels)
        for kind in (0, 1):
            taken = (kinds == kind).nonzero().flatten()[: quotas[kind]]
            if len(taken):
                found[kind].append((images[taken], labels[taken]))
                quotas[kind] -= len(taken)
        if not any(quotas):
            break
    if not found[1] or (wanted.rule == "half_wrong" and not found[0]):
        what = "disagree on" if wanted.rule == "disagree" else "gets right" if found[1] else "gets wrong"
        raise ComputeError(
            f"member {member.index}: among {looked_at} deformed images there is none that the networks before it {what}; expected some to train on: use stronger training.augmentation, fewer training.epochs, or a higher method.max_passes"
        )
    wrong = _repeated(found[1], wanted.count // 2 if wanted.rule == "half_wrong" else wanted.count)
    parts = [wrong]
    if wanted.rule == "half_wrong":
        parts.append(_repeated(found[0], wanted.count - wanted.count // 2))
    distinct = sum(len(labels) for kind in found for _, labels in kind)
    return Filtered(
        torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]), looked_at, distinct
    )


def _judges(wanted: Filter, job: Job, data: Resident, placement: Placement) -> list[Stack]:
    """The judges in their order: all in one stack, or each alone where they cannot be stacked."""
    channels, height, width = data.train_images.shape[1:]
    network = job.group.model, (channels, height, width), job.num_classes
    size, stacks = largest_stack(*network, len(wanted.judges)), []
    for first in range(0, len(wanted.judges), size):
        judges = wanted.judges[first : first + size]
        stack = Stack.build(*network, [0] * len(judges))
        for position, weights in enumerate(judges):
            stack.load_member_state(position, {name: tensor_of(array) for name, array in weights.items()})
        stacks.append(stack.to(placement.device).eval())
    return stacks


def _source(member: MemberSpec, job: Job, data: Resident, passes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Deformed images (uint8) and labels, batch after batch; every pass in an order of its own."""
    config, device = job.group.training.augmentation, data.train_labels.device
    shape = (data.train_images.shape[1], data.train_images.shape[2], data.train_images.shape[3])
    for number in range(passes):
        seed = member_seed(job.seed, member.index, Purpose.FILTER, number)
        keys_1 = torch.tensor([seed]).to(device)
        rows = tensor_of(member.rows)[torch.randperm(len(member.rows), generator=seeded(seed))].to(device)
        for first in range(0, len(rows), BATCH):
            chosen = rows[first : first + BATCH]
            images = data.unit(data.take(data.kept, chosen))
            data.will_need(data.kept, rows[first + BATCH : first + 2 * BATCH])
            draws = draw(config, len(chosen), shape, keys_1, first, margin=data.margin)
            images = augment(images, config, draws, data.margin)
            yield images.mul_(255).round_().clamp_(0, 255).to(torch.uint8), data.train_labels[chosen]


@torch.inference_mode()
def _kinds(
    wanted: Filter, judges: list[Stack], data: Resident, placement: Placement, images: Tensor, labels: Tensor
) -> Tensor:
    """1 for the images that the rule looks for, 0 for the others."""
    with placement.autocast():
        batch = channels_last(data.normalized(data.unit(images)))
        logits_BKC = torch.cat([judge(batch) for judge in judges], dim=1)
    classes_BK = logits_BKC.argmax(-1)
    if wanted.rule == "half_wrong":
        return torch.ne(classes_BK[:, 0], labels).int()
    return torch.ne(classes_BK[:, 0], classes_BK[:, 1]).int()


def _repeated(found: list[tuple[Tensor, Tensor]], count: int) -> tuple[Tensor, Tensor]:
    """All that was found, repeated from the start until there are `count`."""
    images, labels = torch.cat([part for part, _ in found]), torch.cat([part for _, part in found])
    index = torch.arange(count, device=labels.device) % len(labels)
    return images[index], labels[index]
