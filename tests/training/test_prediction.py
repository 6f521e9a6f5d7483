"""Votes on rows that the members share, and on rows of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import ensemble.training.prediction as prediction
from ensemble.models.work import activation_sizes
from ensemble.training import Trainer
from ensemble.training.placement import Placement
from ensemble.training.stack_run import StackRun
from ensemble.types import Task
from tests.training.helpers import arrays as arrays
from tests.training.helpers import experiment, specs


@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize(
    ("rows", "apart"),
    [
        ([range(90), range(90, 200), range(250, 270)], True),  # hardly a row in common
        ([range(90), range(5, 90), range(40)], False),
        ([range(0), range(0), range(0)], False),
        ([range(0), range(3, 60), range(100, 155)], True),
    ],
)
def test_each_member_votes_on_its_own_rows(
    rows: list[range], apart: bool, kernels: str, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Trainer.create(experiment(None, kernels), "cpu", 10).jobs["lenet5"]
    run = StackRun(Task("t", "lenet5", specs([0, 1, 2])), job, arrays, Placement.create(job.compute))
    images, chosen = run.data.train_images, [torch.tensor(list(own), dtype=torch.int64) for own in rows]
    everything = prediction.predict(run.stack, run.data, images, None, run.placement)
    asked: list[int] = []
    all_of_them = prediction.predict_logits
    monkeypatch.setattr(
        prediction, "predict_logits", lambda s, d, i, r, p: asked.append(r.dim()) or all_of_them(s, d, i, r, p)
    )
    found = prediction.predict_own(run.stack, run.data, images, chosen, run.placement)
    assert asked == [2 if apart else 1]
    for k, own in enumerate(chosen):
        assert found[k].shape == (len(own), 10)
        np.testing.assert_allclose(found[k], everything[k][own], atol=1e-5)


def _with_room_for(limit: int, asked: list[tuple[int, int]]) -> Callable[[int, int], torch.Tensor]:
    def compute(start: int, end: int) -> torch.Tensor:
        asked.append((start, end))
        if end - start > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return torch.arange(start, end)

    return compute


@pytest.mark.parametrize(("count", "size", "room"), [(0, 64, 64), (1, 64, 64), (1000, 256, 256), (1000, 256, 40)])
def test_batches_that_do_not_fit_are_halved_and_no_row_is_lost(
    count: int, size: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    asked: list[tuple[int, int]] = []
    parts = list(prediction.in_batches(_with_room_for(room, asked), count, size))
    assert torch.cat(parts).tolist() == list(range(count))
    assert len(parts) == max(1, -(-count // min(size, 1 << room.bit_length() - 1)))
    assert asked.count((0, min(size, count))) == 1  # what did not fit is not tried again


def test_what_does_not_fit_in_the_smallest_batch_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with pytest.raises(torch.OutOfMemoryError):
        list(prediction.in_batches(_with_room_for(3, []), 100, 64))


@pytest.mark.parametrize("model", [{"name": "lenet5"}, {"name": "resnet18"}, {"name": "resnet50"}, {"name": "mlp"}])
@pytest.mark.parametrize("members", [1, 8, 64])
def test_a_stack_that_can_be_trained_can_be_evaluated(model: dict[str, Any], members: int) -> None:
    """What is alive at a time (four of the largest activations, or the share that is always free) stays below training's."""
    config, gib = experiment(model).groups[0].model, 1 << 30
    sizes = activation_sizes(config, (3, 32, 32), 10)
    rows = prediction.evaluation_rows(sizes, members, 128, 16 * gib)
    at_a_time, kept_by_training = 4 * members * rows * 4 * max(sizes), 4 * members * 128 * sum(sizes)
    assert 128 <= rows <= 4096
    assert at_a_time <= max(kept_by_training, gib / 4, 4 * members * 128 * 4 * max(sizes))
    assert rows == prediction.evaluation_rows(
        sizes, members, 128, 16 * gib
    )  # a function of the plan and the card alone


@pytest.mark.parametrize(("side", "members", "batch", "rows"), [
    (28, 8, 128, 256),  # as many as ever
    (28, 64, 128, 222),  # a GiB for four activations of 6 x 28 x 28 of each member
    (224, 8, 16, 27),
    (448, 64, 4, 4),  # no fewer than are trained at a time
])  # fmt: skip
def test_evaluation_on_a_cpu_needs_no_more_than_training_or_a_gibibyte(side, members, batch, rows) -> None:
    sizes = activation_sizes(experiment({"name": "lenet5"}).groups[0].model, (1, side, side), 10)
    assert max(sizes) == 6 * side * side
    assert prediction.evaluation_rows(sizes, members, batch, None) == rows
