"""What a history holds: errors on the training batches, test curves that change nothing, and the epoch that is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ensemble.config.recipe import TriangularConfig
from ensemble.training.schedules import factor
from tests.training.helpers import experiment, results, specs, train

MLP = {"name": "mlp", "widths": (16,)}


def watched(arrays: dict[str, Any]) -> dict[str, Any]:
    from ensemble.config.schema import DataConfig
    from ensemble.data import load_dataset

    return {**arrays, "test_labels": load_dataset(DataConfig(name="digits")).test_labels_N[:50]}


def test_watching_the_test_set_changes_no_bit(arrays: dict[str, Any]) -> None:
    plain = results(train(experiment(MLP), specs([0, 1]), arrays))
    curve = results(train(experiment(MLP, watch_test=True), specs([0, 1]), watched(arrays)))
    for index in (0, 1):
        assert plain[index].votes.test_NK.tobytes() == curve[index].votes.test_NK.tobytes()
        assert all(record.test_error is None for record in plain[index].history)
        blind = [replace(r, test_loss=None, test_error=None, seconds=0.0) for r in curve[index].history]
        assert blind == [replace(r, seconds=0.0) for r in plain[index].history]


def test_the_last_point_of_the_test_curve_is_the_stored_vote(arrays: dict[str, Any]) -> None:
    data = watched(arrays)
    member = results(train(experiment(MLP, watch_test=True, epochs=3), specs([0]), data))[0]
    probs, labels = member.votes.test_NK.astype(np.float64), data["test_labels"]
    last = member.history[-1]
    assert last.test_error == pytest.approx(float((probs.argmax(1) != labels).mean()))
    assert last.test_loss == pytest.approx(float(-np.log(probs[np.arange(50), labels]).mean()), rel=1e-5)


def test_train_error_of_a_network_that_stands_still(arrays: dict[str, Any]) -> None:
    """With a vanishing learning rate the error over the batches is the error of the initial weights on the rows."""
    member = results(train(experiment(MLP, lr=1e-30, epochs=1), specs([0]), arrays))[0]
    rows = specs([0])[0].rows
    images = torch.as_tensor(arrays["train_images"][rows]).float() / 255
    x = ((images - float(arrays["mean"][0])) / float(arrays["std"][0])).flatten(1)
    weights = {name: torch.as_tensor(array) for name, array in member.weights.items()}
    hidden = torch.relu(x @ weights["1.weight"].T + weights["1.bias"])
    classes = (hidden @ weights["3.weight"].T + weights["3.bias"]).argmax(1).numpy()
    assert member.history[0].train_error == pytest.approx(float((classes != arrays["train_labels"][rows]).mean()))


def test_keeping_the_lowest_validation_error(arrays: dict[str, Any]) -> None:
    config = experiment(MLP, keep="best_validation_error", epochs=8, lr=0.02)
    for member in results(train(config, specs([0, 1]), arrays)).values():
        best = min(member.history, key=lambda r: (r.validation_error, r.validation_loss))
        assert member.kept_epoch == best.epoch
        labels = arrays["train_labels"][arrays["validation_rows"]]
        assert (member.votes.validation_NK.argmax(1) != labels).mean() == pytest.approx(best.validation_error)


def test_triangular_schedule() -> None:
    """Eight steps: up to the full rate in the middle, at the low fraction after the last one."""
    schedule = TriangularConfig(name="triangular", low_fraction=0.2)
    rates = [factor(schedule, step, 4, 8) for step in range(8)]
    assert rates == pytest.approx([0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2])
