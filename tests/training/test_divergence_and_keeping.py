"""A member that diverges stops alone; the weights that vote are the ones the recipe asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ensemble.events import EpochFinished
from ensemble.types import MemberSpec
from tests.training.helpers import experiment, failures, results, specs, train


@pytest.mark.parametrize("extra", [{}, {"gradient_clip_norm": 1.0}, {"ema_decay": 0.9, "keep": "best_validation"}])
def test_neighbours_of_a_diverging_member_are_undisturbed_to_the_bit(
    extra: dict[str, Any], arrays: dict[str, Any]
) -> None:
    config = experiment({"name": "cnn", "widths": (4,), "batch_norm": True, "dropout": 0.1}, epochs=3, lr=0.01, **extra)
    healthy = specs([0, 1, 2])
    poison = np.full(len(healthy[1].rows), np.inf, np.float32)
    sick = (healthy[0], MemberSpec(1, "cnn", healthy[1].rows, poison, healthy[1].vote_rows), healthy[2])
    # Weights of one enter all members as ones, so that both runs take the same way through the loss.
    ones = np.ones(len(healthy[1].rows), np.float32)
    healthy = (healthy[0], MemberSpec(1, "cnn", healthy[1].rows, ones, healthy[1].vote_rows), healthy[2])
    disturbed, undisturbed = train(config, sick, arrays), train(config, healthy, arrays)
    assert list(results(disturbed)) == [0, 2]
    assert failures(disturbed)[1].kind == "diverged"
    assert "epoch 1" in failures(disturbed)[1].reason
    assert not [e for e in disturbed if isinstance(e, EpochFinished) and e.member == 1]
    for index in (0, 2):
        ours, theirs = results(disturbed)[index], results(undisturbed)[index]
        for name, tensor in theirs.weights.items():
            np.testing.assert_array_equal(ours.weights[name], tensor)
        np.testing.assert_array_equal(ours.votes.test_NK, theirs.votes.test_NK)


def test_a_stack_of_only_diverged_members_ends_early(arrays: dict[str, Any]) -> None:
    config = experiment(optimizer="sgd", lr=1e30, epochs=50)
    items = train(config, specs([0, 1]), arrays)
    assert not results(items)
    assert set(failures(items)) == {0, 1}
    assert len(items) < 10


def test_best_epoch_votes(arrays: dict[str, Any]) -> None:
    """A rate that wrecks the network after the first epochs: the kept weights are those of the best epoch."""
    schedule = {"name": "one_cycle", "warmup_fraction": 0.9, "start_divisor": 1000}
    recipe = {"optimizer": "sgd", "momentum": 0.9, "lr": 3.0, "epochs": 6, "schedule": schedule}
    items = train(experiment(**recipe, keep="best_validation"), specs([0]), arrays)
    member = results(items)[0] if results(items) else None
    assert member is not None, failures(items)
    losses = [record.validation_loss for record in member.history]
    assert member.kept_epoch == int(np.argmin(losses)) + 1 < 6
    validation = arrays["train_labels"][arrays["validation_rows"]]
    probs = member.votes.validation_NK[np.arange(len(validation)), validation]
    assert -np.log(probs).mean() == pytest.approx(min(losses), rel=1e-4)


def test_votes_are_probabilities_and_belong_to_their_rows(arrays: dict[str, Any]) -> None:
    before = {name: array.copy() for name, array in arrays.items()}
    member = results(train(experiment(epochs=6, lr=2e-3), specs([0, 3]), arrays))[3]
    votes = member.votes
    assert votes.test_NK.shape == (50, 10)
    assert votes.test_NK.dtype == np.float32
    np.testing.assert_allclose(votes.test_NK.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(votes.rows, np.arange(3, 23))
    # The votes on training rows are right about the labels of those very rows, far above chance.
    assert (votes.rows_RK.argmax(1) == arrays["train_labels"][3:23]).mean() > 0.6
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_training_is_repeatable_to_the_bit(arrays: dict[str, Any]) -> None:
    config = experiment(augmentation={"rotation_degrees": 10, "elastic_alpha": 1.0})
    first, second = (results(train(config, specs([0, 1]), arrays)) for _ in range(2))
    for index in (0, 1):
        for name, tensor in first[index].weights.items():
            np.testing.assert_array_equal(second[index].weights[name], tensor)
