"""Rows drawn anew every epoch: by weight, from the member's own stream, the same alone and in a stack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ensemble.config.recipe import AugmentationConfig
from ensemble.config.schema import ComputeConfig
from ensemble.training import Trainer
from ensemble.training.batches import Batches
from ensemble.training.placement import Placement
from ensemble.training.resident import Resident
from ensemble.types import MemberSpec, Task
from tests.training.helpers import experiment, results

WEIGHTS = (np.arange(1, 201) / 100.5).astype(np.float32)


def members(resample: bool = True) -> tuple[MemberSpec, ...]:
    vote_rows = np.arange(200, 220)
    return tuple(
        MemberSpec(i, "lenet5", np.arange(200), np.roll(WEIGHTS, 50 * i), vote_rows, 0, resample) for i in range(3)
    )


def drawn(specs: tuple[MemberSpec, ...], arrays: dict[str, Any], epoch: int) -> list[tuple[torch.Tensor, ...]]:
    placement = Placement.create(ComputeConfig(device="cpu"))
    # Labels that name their own row show which rows an epoch is made of.
    data = Resident.load({**arrays, "train_labels": np.arange(300)}, placement.device)
    batches = Batches(data, specs, 5, 64, AugmentationConfig(), placement)
    return [(batch.labels_BK, batch.weights_BK) for batch in batches.epoch(epoch)]


def rows_of(specs: tuple[MemberSpec, ...], arrays: dict[str, Any], epoch: int, position: int) -> np.ndarray:
    return torch.cat([labels_BK[:, position] for labels_BK, _ in drawn(specs, arrays, epoch)]).numpy()


def test_draws_follow_the_weights_and_the_loss_has_none(arrays: dict[str, Any]) -> None:
    (one, *_) = members()
    assert all(weights is None for _, weights in drawn((one,), arrays, 0))
    rows = np.concatenate([rows_of((one,), arrays, epoch, 0) for epoch in range(200)])
    assert len(rows) == 200 * 200
    share, expected = np.bincount(rows, minlength=200) / len(rows), WEIGHTS / WEIGHTS.sum()
    assert np.abs(share - expected).max() < 5 * np.sqrt(expected.max() / len(rows))


def test_epochs_and_members_draw_differently_and_a_stack_changes_nothing(arrays: dict[str, Any]) -> None:
    specs = members()
    first = rows_of(specs, arrays, 0, 1)
    assert not np.array_equal(first, rows_of(specs, arrays, 1, 1))
    assert not np.array_equal(first, rows_of(specs, arrays, 0, 0))
    np.testing.assert_array_equal(first, rows_of((specs[1],), arrays, 0, 0))


def test_beside_members_with_loss_weights(arrays: dict[str, Any]) -> None:
    """Only the member that is not resampled has its weights in the loss, and only it sees every row once."""
    drawing, weighing = members()[0], replace(members()[1], resample=False)
    batches = drawn((drawing, weighing), arrays, 3)
    rows = torch.cat([labels for labels, _ in batches]).numpy()
    weights = torch.cat([weights for _, weights in batches]).numpy()
    np.testing.assert_array_equal(weights[:, 0], np.ones(200))
    np.testing.assert_array_equal(np.sort(rows[:, 1]), np.arange(200))
    assert weighing.weights is not None
    np.testing.assert_array_equal(weights[:, 1], weighing.weights[rows[:, 1]])
    assert len(np.unique(rows[:, 0])) < 200


def test_drawing_by_weight_needs_weights(arrays: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="needs weights"):
        drawn((replace(members()[0], weights=None),), arrays, 0)


def test_a_resampled_member_in_a_stack_is_the_member_alone(arrays: dict[str, Any]) -> None:
    config = experiment(optimizer="sgd", lr=0.05)
    trainer = Trainer.create(config, "cpu", 10)
    together = results(list(trainer(Task("all", "lenet5", members()), arrays)))
    for member in members()[::2]:
        alone = results(list(trainer(Task("one", "lenet5", (member,)), arrays)))[member.index]
        for name, tensor in alone.weights.items():
            np.testing.assert_allclose(together[member.index].weights[name], tensor, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(together[member.index].votes.rows_RK, alone.votes.rows_RK, atol=1e-4)
    other = results(list(trainer(Task("loss", "lenet5", members(resample=False)), arrays)))[0]
    assert not np.allclose(other.weights["0.weight"], together[0].weights["0.weight"], atol=1e-3)
