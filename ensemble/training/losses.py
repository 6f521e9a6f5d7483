"""The loss that training minimises, of every sample for every member.

    loss_BK = sample_losses(recipe, logits_BKC, batch, offsets_KC)

Where a batch has targets it is half the squared distance to them; otherwise the cross-entropy of the labels, the focal
loss (Lin et al. 2017) or binary cross-entropy, mixed and weighted as the batch says.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble.config.recipe import TrainingConfig
from ensemble.training.batches import Batch

FOCAL_GAMMA = 2.0  # Lin et al. 2017
_SMALLEST_MISSING = 1e-6  # of a probability: below it, powers under 1 would have no gradient


def sample_losses(recipe: TrainingConfig, logits_BKC: Tensor, batch: Batch, offsets_KC: Tensor | None) -> Tensor:
    """Loss of every sample for every member, [B, K]: cross-entropy, or half the squared distance to targets.

    offsets_KC: what is added to the logits before labels are compared with them, see `class_balance.logit_offsets`.
    """
    if batch.targets_BKC is not None:
        return _weighted((logits_BKC - batch.targets_BKC).square().sum(-1) / 2, batch.weights_BK)
    if offsets_KC is not None:
        logits_BKC = logits_BKC + offsets_KC
    own_BK = _weighted(label_losses(recipe, logits_BKC, batch.labels_BK), batch.weights_BK)
    if (mixed := batch.mixed) is None:
        return own_BK
    others_BK = _weighted(label_losses(recipe, logits_BKC, mixed.labels_BK), mixed.weights_BK)
    return torch.lerp(others_BK, own_BK, mixed.share_BK)


def label_losses(recipe: TrainingConfig, logits_BKC: Tensor, labels_BK: Tensor) -> Tensor:
    """Cross-entropy [B, K] of these labels, or the focal loss: times (1 - probability of the label) ** gamma.

    bce: the mean over the classes of each one's cross-entropy against all others.
    """
    if recipe.loss == "bce":
        classes, smoothing = logits_BKC.shape[-1], recipe.label_smoothing
        wanted_BKC = F.one_hot(labels_BK, classes) * (1 - smoothing) + smoothing / classes
        return F.binary_cross_entropy_with_logits(logits_BKC, wanted_BKC, reduction="none").mean(-1)
    loss_BK = F.cross_entropy(
        logits_BKC.flatten(0, 1), labels_BK.flatten(), reduction="none", label_smoothing=recipe.label_smoothing
    ).view(labels_BK.shape)
    if recipe.loss == "focal":
        missing_BK = -torch.expm1(-loss_BK)
        loss_BK = loss_BK * missing_BK.clamp(min=_SMALLEST_MISSING) ** (recipe.focal_gamma or FOCAL_GAMMA)
    return loss_BK


def voting_logits(logits: Tensor, one_vs_all: bool) -> Tensor:
    """Logits whose softmax is the vote: those of the network, or of a one-vs-all network the logarithms of its sigmoids.

    The softmax of the latter is the sigmoids divided by their sum.
    """
    return F.logsigmoid(logits) if one_vs_all else logits


def _weighted(loss_BK: Tensor, weights_BK: Tensor | None) -> Tensor:
    return loss_BK if weights_BK is None else loss_BK * weights_BK
