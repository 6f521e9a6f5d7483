"""All members and their vote as one network, for predicting and for export.

    members(images_NCHW)    # [M, N, K] probabilities of each member
    network(images_NCHW)    # [N, K] probabilities and [N] classes of the vote

Images are uint8, or float32 in [0, 1]; standardising them is part of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ensemble.config.schema import Aggregator
from ensemble.data.views import views_of
from ensemble.evaluation.aggregation import PROBABILITY_FLOOR
from ensemble.inference.stored import StoredMember, StoredVote
from ensemble.storage.remedies import unfit
from ensemble.training.losses import voting_logits
from ensemble.training.stack import Stack
from ensemble.training.stored_stack import stack_of
from ensemble.training.suitability import largest_stack, shares_features

# Shares of votes are counted in float32 here, so equal counts may differ by rounding, different ones by 1/M.
_TIE_TOLERANCE = 1e-6


class Members(nn.Module):
    """The voting members, in stacks as they were trained; probabilities come out by ascending member index."""

    def __init__(self, vote: StoredVote) -> None:
        super().__init__()
        self.stacks = nn.ModuleList()
        scales: dict[tuple[tuple[float, ...], tuple[float, ...]], int] = {}  # most often a single one
        order: list[int] = []
        self.scale_of: list[int] = []
        for group in _grouped(vote):
            self.scale_of.append(scales.setdefault(vote.scale(group[0].recipe), len(scales)))
            self.stacks.append(_stack(vote, group))
            order += [member.index for member in group]
        scales_S2C = torch.tensor(list(scales), dtype=torch.float32)
        self.mean_SC11: Tensor
        self.std_SC11: Tensor
        self.register_buffer("mean_SC11", scales_S2C[:, 0, :, None, None].clone())
        self.register_buffer("std_SC11", scales_S2C[:, 1, :, None, None].clone())
        ascending = sorted(range(len(order)), key=order.__getitem__)
        self.positions = None if ascending == list(range(len(order))) else ascending
        self.views = views_of(vote.experiment.evaluation.tta, *vote.image_shape[1:])

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities [M, N, K], float32, of images [N, C, H, W], uint8 or float32 in [0, 1]; means over the run's views of them."""
        first, *others = self.views
        whole = self._of_view(first(images))
        for view in others:
            whole = whole + self._of_view(view(images))
        return whole / len(self.views) if others else whole

    def _of_view(self, images: Tensor) -> Tensor:
        unit = images.float() / 255 if images.dtype == torch.uint8 else images
        batches = [
            ((unit - mean_C11) / std_C11).contiguous(memory_format=torch.channels_last)
            for mean_C11, std_C11 in zip(self.mean_SC11, self.std_SC11, strict=True)
        ]
        parts = zip(self.stacks, self.scale_of, strict=True)
        logits_BMK = torch.cat(
            [voting_logits(stack(batches[scale]).float(), bool(stack.one_vs_all)) for stack, scale in parts], dim=1
        )
        if self.positions is not None:
            logits_BMK = logits_BMK[:, self.positions]
        return logits_BMK.transpose(0, 1).softmax(-1)


class VoteNetwork(nn.Module):
    """Members and vote in one, in float32: what is exported."""

    def __init__(self, members: Members, vote: StoredVote) -> None:
        super().__init__()
        self.members, self.aggregator = members, vote.aggregator
        count = len(vote.members)
        weights = [1.0 / count] * count
        if vote.weights_M is not None:
            total = 1.0 if vote.aggregator == "additive" else vote.weights_M.sum()
            weights = (vote.weights_M / total).tolist()
        self.weights_M11: Tensor
        self.register_buffer("weights_M11", torch.tensor(weights, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [N, K] and classes [N] (int64) of the vote on images [N, C, H, W]."""
        probs_MNK = self.members(images)
        combined_NK = combine(self.aggregator, probs_MNK, self.weights_M11)
        if self.aggregator != "hard":
            return combined_NK, combined_NK.argmax(-1)
        tied_NK = combined_NK >= combined_NK.amax(-1, keepdim=True) - _TIE_TOLERANCE
        mean_NK = probs_MNK.mean(0)
        return combined_NK, torch.where(tied_NK, mean_NK, torch.full_like(mean_NK, -1.0)).argmax(-1)


def combine(aggregator: Aggregator, probs_MNK: Tensor, weights_M11: Tensor) -> Tensor:
    """The vote [N, K], as `ensemble.evaluation.aggregation` defines it; weights sum to 1 but for the additive vote."""
    if aggregator in ("geometric", "additive"):
        logs_NK = (weights_M11 * probs_MNK.clamp_min(PROBABILITY_FLOOR).log()).sum(0)
        return logs_NK.softmax(-1)
    if aggregator == "hard":
        favourites_MN1 = probs_MNK.argmax(-1, keepdim=True)
        classes_K = torch.arange(probs_MNK.shape[-1], device=probs_MNK.device)
        return (weights_M11 * (favourites_MN1 == classes_K).float()).sum(0)
    return (weights_M11 * probs_MNK).sum(0)


def _grouped(vote: StoredVote) -> list[list[StoredMember]]:
    """Members of one recipe in stacks of the size they were trained in."""
    groups: list[list[StoredMember]] = []
    for group in vote.experiment.groups:
        alike = [member for member in vote.members if member.recipe == group.name]
        if shares_features(group, vote.image_shape, len(vote.class_names)):
            size = max(1, len(alike))
        else:
            size = largest_stack(group.model, vote.image_shape, len(vote.class_names), vote.stack_sizes[group.name])
        groups += [alike[start : start + size] for start in range(0, len(alike), size)]
    assert sum(map(len, groups)) == len(vote.members), "a member's recipe is not in the configuration"
    return groups


def _stack(vote: StoredVote, members: Sequence[StoredMember]) -> Stack:
    group, shape, classes = vote.experiment.group(members[0].recipe), vote.image_shape, len(vote.class_names)
    copies = {id(array): torch.from_numpy(array.copy()) for m in members for array in m.weights.values()}  # once each
    states = [{name: copies[id(array)] for name, array in m.weights.items()} for m in members]
    expected = Stack.build(group.model, shape, classes, [0]).member_state(0)
    for member, state in zip(members, states, strict=True):
        _require_fit(member, state, expected)
    stack = stack_of(group, shape, classes, states)
    stack.requires_grad_(False)
    return stack


def _require_fit(member: StoredMember, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises StorageError when the stored weights are not those of the configured network."""
    found, wanted = ({name: (*tensor.shape, tensor.dtype) for name, tensor in s.items()} for s in (state, expected))
    if found != wanted:
        name = min(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        raise unfit(
            member.file,
            f"{name} is {_form(state, name)}; expected {_form(expected, name)} for the network that config.yaml names",
        )


def _form(state: Mapping[str, Tensor], name: str) -> str:
    return f"{state[name].dtype} {list(state[name].shape)}" if name in state else "absent"
