"""Which training rows validate members while they train: the run's validation part, or of each member its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble.training.resident import Resident, tensor_of
from ensemble.types import MemberSpec


def validation_of(members: Sequence[MemberSpec], data: Resident) -> tuple[Tensor, Tensor]:
    """Rows and their labels: [V] for all members, or [K, V] where each has rows of its own (`MemberSpec.own_validation`)."""
    if not members[0].own_validation:
        return data.validation_rows, data.train_labels[data.validation_rows]
    assert all(member.own_validation for member in members), (
        "all members of a task have validation rows of their own, or none"
    )
    rows_KV = torch.stack([tensor_of(member.vote_rows) for member in members]).to(data.validation_rows.device)
    return rows_KV, data.train_labels[rows_KV.to(data.train_labels.device)]
