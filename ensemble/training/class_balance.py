"""Classes of unequal size: weights in the loss, draws that show every class as often as the others, logits that know how many there are.

All are taken from the rows that a member itself trains on, its bag or its filtered set, so that no member sees more of the
data than it should.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ensemble.config.recipe import TrainingConfig
from ensemble.training.job import FloatVector
from ensemble.types import DoubleArray, MemberSpec


def loss_factors(recipe: TrainingConfig, labels_KR: Tensor, given_C: FloatVector | None) -> Tensor | None:
    """What the loss of each member's rows is multiplied by, float32 [K, R], with mean 1 for every member; None for 1.

    balanced: N / (C n_c) for a class that has n_c of a member's N rows in C classes. given_C: weights by class instead.
    """
    if recipe.class_weights == "none":
        return None
    if given_C is None:
        factors_KR = torch.stack([_inverse_counts(labels_R) for labels_R in labels_KR])
    else:
        factors_KR = torch.as_tensor(np.asarray(given_C, np.float64)).to(labels_KR.device)[labels_KR]
    return (factors_KR / factors_KR.mean(1, keepdim=True)).float()


def chances_of(recipe: TrainingConfig, member: MemberSpec, labels_R: Tensor) -> DoubleArray | None:
    """How likely each row is drawn, of those of a member [R], where an epoch draws its rows; None where it takes all once."""
    assert member.weights is not None or not member.resample, "drawing by weight needs weights"
    own = member.weights.astype(np.float64) if member.resample and member.weights is not None else None
    if recipe.sampling == "shuffled":
        return own
    every: DoubleArray = _inverse_counts(labels_R).cpu().numpy()
    if own is None:
        return every
    # Within a class as the member's weights have it; every class as often as the others.
    labels = labels_R.cpu().numpy()
    totals = np.bincount(labels, own)
    chances: DoubleArray = np.divide(own, totals[labels], out=np.zeros_like(own), where=totals[labels] > 0)
    return chances


def logit_offsets(recipe: TrainingConfig, labels_KR: Tensor, num_classes: int) -> Tensor | None:
    """What is added to the logits of each member in its training loss, float32 [K, C]; None for nothing.

    tau log(n_c / N), for a class that has n_c of a member's N rows (Menon et al. 2021, equation 10); one without any counts as half
    a row.
    """
    if not recipe.logit_adjustment:
        return None
    counts_KC = torch.stack([torch.bincount(labels_R, minlength=num_classes) for labels_R in labels_KR]).double()
    return (recipe.logit_adjustment * (counts_KC.clamp(min=0.5) / labels_KR.shape[1]).log()).float()


def _inverse_counts(labels_R: Tensor) -> Tensor:
    """1 / n_c for the class of each row, float64 [R]."""
    return torch.bincount(labels_R).double().reciprocal()[labels_R]
