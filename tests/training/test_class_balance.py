"""Weights of classes in the loss, and draws in which every class is as likely: by hand, in a stack as alone, and on a long tail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

import ensemble
from ensemble.commands.main import main
from ensemble.config.recipe import TrainingConfig
from ensemble.errors import ConfigError
from ensemble.training import named_class_weights
from ensemble.training.batches import Batches
from ensemble.training.class_balance import chances_of, logit_offsets, loss_factors
from ensemble.training.job import CLASS_WEIGHTS
from ensemble.training.placement import Placement
from ensemble.training.resident import Resident
from ensemble.types import MemberSpec
from tests.training.helpers import arrays as arrays
from tests.training.helpers import experiment, results, specs, train
from tests.training.test_cuda_graph import run_of

LABELS = torch.tensor([[0, 0, 0, 1, 1, 2, 0, 0], [2, 2, 2, 2, 2, 2, 1, 1]])


def test_balanced_weights_are_those_of_scikit_learn_for_each_member_s_own_rows() -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    found = loss_factors(TrainingConfig(class_weights="balanced"), LABELS, None)
    assert found is not None
    for own, labels in zip(found, LABELS, strict=True):
        np.testing.assert_allclose(own, compute_sample_weight("balanced", labels.numpy()), rtol=1e-6)
    assert loss_factors(TrainingConfig(), LABELS, None) is None


def test_weights_by_name_keep_their_ratios_and_have_mean_one() -> None:
    recipe = TrainingConfig(class_weights={"b": 4.0})
    group = experiment(class_weights={"b": 4.0}).groups
    ((name, given),) = named_class_weights(group, ["a", "b", "c"]).items()
    assert name == f"{CLASS_WEIGHTS}lenet5"
    found = loss_factors(recipe, LABELS, given)
    assert found is not None
    torch.testing.assert_close(found.mean(1), torch.ones(2))
    assert (found[0, 3] / found[0, 0]).item() == pytest.approx(4)
    with pytest.raises(ConfigError, match=r"training\.class_weights: 'B' is no class of this data set; there are a, c"):
        named_class_weights(experiment(class_weights={"B": 4.0}).groups, ["a", "c"])


def test_every_class_is_as_likely_and_within_it_the_member_s_weights_hold() -> None:
    weights = np.array([1, 2, 3, 4, 4, 9, 1, 1.0])
    shuffled, balanced = TrainingConfig(), TrainingConfig(sampling="balanced")
    plain = MemberSpec(0, "r", np.arange(8))
    weighted = MemberSpec(0, "r", np.arange(8), weights, resample=True)
    assert chances_of(shuffled, plain, LABELS[0]) is None
    np.testing.assert_array_equal(chances_of(shuffled, weighted, LABELS[0]), weights)
    for member in (plain, weighted):
        chances = chances_of(balanced, member, LABELS[0])
        assert chances is not None
        np.testing.assert_allclose(np.bincount(LABELS[0], chances), np.full(3, chances.sum() / 3))
    assert chances[1] / chances[0] == 2


def test_an_epoch_draws_the_classes_equally(arrays: dict[str, Any]) -> None:
    """Of rows of which nearly all are of one class; the same draws alone as in a stack, others in the next epoch."""
    data = Resident.load(arrays, torch.device("cpu"))
    labels = arrays["train_labels"][:260]
    rows = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:3]])
    rows = np.concatenate([np.repeat(rows[:-3], 20), rows[-3:]])
    members = [MemberSpec(k, "r", rows) for k in (4, 7)]
    placement = Placement.create(experiment().compute)

    def shown(members: list[MemberSpec], epoch: int) -> np.ndarray:
        recipe = TrainingConfig(sampling="balanced")
        batches = Batches(data, members, 3, 50, recipe.augmentation, placement, recipe=recipe)
        return torch.cat([batch.labels_BK for batch in batches.epoch(epoch)]).numpy()

    together, alone = shown(members, 0), shown(members[1:], 0)
    np.testing.assert_array_equal(together[:, 1:], alone)
    assert not np.array_equal(together, shown(members, 1))
    shares = (together == 1).mean(0)
    assert (np.abs(shares - 0.5) < 4 * np.sqrt(0.25 / len(rows))).all(), shares


def test_a_weighted_step_is_the_step_of_the_weighted_loss(arrays: dict[str, Any]) -> None:
    """One step of plain gradient descent on all rows, against torch's cross-entropy with weights on the plain network."""
    model: dict[str, Any] = {"name": "mlp", "widths": (6,)}
    given = {f"{CLASS_WEIGHTS}mlp": np.array([5.0, *[1.0] * 9])}
    config = experiment(model, optimizer="sgd", lr=0.5, batch_size=260, epochs=1, class_weights={"0": 5.0})
    run = run_of(config, {**arrays, **given}, None)
    before = [p.detach().clone() for p in run.stack.network.parameters()]
    members = specs([0, 1], recipe="mlp")
    list(run.train_epoch(0))
    for k, member in enumerate(members):
        weights = [torch.nn.Parameter(p[k].clone()) for p in before]
        images = torch.from_numpy(arrays["train_images"][member.rows]).float() / 255
        x = ((images - arrays["mean"].item()) / arrays["std"].item()).flatten(1)
        labels = torch.from_numpy(arrays["train_labels"][member.rows])
        hidden = F.linear(x, weights[0], weights[1]).relu()
        by_class = torch.from_numpy(given[f"{CLASS_WEIGHTS}mlp"]).float()
        # torch divides by the weights of the batch, which here is all rows: the same as weights of mean 1.
        F.cross_entropy(F.linear(hidden, weights[2], weights[3]), labels, by_class).backward()
        for weight, moved in zip(weights, run.stack.network.parameters(), strict=True):
            assert weight.grad is not None
            torch.testing.assert_close(moved[k], weight - 0.5 * weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "training", [{"class_weights": "balanced"}, {"sampling": "balanced"}, {"logit_adjustment": 1.0}]
)
def test_a_member_of_a_stack_is_the_member_alone(arrays: dict[str, Any], training: dict[str, Any]) -> None:
    config = experiment(**training)
    together, alone = train(config, specs([0, 1, 2]), arrays), train(config, specs([1]), arrays)
    one, other = results(together)[1], results(alone)[1]
    for name, array in one.weights.items():
        np.testing.assert_allclose(array, other.weights[name], rtol=1e-3, atol=1e-4)
    plain = results(train(experiment(), specs([1]), arrays))[1]
    assert any(not np.array_equal(array, plain.weights[name]) for name, array in other.weights.items())


def long_tail() -> tuple[np.ndarray, ...]:
    """The digits, of which every next class has 0.6 times as many training images as the one before it (100:1)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16
    train, test = [], []
    for k in range(10):
        rows = np.flatnonzero(labels == k)
        train += rows[: round(100 * 0.6**k) + 1].tolist()
        test += rows[110:].tolist()
    return images[train], labels[train], images[test], labels[test]


@pytest.mark.parametrize(
    "changed",
    [{"class_weights": "balanced"}, {"sampling": "balanced"}, {"logit_adjustment": 1.0}],
    ids=lambda keys: next(iter(keys)),
)
def test_rare_classes_are_recognised_more_often(tmp_path: Path, changed: dict[str, Any]) -> None:
    data = long_tail()
    errors = {}
    for name, keys in (("plain", {}), ("changed", changed)):
        run = ensemble.train(
            name=name, output_dir=tmp_path, model={"name": "mlp", "widths": [32]}, data=data, num_members=3,
            method="deep_ensemble", training={"epochs": 20, "lr": 0.003, **keys},
        )  # fmt: skip
        balance = run.evaluation.balance
        assert balance is not None
        errors[name] = balance.vote_error
    assert errors["changed"] < 0.9 * errors["plain"], errors


def test_every_door_says_the_balanced_error_where_classes_are_unequal(tmp_path: Path) -> None:
    images, labels, test_images, test_labels = long_tail()
    few = np.concatenate([np.flatnonzero(test_labels == k)[: 60 - 5 * k] for k in range(10)])
    np.savez(
        tmp_path / "x.npz", train_images=images, train_labels=labels, test_images=test_images[few],
        test_labels=test_labels[few],
    )  # fmt: skip
    values = {
        "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "arrays", "path": str(tmp_path / "x.npz")},
        "model": {"name": "mlp", "widths": [8]}, "training": {"epochs": 2, "class_weights": {"9": 3.0}},
        "output_dir": str(tmp_path), "tracking": {"wandb": {"mode": "disabled"}},
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(json.dumps(values))
    done = CliRunner().invoke(main, ["train", str(tmp_path / "c.yaml"), "-q"])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "c/evaluation.json").read_text())
    shown = f"{100 * record['balance']['vote_error']:.2f}"
    words = " ".join(done.stdout.split())
    assert f"of which the largest has 60 test images and the smallest 15): {shown} % against" in words
    assert f"Worst class: {record['balance']['worst']}, " in words
    assert "bal. %" in done.stdout
    assert CliRunner().invoke(main, ["report", str(tmp_path / "c")]).exit_code == 0
    page = (tmp_path / "c/report.html").read_text()
    assert "Balanced error: the mean over" in page
    assert f">{shown}<" in page
    header, first = (tmp_path / "c/leaderboard.csv").read_text().splitlines()[:2]
    assert float(first.split(",")[header.split(",").index("balanced_error")]) == record["balance"]["vote_error"]
    wrong = CliRunner().invoke(
        main, ["train", str(tmp_path / "c.yaml"), "-q", "training.class_weights={ten: 2.0}", "name=d"]
    )
    assert wrong.exit_code == 2
    assert "'ten' is no class of this data set; there are 0, 1" in wrong.output


def test_adjusted_logits_are_those_of_the_paper(arrays: dict[str, Any]) -> None:
    """Menon et al. 2021, equation 10: softmax cross-entropy of f_y(x) + tau log pi_y; a class without rows counts as half a row."""
    recipe = TrainingConfig(logit_adjustment=1.5)
    found = logit_offsets(recipe, LABELS, 4)
    assert found is not None
    expected = 1.5 * np.log(np.array([[5, 2, 1, 0.5], [0.5, 2, 6, 0.5]]) / 8)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert logit_offsets(TrainingConfig(), LABELS, 4) is None
    config = experiment(
        {"name": "mlp", "widths": ()}, optimizer="sgd", lr=0.1, batch_size=260, epochs=1, logit_adjustment=1.0
    )
    run = run_of(config, arrays, None)
    weight, bias = (p.detach().clone()[0] for p in run.stack.network.parameters())
    rows = specs([0])[0].rows
    list(run.train_epoch(0))
    images = torch.from_numpy(arrays["train_images"][rows]).float() / 255
    x = ((images - arrays["mean"].item()) / arrays["std"].item()).flatten(1)
    labels = torch.from_numpy(arrays["train_labels"][rows])
    shares = torch.bincount(labels, minlength=10) / len(labels)
    own = torch.nn.Parameter(weight)
    probability = ((x @ own.T + bias).exp() * shares).div(((x @ own.T + bias).exp() * shares).sum(1, keepdim=True))
    (-probability[torch.arange(len(labels)), labels].log().mean()).backward()
    assert own.grad is not None
    moved = next(iter(run.stack.network.parameters()))[0]
    torch.testing.assert_close(moved, weight - 0.1 * own.grad, rtol=1e-3, atol=1e-5)


def test_only_one_thing_makes_up_for_rare_classes() -> None:
    for keys in (
        {"class_weights": "balanced", "sampling": "balanced"},
        {"class_weights": "balanced", "logit_adjustment": 1.0},
        {"sampling": "balanced", "logit_adjustment": 1.0},
    ):
        with pytest.raises(ConfigError, match=r"each make up for rare classes: use one of them"):
            experiment(**keys)
    experiment(class_weights={"1": 2.0}, sampling="balanced")
