"""Accumulated gradients: batches that act as one larger batch, whatever else a step does."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from ensemble.training import Trainer
from ensemble.training.batches import Batches
from ensemble.training.placement import Placement
from ensemble.training.stack_run import StackRun
from ensemble.types import Task
from tests.training.helpers import experiment, results, specs, train
from tests.training.test_cuda_graph import replayed, run_of, trained
from tests.training.test_last_batch import NETWORKS

SGD = {"optimizer": "sgd", "lr": 0.05}
# So slow that a ReLU which another order of adding turns the other way, for one image, stays within the tolerances.
SLOW = {**SGD, "lr": 0.01}
BATCH_NORM = {"name": "cnn", "widths": (6, 8), "batch_norm": True}
LAYERS = next(iter(NETWORKS.values()))  # with a batch norm over a single value per image
RECIPES: dict[str, dict[str, Any]] = {
    "plain": SLOW,
    "adam": {"optimizer": "adam", "lr": 1e-3, "eps": 1e-3},
    "clipped": {**SLOW, "gradient_clip_norm": 0.5},
    "averaged": {**SLOW, "ema_decay": 0.9},
    "one cycle": {**SLOW, "schedule": "one_cycle"},
    "warm-up, cosine": {**SLOW, "warmup_epochs": 0.5, "schedule": "cosine"},
    "weighted": {**SLOW, "class_weights": "balanced", "label_smoothing": 0.1},
    "mixed": {**SLOW, "augmentation": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "erasing_probability": 0.5}},
    "deformed": {**SLOW, "augmentation": {"rotation_degrees": 10.0, "elastic_alpha": 1.0, "randaugment_operations": 2}},
}


@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_two_batches_act_as_one_of_twice_the_size(recipe: str, kernels: str, arrays: dict[str, Any]) -> None:
    """260 rows: eight whole steps of 32 and one of 4. Up to the order in which numbers are added."""
    large, small = (
        results(train(experiment(kernels=kernels, **RECIPES[recipe], **how), specs([0, 1]), arrays))
        for how in ({"batch_size": 32}, {"batch_size": 16, "accumulation": 2})
    )
    for index in (0, 1):
        for name, weight in large[index].weights.items():
            np.testing.assert_allclose(small[index].weights[name], weight, rtol=1e-4, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(small[index].votes.test_NK, large[index].votes.test_NK, atol=1e-3)
        for mine, wanted in zip(small[index].history, large[index].history, strict=True):
            assert mine.lr == wanted.lr, "rates go by steps of the optimiser"
            assert mine.train_loss == pytest.approx(wanted.train_loss, abs=1e-4)
            assert mine.train_error == pytest.approx(wanted.train_error, abs=0.01)


def test_dropout_masks_are_those_of_the_larger_batch(arrays: dict[str, Any]) -> None:
    model = {"name": "mlp", "widths": (32,), "dropout": 0.5}
    found = [
        results(train(experiment(model, kernels="torch", **SGD, **how), specs([0, 1], recipe="mlp"), arrays))
        for how in ({"batch_size": 48}, {"batch_size": 16, "accumulation": 3})
    ]
    for large, small in zip(found[0][1].weights.values(), found[1][1].weights.values(), strict=True):
        np.testing.assert_allclose(small, large, rtol=1e-4, atol=1e-4)


def test_fewer_steps_are_taken_than_without(arrays: dict[str, Any]) -> None:
    """Not the same training: a step of the optimiser for 32 images instead of one for 16."""
    some, more = (
        results(train(experiment(**SGD, batch_size=16, accumulation=n), specs([0]), arrays))[0] for n in (1, 2)
    )
    assert not np.allclose(some.weights["0.weight"], more.weights["0.weight"], atol=1e-3)


def test_batch_norm_sees_the_small_batches(arrays: dict[str, Any]) -> None:
    """Its statistics are of what goes through the network together, so there is no larger batch that this equals."""
    found = {
        how: results(
            train(experiment(BATCH_NORM, **SGD, batch_size=size, accumulation=how), specs([0], recipe="cnn"), arrays)
        )[0]
        for how, size in ((1, 64), (4, 16))
    }
    means = [
        member.weights[name] for member in found.values() for name in member.weights if name.endswith("running_mean")
    ]
    assert not np.allclose(means[0], means[len(means) // 2], atol=1e-3)


def test_a_stack_equals_its_members_alone(arrays: dict[str, Any]) -> None:
    config = experiment(**SGD, batch_size=16, accumulation=3, augmentation={"mixup_alpha": 0.4, "shift": 0.1})
    together = results(train(config, specs([0, 3]), arrays))
    alone = results(train(config, specs([3]), arrays))
    for name, weight in alone[3].weights.items():
        np.testing.assert_allclose(together[3].weights[name], weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recipe", ["plain", "mixed", "deformed"])
def test_a_step_of_several_batches_is_one_cuda_graph(recipe: str, arrays: dict[str, Any]) -> None:
    config = experiment(**RECIPES[recipe], batch_size=16, accumulation=2)
    graphed, notices = trained(run_of(config, arrays, replayed))
    plain, _ = trained(run_of(config, arrays, None))
    assert not notices
    for mine, wanted in zip(graphed[0], plain[0], strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=2e-3)


def batches_of(rows: int, batch_size: int, accumulation: int, least_rows: int, arrays: dict[str, Any]) -> Batches:
    config = experiment(
        LAYERS if least_rows == 2 else None, kernels="torch", batch_size=batch_size, accumulation=accumulation
    )
    recipe = config.groups[0].name
    job = Trainer.create(config, "cpu", 10).jobs[recipe]
    run = StackRun(Task("t", recipe, specs([0], rows, recipe)), job, arrays, Placement.create(job.compute))
    return run.batches


@pytest.mark.parametrize(
    ("rows", "size", "times", "least", "expected"),
    [
        (260, 16, 2, 1, [[0, 16, 32]] * 8 + [[0, 4]]),
        (100, 16, 4, 1, [[0, 16, 32, 48, 64], [0, 16, 32, 36]]),
        (97, 16, 4, 2, [[0, 16, 32, 48, 64], [0, 16, 33]]),  # a last image of its own joins the piece before it
        (97, 16, 2, 2, [[0, 16, 32], [0, 16, 32], [0, 16, 33]]),  # and so does a last step of one image
        (20, 16, 100, 1, [[0, 16, 20]]),
    ],
)
def test_where_the_pieces_of_a_step_lie(
    rows: int, size: int, times: int, least: int, expected: list[list[int]], arrays: dict[str, Any]
) -> None:
    batches = batches_of(rows, size, times, least, arrays)
    batches.begin(0)
    assert [batches.bounds_of(batches.rows_of(step)) for step in range(batches.steps_per_epoch)] == expected
    assert batches.rows_at_a_time == max(high - low for low, high in itertools.pairwise(expected[0]))
    seen = []
    for step, bounds in enumerate(expected):
        whole = batches.at(step * batches.batch_size, batches.rows_of(step))
        pieces = list(whole.pieces(bounds))
        assert all(piece.rows == whole.rows for piece in pieces)
        assert torch.equal(torch.cat([piece.images for piece in pieces], 1), whole.images)
        seen += [len(piece.labels_BK) for piece in pieces]
    assert sum(seen) == rows


def test_images_of_a_step() -> None:
    assert experiment(batch_size=16, accumulation=4).groups[0].training.images_per_step == 64
