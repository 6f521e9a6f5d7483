"""The loss that a step goes down by, against formulas written out; and members that stop early."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ensemble.errors import ConfigError
from ensemble.training import Trainer
from ensemble.training.losses import label_losses
from ensemble.training.placement import Placement
from ensemble.training.stack_run import StackRun
from ensemble.types import Task
from tests.training.helpers import experiment, results, specs, train


def run_of(arrays: dict[str, Any], **training: Any) -> StackRun:
    """A stack of two before its first step, with its own kind of layers alone."""
    config = experiment({"name": "mlp", "widths": (16,)}, kernels="torch", **training)
    recipe = config.groups[0].name
    job = Trainer.create(config, "cpu", 10).jobs[recipe]
    return StackRun(Task("t", recipe, specs([0, 1], recipe=recipe)), job, arrays, Placement.create(job.compute))


def loss_of_first_batch(run: StackRun) -> tuple[torch.Tensor, Any, torch.Tensor]:
    """Loss sums [K] that a step notes, its batch, and its logits [B, K, C]."""
    run.batches.begin(0)
    batch = run.batches.at(0, 32)
    logits = run.stack(batch.images, batch.batch_last).detach()
    run.plain_step(batch, 0.0)
    return run.state.sums_2K[0], batch, logits


@pytest.mark.parametrize("kind", ["mixup_alpha", "cutmix_alpha"])
def test_mixed_labels_count_by_their_shares(kind: str, arrays: dict[str, Any]) -> None:
    """Mixing labels as one-hot vectors gives the same loss: Zhang et al. 2018, equation 1."""
    noted, batch, logits = loss_of_first_batch(run_of(arrays, augmentation={kind: 1.0}, label_smoothing=0.1))
    share = batch.mixed.share_BK.unsqueeze(-1)
    assert 0.2 < float(share.mean()) < 0.8
    soft = share * F.one_hot(batch.labels_BK, 10) + (1 - share) * F.one_hot(batch.labels_BK.flip(0), 10)
    soft = 0.9 * soft + 0.1 / 10
    expected = -(soft * logits.log_softmax(-1)).sum((0, 2))
    torch.testing.assert_close(noted, expected)


def test_mixed_labels_keep_the_weights_of_their_own_rows(arrays: dict[str, Any]) -> None:
    noted, batch, logits = loss_of_first_batch(
        run_of(arrays, augmentation={"mixup_alpha": 1.0}, class_weights="balanced")
    )
    assert batch.weights_BK.std() > 0.1
    log_probs, share = logits.log_softmax(-1), batch.mixed.share_BK
    losses = -log_probs.gather(-1, batch.labels_BK.unsqueeze(-1)).squeeze(-1) * batch.weights_BK
    others = -log_probs.gather(-1, batch.labels_BK.flip(0).unsqueeze(-1)).squeeze(-1) * batch.weights_BK.flip(0)
    torch.testing.assert_close(noted, (share * losses + (1 - share) * others).sum(0))


@pytest.mark.parametrize("gamma", [None, 0.5, 5.0])
def test_focal(gamma: float | None, arrays: dict[str, Any]) -> None:
    """Lin et al. 2017, equation 4."""
    noted, batch, logits = loss_of_first_batch(run_of(arrays, loss="focal", focal_gamma=gamma))
    p = logits.double().softmax(-1).gather(-1, batch.labels_BK.unsqueeze(-1)).squeeze(-1)
    expected = -((1 - p) ** (gamma or 2.0) * p.log()).sum(0)
    torch.testing.assert_close(noted.double(), expected, rtol=1e-5, atol=1e-6)


def test_focal_of_certain_rows_has_a_finite_gradient(arrays: dict[str, Any]) -> None:
    run = run_of(arrays, loss="focal", focal_gamma=0.5)
    logits = torch.zeros(4, 2, 10)
    logits[..., 3] = 200.0
    logits.requires_grad_()
    label_losses(run.recipe, logits, torch.full((4, 2), 3)).sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy_of_each_class_against_the_others(smoothing: float, arrays: dict[str, Any]) -> None:
    noted, batch, logits = loss_of_first_batch(run_of(arrays, loss="bce", label_smoothing=smoothing))
    p = logits.double().sigmoid()
    wanted = F.one_hot(batch.labels_BK, 10) * (1 - smoothing) + smoothing / 10
    expected = -(wanted * p.log() + (1 - wanted) * (1 - p).log()).mean(-1).sum(0)
    torch.testing.assert_close(noted.double(), expected, rtol=1e-5, atol=1e-6)


def test_mixed_labels_are_several_wanted_classes_for_binary_cross_entropy(arrays: dict[str, Any]) -> None:
    noted, batch, logits = loss_of_first_batch(run_of(arrays, loss="bce", augmentation={"cutmix_alpha": 1.0}))
    share = batch.mixed.share_BK.unsqueeze(-1)
    soft = share * F.one_hot(batch.labels_BK, 10) + (1 - share) * F.one_hot(batch.labels_BK.flip(0), 10)
    expected = F.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean(-1).sum(0)
    torch.testing.assert_close(noted, expected)


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_votes_after_binary_cross_entropy_are_sigmoids_divided_by_their_sum(
    kernels: str, arrays: dict[str, Any]
) -> None:
    config = experiment({"name": "mlp", "widths": (16,)}, kernels=kernels, loss="bce", lr=0.01, epochs=3)
    found = results(train(config, specs([0, 1], recipe="mlp"), arrays))
    images = torch.from_numpy(arrays["test_images"]).float() / 255
    for member in found.values():
        network = config.groups[0].model.build((1, 28, 28), 10)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in member.weights.items()})
        standardised = (images - torch.from_numpy(arrays["mean"])[0]) / torch.from_numpy(arrays["std"])[0]
        with torch.no_grad():
            sigmoids = network.eval()(standardised).sigmoid()
        expected = sigmoids / sigmoids.sum(-1, keepdim=True)
        torch.testing.assert_close(torch.from_numpy(member.votes.test_NK), expected, rtol=0, atol=2e-6)
        assert member.history[-1].validation_error < 0.5, "it learns"
        validation = torch.from_numpy(member.votes.validation_NK)
        labels = torch.from_numpy(arrays["train_labels"][arrays["validation_rows"]])
        nll = -validation.gather(1, labels[:, None]).log().mean()
        assert member.history[-1].validation_loss == pytest.approx(float(nll), rel=1e-4), "of the votes"


def test_offsets_for_a_softmax_are_no_matter_of_binary_cross_entropy() -> None:
    with pytest.raises(ConfigError, match="logit_adjustment is made for the softmax"):
        experiment(loss="bce", logit_adjustment=1.0)


def test_errors_in_training_are_against_the_label_with_the_larger_share(arrays: dict[str, Any]) -> None:
    run = run_of(arrays, augmentation={"mixup_alpha": 1.0})
    run.batches.begin(0)
    batch = run.batches.at(0, 32)
    larger = torch.where(batch.mixed.share_BK >= 0.5, batch.labels_BK, batch.labels_BK.flip(0))
    misses = (run.stack(batch.images, batch.batch_last).argmax(-1) != larger).sum(0)
    run.plain_step(batch, 0.0)
    assert run.state.sums_2K[1].tolist() == misses.tolist()


def test_early_stopping_ends_each_member_when_it_has_waited_enough(arrays: dict[str, Any]) -> None:
    config = experiment(keep="best_validation", early_stopping_epochs=2, epochs=40, lr=0.02)
    found = results(train(config, specs([0, 1, 2, 3]), arrays))
    lengths = {len(member.history) for member in found.values()}
    assert max(lengths) < 40
    assert len(lengths) > 1, "members stop at epochs of their own"
    for member in found.values():
        losses = [record.validation_loss for record in member.history]
        assert member.kept_epoch == 1 + losses.index(min(losses))
        assert len(losses) == member.kept_epoch + 2


def test_the_rate_rises_in_the_warm_up_and_the_schedule_follows(arrays: dict[str, Any]) -> None:
    config = experiment(lr=0.1, warmup_epochs=1.5, epochs=4, schedule={"name": "exponential", "gamma": 0.5})
    rates = [record.lr for record in results(train(config, specs([0]), arrays))[0].history]
    steps = -(-260 // 32)
    rising = round(1.5 * steps)
    assert rates[0] == pytest.approx(0.1 * steps / (rising + 1))  # of the last step of an epoch
    assert rates[1:] == pytest.approx([0.1, 0.05, 0.025])


def test_weight_decay_on_weights_alone_spares_biases_and_norms(arrays: dict[str, Any]) -> None:
    """By a step of plain SGD with and without decay: what it takes off is lr * decay * parameter, or nothing."""

    def after_one_epoch(**more: Any) -> dict[str, Any]:
        model = {"name": "cnn", "widths": (4,), "batch_norm": True, "fully_connected": (8,)}
        config = experiment(model, optimizer="sgd", lr=0.5, batch_size=260, epochs=1, **more)
        return dict(results(train(config, specs([0, 1]), arrays))[1].weights)

    plain, decayed = after_one_epoch(), after_one_epoch(weight_decay=0.01, weight_decay_on="weights")
    everywhere = after_one_epoch(weight_decay=0.01)
    names = [name for name in plain if name.endswith(("weight", "bias"))]
    vectors = [name for name in names if plain[name].ndim == 1]
    assert len(vectors) >= 4
    assert any(abs(everywhere[name] - plain[name]).max() > 1e-4 for name in vectors)
    for name in names:
        changed = bool(abs(decayed[name] - plain[name]).max() > 1e-7)
        assert changed == (name not in vectors), name
        if changed:
            assert abs(decayed[name] - everywhere[name]).max() < 1e-7
