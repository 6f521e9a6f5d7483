"""Gradient boosting of networks: each is fitted to what the sum of the ones before still gets wrong.

    F_m = F_(m-1) + shrinkage * step_m * f_m,   probabilities = softmax(F_M)
    f_m is fitted by squared error to r = onehot(label) - softmax(F_(m-1)), the negative gradient of the cross-entropy
    step_m minimises the cross-entropy of F_(m-1) + step * f_m, found before it is shrunk

Friedman 2001, "Greedy Function Approximation: A Gradient Boosting Machine", algorithm 1. A member's votes are
softmax(f_m), whose logarithm is f_m but for a constant per row; so the sum can be had from stored votes (the additive
vote), and every member is evaluated on every training row once, never again.

Networks fit their training rows closely, and a step found there is too long; `line_search: validation` finds it on
rows the network was not fitted to. The rounds must come one after the other: no two members can train together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ensemble.config.method import MethodJob, MethodSection, register_method
from ensemble.config.recipe import TrainingConfig
from ensemble.evaluation.aggregation import floored_log
from ensemble.types import DoubleArray, FloatArray, IntArray, MemberResult, MemberSpec

LONGEST_STEP = 1000.0
_HALVINGS = 60


@register_method
class GradientBoostingConfig(MethodSection):
    """Each network is fitted to the negative gradient of the cross-entropy (Friedman 2001); the outputs are summed."""

    name: Literal["gradient_boosting"]
    in_short = "gradient boosting: each member fits the gradient of the loss of the sum so far (Friedman 2001)"
    headline = "additive"
    additive = True
    votes_where_fitted = True
    shrinkage: float = Field(0.5, gt=0, le=1, description="share of each step that is taken")
    line_search: Literal["validation", "training", "none"] = Field(
        "validation", description="rows on which the length of each step is found; none: 1"
    )

    def idle_keys(self, training: TrainingConfig, _members: int | None) -> Iterator[tuple[str, str]]:
        for key in ("label_smoothing", "loss"):
            if getattr(training, key) == TrainingConfig.model_fields[key].default:
                continue
            yield (
                f"training.{key}",
                "has no effect with gradient_boosting, whose networks are fitted to gradients and not to labels; leave it out",
            )
        for key in ("mixup_alpha", "cutmix_alpha"):
            if getattr(training.augmentation, key):
                yield (
                    f"training.augmentation.{key}",
                    "mixes labels, and gradient_boosting fits its networks to gradients; leave it out",
                )
        for key in ("class_weights", "sampling", "logit_adjustment"):
            if getattr(training, key) != TrainingConfig.model_fields[key].default:
                yield (
                    f"training.{key}",
                    "is not for gradient_boosting, whose line search would undo it: every step is fitted to the sum over all rows; leave it out",
                )

    def build(self, job: MethodJob) -> GradientBoosting:
        labels = job.labels_N[job.train_rows], job.labels_N[job.validation_rows]
        return GradientBoosting(self, len(job.recipes), job.recipes[0], job.train_rows, *labels, job.num_classes)


class GradientBoosting:
    """One sum of networks; see the module."""

    wants_weights = False

    def __init__(
        self,
        config: GradientBoostingConfig,
        num_members: int,
        recipe: str,
        train_rows: IntArray,
        train_labels_N: IntArray,
        validation_labels_V: IntArray,
        num_classes: int,
    ) -> None:
        """train_labels_N and validation_labels_V: classes of the training and of the validation rows."""
        self._config, self._num_members, self._recipe, self._rows = config, num_members, recipe, train_rows
        self._labels_N, self._labels_V = train_labels_N, validation_labels_V
        self._scores_NK = np.zeros((len(train_labels_N), num_classes))
        self._scores_VK = np.zeros((len(validation_labels_V), num_classes))
        self._weights: dict[int, float] = {}
        self._rounds: list[dict[str, Any]] = []
        self._ended: list[str] = []
        self._asked = False

    def ask(self) -> list[MemberSpec]:
        """The next network, with its targets."""
        assert not self._asked, "tell the results of the last round before asking again"
        number = len(self._rounds)
        if self._ended or number == self._num_members:
            return []
        self._asked = True
        targets_NK = _residuals(self._scores_NK, self._labels_N).astype(np.float32)
        return [MemberSpec(number, self._recipe, self._rows, vote_rows=self._rows, round=number, targets_RK=targets_NK)]

    def tell(self, results: Sequence[MemberResult]) -> None:
        """Add the network to the sum, or end where it failed or does not lower the loss."""
        self._asked = False
        if not results:
            self._ended.append(self._why("the next network failed, and later ones would be fitted to the wrong rest"))
            return
        (result,) = results
        outputs_NK, outputs_VK = _outputs(result.votes.rows_RK), _outputs(result.votes.validation_NK)
        gradient_norm = float(np.sqrt(np.square(_residuals(self._scores_NK, self._labels_N)).sum(axis=1).mean()))
        step = self._step(outputs_NK, outputs_VK)
        weight = self._config.shrinkage * step
        self._scores_NK += weight * outputs_NK
        if len(self._scores_VK):
            self._scores_VK += weight * outputs_VK
        self._weights[result.index] = weight
        self._rounds.append({
            "round": len(self._rounds) + 1, "members": [result.index], "step": step, "weight": weight,
            "gradient_norm": gradient_norm, **_figures("train", self._scores_NK, self._labels_N),
            **_figures("validation", self._scores_VK, self._labels_V),
        })  # fmt: skip
        if step == 0 and len(self._rounds) < self._num_members:
            where = self._config.line_search
            self._ended.append(self._why(f"no step along the last network lowers the loss on the {where} rows"))

    def vote_weights(self) -> DoubleArray | None:
        """shrinkage * step of every network told."""
        return np.array([self._weights[index] for index in sorted(self._weights)])

    def report(self) -> dict[str, Any]:
        """Per round the step, the gradient's norm, and loss and error of the sum so far; why it ended early."""
        return {"rounds": self._rounds, "notices": list(self._ended), "ended_early": list(self._ended)}

    def _step(self, outputs_NK: DoubleArray, outputs_VK: DoubleArray) -> float:
        if self._config.line_search == "none":
            return 1.0
        if self._config.line_search == "training":
            return line_search(self._scores_NK, outputs_NK, self._labels_N)
        return line_search(self._scores_VK, outputs_VK, self._labels_V)

    def _why(self, what: str) -> str:
        return f"gradient boosting ended with {len(self._rounds)} of {self._num_members} networks: {what}"


def line_search(scores_NK: DoubleArray, outputs_NK: DoubleArray, labels_N: IntArray) -> float:
    """The step in [0, LONGEST_STEP] that minimises the mean cross-entropy of softmax(scores + step * outputs).

    The loss is convex in the step, so its slope, mean_n sum_k (p_nk - y_nk) f_nk, changes sign at most once.
    """

    def slope_at(step: float) -> float:
        return -float((_residuals(scores_NK + step * outputs_NK, labels_N) * outputs_NK).sum(axis=1).mean())

    if slope_at(0.0) >= 0:
        return 0.0
    low, high = 0.0, 1.0
    while slope_at(high) < 0:
        if high >= LONGEST_STEP:
            return LONGEST_STEP
        low, high = high, min(2 * high, LONGEST_STEP)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope_at(middle) < 0 else (low, middle)
    return (low + high) / 2


def _outputs(probs_RK: FloatArray) -> DoubleArray:
    """A network's outputs from its probabilities, those of a row moved to mean 0."""
    logs_RK = floored_log(probs_RK)
    centred_RK: DoubleArray = logs_RK - logs_RK.mean(axis=1, keepdims=True)
    return centred_RK


def _probabilities(scores_NK: DoubleArray) -> DoubleArray:
    unnormalised_NK = np.exp(scores_NK - scores_NK.max(axis=1, keepdims=True))
    probs_NK: DoubleArray = unnormalised_NK / unnormalised_NK.sum(axis=1, keepdims=True)
    return probs_NK


def _residuals(scores_NK: DoubleArray, labels_N: IntArray) -> DoubleArray:
    """onehot(label) - softmax(scores)."""
    residuals_NK = -_probabilities(scores_NK)
    residuals_NK[np.arange(len(labels_N)), labels_N] += 1
    return residuals_NK


def _figures(split: str, scores_NK: DoubleArray, labels_N: IntArray) -> dict[str, float]:
    if not len(labels_N):
        return {}
    chosen_N = _probabilities(scores_NK)[np.arange(len(labels_N)), labels_N]
    return {
        f"{split}_loss": float(-np.log(np.maximum(chosen_N, 1e-300)).mean()),
        f"{split}_error": float((scores_NK.argmax(axis=1) != labels_N).mean()),
    }
