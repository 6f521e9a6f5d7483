"""A stack taken up from a checkpoint ends with the bits of one that was never disturbed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from ensemble import signals
from ensemble.config import Experiment
from ensemble.errors import StorageError
from ensemble.events import EpochFinished, Notice
from ensemble.training import Trainer, stack_run
from ensemble.training.checkpoint import fits, outdated
from ensemble.types import Checkpoint, MemberSpec, Stopped, Task
from tests.training.helpers import experiment, results, specs

CNN = {"name": "cnn", "widths": (4,), "batch_norm": True, "dropout": 0.3, "fully_connected": (8,)}
MOVES = {"rotation_degrees": 10.0, "shift": 0.1}
RECIPES: dict[str, dict[str, Any]] = {
    "everything": {"augmentation": MOVES, "ema_decay": 0.9, "keep": "best_validation", "gradient_clip_norm": 1.0},
    "photographs": {"augmentation": {"randaugment_operations": 2, "blur_probability": 0.5, "shift": 0.1}},
    "accumulated": {"batch_size": 16, "accumulation": 2, "ema_decay": 0.9, "augmentation": {"mixup_alpha": 0.4}},
    "plateau": {"schedule": {"name": "plateau", "patience": 0, "gamma": 0.5, "threshold": 0.5}, "epochs": 3},
    "one_cycle": {"schedule": "one_cycle", "keep": "best_validation_error"},
    **{name: {"optimizer": name} for name in ("adamw", "adamax", "adadelta", "adagrad", "rmsprop")},
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
}


@pytest.fixture(autouse=True)
def _as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_run, "_CAPTURES_APART", 0)


def with_checkpoints(every_s: float = 1e-9, **training: Any) -> Experiment:
    config = experiment(CNN, **training)
    return config.model_copy(update={"compute": config.compute.model_copy(update={"checkpoint_every_s": every_s})})


def run(config: Experiment, task: Task, arrays: dict[str, Any]) -> list[Any]:
    return list(Trainer.create(config, "cpu", 10)(task, arrays))


def stack(indices: list[int]) -> Task:
    members = tuple(MemberSpec(m.index, "cnn", m.rows, vote_rows=m.vote_rows) for m in specs(indices))
    return Task("cnn-0000", "cnn", members)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_goes_on_to_the_bit(recipe: str, arrays: dict[str, Any]) -> None:
    config = with_checkpoints(**RECIPES[recipe])
    whole = run(config, stack([0, 3]), arrays)
    checkpoints = [item for item in whole if isinstance(item, Checkpoint)]
    steps = config.training.epochs * 9  # 260 rows in batches of 32
    assert len(checkpoints) == steps
    for chosen in (steps // 2 - 2, steps - 1):  # in the middle of an epoch, after the last step of all
        again = run(config, replace(stack([0, 3]), checkpoint=checkpoints[chosen].content), arrays)
        assert len([item for item in again if isinstance(item, Checkpoint)]) == steps - 1 - chosen
        for index, expected in results(whole).items():
            found = results(again)[index]
            assert found.votes.test_NK.tobytes() == expected.votes.test_NK.tobytes()
            assert found.votes.rows_RK.tobytes() == expected.votes.rows_RK.tobytes()
            assert {k: v.tobytes() for k, v in found.weights.items()} == {
                k: v.tobytes() for k, v in expected.weights.items()
            }
            timeless = [[replace(r, seconds=0.0) for r in member.history] for member in (found, expected)]
            assert timeless[0] == timeless[1]
            assert found.kept_epoch == expected.kept_epoch


def test_only_what_is_missing_is_trained_again(arrays: dict[str, Any]) -> None:
    config = with_checkpoints(epochs=3)
    checkpoint = next(
        c for c in run(config, stack([0]), arrays) if isinstance(c, Checkpoint) and (c.epoch, c.step) == (1, 4)
    )
    again = run(config, replace(stack([0]), checkpoint=checkpoint.content), arrays)
    assert [item.epoch for item in again if isinstance(item, EpochFinished)] == [2, 3]
    assert len([c for c in again if isinstance(c, Checkpoint) and c.epoch == 1]) == 5  # of nine steps


@pytest.mark.parametrize("after", [0, 4, 8, 9, 17, 26])
def test_a_stop_costs_one_step_and_no_bit(after: int, arrays: dict[str, Any]) -> None:
    """Asked to stop after any of its 27 steps, also the last of an epoch and the very last, a stack hands in its state at once."""
    config = with_checkpoints(3600.0, epochs=3)
    whole = run(config, stack([0, 3]), arrays)
    assert not [item for item in whole if isinstance(item, Checkpoint)]
    trained, items = Trainer.create(config, "cpu", 10)(stack([0, 3]), arrays), []
    real, taken = stack_run.StackRun._take_step, []

    def counted(self: stack_run.StackRun, largest: float) -> None:
        real(self, largest)
        taken.append(None)
        if len(taken) == after + 1:
            signals.ask()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stack_run.StackRun, "_take_step", counted)
        try:
            items = list(trained)
        finally:
            signals.clear()
    checkpoint, last = items[-2:]
    assert isinstance(last, Stopped)
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.epoch * 9 + checkpoint.step == after + 1 == len(taken)
    again = run(config, replace(stack([0, 3]), checkpoint=checkpoint.content), arrays)
    for index, expected in results(whole).items():
        found = results(again)[index]
        assert found.votes.test_NK.tobytes() == expected.votes.test_NK.tobytes()
        assert {k: v.tobytes() for k, v in found.weights.items()} == {
            k: v.tobytes() for k, v in expected.weights.items()
        }


def test_without_checkpoints_a_stop_ends_the_task_all_the_same(arrays: dict[str, Any]) -> None:
    signals.ask()
    try:
        items = run(with_checkpoints(0.0), stack([0]), arrays)
    finally:
        signals.clear()
    assert isinstance(items[-1], Stopped)
    assert not [item for item in items if isinstance(item, Checkpoint | EpochFinished)]


def test_a_diverged_member_stays_failed(arrays: dict[str, Any]) -> None:
    config = with_checkpoints(optimizer="sgd", lr=1e30, epochs=3)
    items = run(config, stack([0]), arrays)
    first = [c for c in items if isinstance(c, Checkpoint)]
    assert {c.epoch for c in first} == {0}  # all are dead after the first epoch
    again = run(config, replace(stack([0]), checkpoint=first[-1].content), arrays)
    assert [type(item).__name__ for item in again if not isinstance(item, Checkpoint)] == [
        type(item).__name__ for item in items if not isinstance(item, Checkpoint)
    ]


def test_no_checkpoints_when_none_are_wanted(arrays: dict[str, Any]) -> None:
    assert not [c for c in run(with_checkpoints(0.0), stack([0]), arrays) if isinstance(c, Checkpoint)]


def test_the_state_of_other_members_is_refused(arrays: dict[str, Any]) -> None:
    config = with_checkpoints()
    checkpoint = next(c for c in run(config, stack([0, 1]), arrays) if isinstance(c, Checkpoint))
    assert fits(checkpoint.content, stack([0, 1]))
    assert not fits(checkpoint.content, stack([1]))
    assert not fits(None, stack([1]))
    with pytest.raises(StorageError, match=r"checkpoint is of members \[0, 1\]"):
        run(config, replace(stack([1]), checkpoint=checkpoint.content), arrays)


def test_checkpoints_that_take_long_are_taken_less_often(
    arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most a fiftieth of the time goes into them, however often they are asked for."""
    times: list[float] = []

    def slow(_run: stack_run.StackRun) -> bytes:
        time.sleep(0.02)
        times.append(time.perf_counter())
        return b""

    monkeypatch.setattr(stack_run, "_CAPTURES_APART", 50)
    monkeypatch.setattr(stack_run, "capture", slow)
    for _ in Trainer.create(with_checkpoints(epochs=100_000), "cpu", 10)(stack([0, 3]), arrays):
        if len(times) == 3:
            break
    assert min(np.diff(times)) > 0.9


@pytest.mark.parametrize("recipe", [{"augmentation": MOVES}, {}])
def test_a_checkpoint_of_a_version_with_other_draws_starts_again(
    recipe: dict[str, Any], arrays: dict[str, Any]
) -> None:
    """Its members would go on with augmentations and dropout masks that are not the epoch's own."""
    config = with_checkpoints(**recipe)
    whole = run(config, stack([0]), arrays)
    newer = [item for item in whole if isinstance(item, Checkpoint)][4].content
    tensors = load(newer)
    state = json.loads(bytes(tensors["state"].numpy()))
    assert state.pop("draws") == 3
    tensors["state"] = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)
    again = run(config, replace(stack([0]), checkpoint=save(tensors)), arrays)
    assert any("starts again" in item.message for item in again if isinstance(item, Notice))
    assert results(again)[0].votes.test_NK.tobytes() == results(whole)[0].votes.test_NK.tobytes()
    assert len([item for item in again if isinstance(item, Checkpoint)]) == 18


@pytest.mark.parametrize(("draws", "of_library", "expected"), [
    (None, False, True), (2, False, False), (3, False, False), (None, True, True), (2, True, True), (3, True, False),
])  # fmt: skip
def test_which_versions_drew_otherwise(draws: int | None, of_library: bool, expected: bool) -> None:
    """Stochastic depth of somebody else's network has had draws of its own place since the third."""
    state = json.dumps({} if draws is None else {"draws": draws}).encode()
    assert outdated(save({"state": torch.frombuffer(bytearray(state), dtype=torch.uint8)}), of_library) == expected
