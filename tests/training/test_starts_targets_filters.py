"""What methods can ask of a member beyond rows and weights: weights to begin with, targets, filtered sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ensemble.config import Experiment
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.errors import ComputeError
from ensemble.training import Trainer
from ensemble.training.filtering import filtered_set
from ensemble.training.placement import Placement
from ensemble.training.resident import Resident
from ensemble.types import Filter, MemberResult, MemberSpec, Task
from tests.training.helpers import experiment, results, specs

MLP = {"name": "mlp", "widths": (16,)}
MOVES = {"rotation_degrees": 15.0, "shift": 0.12}


def run(config: Experiment, members: list[MemberSpec], arrays: dict[str, Any]) -> dict[int, MemberResult]:
    recipe = config.groups[0].name
    task = Task("task", recipe, tuple(replace(member, recipe=recipe) for member in members))
    return results(list(Trainer.create(config, "cpu", 10)(task, arrays)))


def network(weights: Any) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    model.load_state_dict({name: torch.as_tensor(array) for name, array in weights.items()})
    return model


def standardised(arrays: dict[str, Any], images: Any) -> torch.Tensor:
    return (torch.as_tensor(images).float() / 255 - float(arrays["mean"][0])) / float(arrays["std"][0])


def test_a_member_begins_with_the_weights_it_is_given(arrays: dict[str, Any]) -> None:
    """Standing still it keeps them to the bit, beside a neighbour that begins at random."""
    first = run(experiment(MLP), list(specs([5])), arrays)[5]
    members = [replace(specs([6])[0], start=first.weights), specs([7])[0]]
    after = run(experiment(MLP, lr=1e-30, optimizer="sgd", epochs=1), members, arrays)
    for name, array in first.weights.items():
        assert after[6].weights[name].tobytes() == array.tobytes()
        assert (after[7].weights[name] != array).any()
    assert after[6].votes.test_NK == pytest.approx(first.votes.test_NK, abs=1e-6)


def test_targets_are_fitted_by_squared_error(arrays: dict[str, Any]) -> None:
    """One epoch of plain SGD against torch's own modules on the same batches."""
    config = experiment(MLP, optimizer="sgd", lr=0.05, epochs=1, batch_size=300)
    targets = np.random.default_rng(1).normal(size=(260, 10)).astype(np.float32)
    start = run(experiment(MLP, lr=1e-30, optimizer="sgd", epochs=1), list(specs([2])), arrays)[2].weights
    member = replace(specs([2])[0], targets_RK=targets, start=start)
    found = run(config, [member, replace(specs([3])[0], targets_RK=-targets)], arrays)[2]
    model, images = network(start), standardised(arrays, arrays["train_images"][member.rows])
    loss = (model(images) - torch.as_tensor(targets)).square().sum(1).div(2).mean()
    loss.backward()
    assert found.history[0].train_loss == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        np.testing.assert_allclose(
            found.weights[name], (parameter - 0.05 * parameter.grad).detach().numpy(), atol=2e-6, err_msg=name
        )


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    data = load_dataset(DataConfig(name="digits"))
    return {
        "train_images": data.train_images_NCHW, "train_labels": data.train_labels_N,
        "validation_rows": np.arange(20), "test_images": data.test_images_NCHW[:20],
        "mean": np.float32([0.3]), "std": np.float32([0.4]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def judges(digits: dict[str, Any]) -> list[Any]:
    members = [MemberSpec(i, "mlp", np.arange(20, 600)) for i in (0, 1)]
    found = run(experiment(MLP, epochs=3, augmentation=MOVES), members, digits)
    return [found[0].weights, found[1].weights]


def chosen(digits: dict[str, Any], index: int, wanted: Filter, moves: dict[str, float] = MOVES) -> Any:
    config = experiment(MLP, augmentation=moves)
    member = MemberSpec(index, "mlp", np.arange(20, 600), filter=wanted)
    job = Trainer.create(config, "cpu", 10).jobs["mlp"]
    placement = Placement.create(job.compute)
    return filtered_set(member, job, Resident.load(digits, placement.device), placement)


def named(digits: dict[str, Any], weights: Any, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(weights)(standardised(digits, images)).argmax(1)


def test_half_of_the_second_set_is_wrong_to_the_first_network(digits: dict[str, Any], judges: list[Any]) -> None:
    found = chosen(digits, 2, Filter("half_wrong", (judges[0],), 300, 50))
    wrong = named(digits, judges[0], found.images) != found.labels
    assert wrong[:150].all()
    assert not wrong[150:].any()
    assert found.distinct == 300
    assert found.looked_at >= 300
    assert found.images.dtype == torch.uint8


def test_the_first_two_disagree_on_all_of_the_third_set(digits: dict[str, Any], judges: list[Any]) -> None:
    found = chosen(digits, 4, Filter("disagree", (judges[0], judges[1]), 120, 50))
    assert (named(digits, judges[0], found.images) != named(digits, judges[1], found.images)).all()
    assert len(found.labels) == 120


def test_a_set_is_a_function_of_the_member_alone(digits: dict[str, Any], judges: list[Any]) -> None:
    wanted = Filter("half_wrong", (judges[0],), 64, 50)
    one, same, other = (chosen(digits, index, wanted) for index in (2, 2, 3))
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)


def test_a_source_that_runs_dry_repeats_what_there_is(digits: dict[str, Any], judges: list[Any]) -> None:
    found = chosen(digits, 2, Filter("half_wrong", (judges[0],), 2000, 1))
    assert found.looked_at == 580
    wrong = named(digits, judges[0], found.images) != found.labels
    assert wrong.float().mean() == 0.5
    assert found.distinct == 580  # all that one pass showed, right or wrong
    assert found.facts() == {"filter_looked_at": 580.0, "filter_distinct": 580.0}


def test_nothing_to_train_on_is_an_error_that_says_so(digits: dict[str, Any], judges: list[Any]) -> None:
    with pytest.raises(ComputeError, match=r"none that the networks before it disagree on.*max_passes"):
        chosen(digits, 2, Filter("disagree", (judges[0], judges[0]), 10, 1))


def test_a_filtered_member_trains_on_its_set_in_a_stack_as_alone(digits: dict[str, Any], judges: list[Any]) -> None:
    config = experiment(MLP, augmentation=MOVES, epochs=2, batch_size=50)
    members = [
        MemberSpec(i, "mlp", np.arange(20, 600), filter=Filter("half_wrong", (judge,), 200, 20))
        for i, judge in ((2, judges[0]), (3, judges[1]))
    ]
    together, alone = run(config, members, digits), run(config, members[1:], digits)
    np.testing.assert_allclose(together[3].votes.test_NK, alone[3].votes.test_NK, atol=1e-5)
    assert together[3].facts == alone[3].facts
    assert together[2].facts["filter_distinct"] == 200
