"""Rates against torch's own schedulers; clipping and per-member rates against members trained alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from ensemble.config.recipe import (
    CosineConfig,
    ExponentialConfig,
    OneCycleConfig,
    PlateauConfig,
    StepConfig,
)
from ensemble.training.optimizers import MemberRates, clip_gradients
from ensemble.training.schedules import Plateau, factor
from ensemble.training.stack import Stack
from tests.training.helpers import experiment, results, train

STEPS, EPOCHS = 7, 9


def reference(make: Any, per_batch: bool) -> list[float]:
    """The rates a torch scheduler gives to every batch, for a base rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(EPOCHS):
        for _ in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if per_batch and len(rates) < STEPS * EPOCHS:
                scheduler.step()
        if not per_batch:
            scheduler.step()
    return rates


CASES: list[tuple[Any, Any, bool]] = [
    (StepConfig(name="step", every=2, gamma=0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5), False),
    (ExponentialConfig(name="exponential", gamma=0.9), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9), False),
    (
        CosineConfig(name="cosine", final_fraction=0.1),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS * EPOCHS, eta_min=0.1),
        True,
    ),
    (
        OneCycleConfig(name="one_cycle", warmup_fraction=0.25, start_divisor=20, final_divisor=1000),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 1.0, total_steps=STEPS * EPOCHS, pct_start=0.25, div_factor=20, final_div_factor=1000
        ),
        True,
    ),
]


@pytest.mark.parametrize(("schedule", "make", "per_batch"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_rates_are_those_of_torch(schedule: Any, make: Any, per_batch: bool) -> None:
    ours = [factor(schedule, step, STEPS, STEPS * EPOCHS) for step in range(STEPS * EPOCHS)]
    np.testing.assert_allclose(ours, reference(make, per_batch), rtol=1e-9)


def test_warm_up_rises_then_falls() -> None:
    schedule = CosineConfig(name="cosine", warmup_fraction=0.3)
    rates = [factor(schedule, step, 10, 100) for step in range(100)]
    assert rates[:30] == sorted(rates[:30])
    assert rates[31:] == sorted(rates[31:], reverse=True)
    assert max(rates) <= 1.0
    assert rates[99] < 0.01


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_shortest_trainings_have_finite_rates(epochs: int) -> None:
    for schedule, _, _ in CASES:
        assert all(0 <= factor(schedule, step, 1, epochs) <= 1 for step in range(epochs))


def test_plateau_follows_torch_per_member() -> None:
    losses = np.random.default_rng(0).random((40, 3)).cumsum(0) * 0.01 + 1 / np.arange(1, 41)[:, None]
    ours = Plateau(PlateauConfig(name="plateau", gamma=0.5, patience=2, threshold=1e-3), 3)
    optimizers = [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(3)]
    theirs = [
        torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=2, threshold=1e-3, eps=0) for o in optimizers
    ]
    for row in losses:
        ours.update(row.tolist())
        for scheduler, loss in zip(theirs, row.tolist(), strict=True):
            scheduler.step(loss)
        assert ours.factors == pytest.approx([o.param_groups[0]["lr"] for o in optimizers])


def stack_of(seeds: list[int]) -> Stack:
    config = experiment({"name": "mlp", "widths": (8,)}).groups[0].model
    return Stack.build(config, (1, 4, 4), 3, seeds)


def test_clipping_is_torchs_member_by_member() -> None:
    stack = stack_of([0, 1, 2])
    images, scales = torch.rand(6, 3, 4, 4), torch.tensor([100.0, 1e-4, 3.0])
    (stack(images).square().sum((0, 2)) * scales).sum().backward()
    clip_gradients(stack, 0.7)
    for k, scale in enumerate(scales.tolist()):
        alone = stack_of([k])
        (alone(images[:, k : k + 1]).square().sum() * scale).backward()
        torch.nn.utils.clip_grad_norm_(alone.parameters(), 0.7)
        for together, single in zip(stack.parameters(), alone.parameters(), strict=True):
            assert together.grad is not None
            assert single.grad is not None
            torch.testing.assert_close(together.grad[k], single.grad[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adamax", "Adadelta", "Adagrad", "RMSprop"])
def test_rates_that_differ_between_members_are_those_of_members_alone(name: str) -> None:
    options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    rates, images = [0.02, 0.005, 0.01], torch.rand(4, 6, 3, 4, 4)

    def steps(stack: Stack, members: slice, factors: list[float], lr: float) -> None:
        optimizer = getattr(torch.optim, name)(stack.parameters(), lr=lr, weight_decay=0.1, **options)
        scaler = MemberRates(stack)
        optimizer.param_groups[0]["lr"] = lr * scaler.set(factors)
        for batch in images:
            optimizer.zero_grad()
            stack(batch[:, members]).square().sum().backward()
            scaler.before_step()
            optimizer.step()
            scaler.after_step()

    together = stack_of([0, 1, 2])
    steps(together, slice(0, 3), [rate / 0.02 for rate in rates], 0.02)
    for k, rate in enumerate(rates):
        alone = stack_of([k])
        steps(alone, slice(k, k + 1), [1.0], rate)
        for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours[k], theirs[0], rtol=1e-4, atol=1e-6)


def test_sample_weights_act_as_repetitions(arrays: dict[str, Any]) -> None:
    """With whole-set batches, weight 2 on a row is the row twice (the mean weight is kept at 1)."""
    from ensemble.types import MemberSpec

    config = experiment({"name": "mlp", "widths": (8,)}, optimizer="sgd", lr=0.1, batch_size=512, epochs=3)
    rows = np.arange(100)
    weights = np.where(rows < 50, 2.0, 1.0).astype(np.float32)
    weighted = MemberSpec(0, "mlp", rows, (weights / weights.mean()).astype(np.float32))
    repeated = MemberSpec(0, "mlp", np.concatenate([rows, rows[:50]]))
    first, second = (results(train(config, (spec,), arrays))[0].weights for spec in (weighted, repeated))
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=2e-6)


def test_training_does_not_import_torchs_compiler() -> None:
    """It takes five seconds in every worker process, and nothing is compiled."""
    code = (
        "import sys, torch\n"
        "from ensemble.config.recipe import TrainingConfig\n"
        "from ensemble.models.mlp import MlpConfig\n"
        "from ensemble.training.optimizers import build_optimizer\n"
        "from ensemble.training.stack import Stack\n"
        "stack = Stack.build(MlpConfig(name='mlp'), (1, 4, 4), 3, [0, 1])\n"
        "for name in ('sgd', 'adam', 'adamw', 'adamax', 'adadelta', 'adagrad', 'rmsprop'):\n"
        "    optimizer = build_optimizer(TrainingConfig(optimizer=name), stack)\n"
        "    before = [p.detach().clone() for p in stack.parameters()]\n"
        "    stack(torch.rand(2, 2, 4, 4)).square().sum().backward()\n"
        "    optimizer.step(); optimizer.zero_grad()\n"
        "    assert any((p != b).any() for p, b in zip(stack.parameters(), before)), name\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
