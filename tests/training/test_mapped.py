"""Networks whose layers have no K-fold form, as one by torch.func: each member is what it is alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble.config import Experiment, parse_experiment
from ensemble.errors import StorageError
from ensemble.events import Notice
from ensemble.training import Trainer, mapped
from ensemble.training.stack import Stack
from ensemble.training.suitability import largest_stack
from ensemble.training.trial import build_stack, maps, obstacles
from ensemble.types import Checkpoint, Task
from tests.training.helpers import arrays as arrays
from tests.training.helpers import results, specs, train
from tests.training.test_trial import NETWORKS, SHAPE, section

# Of the networks that layers with a K-fold form cannot make, those that torch.func cannot compute as one either.
APART = {
    "functional style", "functional dropout", "dropout of channels",  # they draw by themselves
    "batch norm with cumulative averages", "old weight norm", "a forward put on",
}  # fmt: skip
WITHOUT_TWINS = [kind for kind, (_, reason) in NETWORKS.items() if reason]
MORE = """
class Block(nn.Module):
    def __init__(self, width, p, depth):
        super().__init__()
        self.one, self.other, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(2 * width)
        self.mix, self.drop = nn.Conv2d(2 * width, width, 1), nn.Dropout(p)
        self.depth = depth
    def forward(self, x):
        joined = torch.cat([self.one(x), self.other(x)], 1)
        return x + self.depth(self.drop(self.mix(self.norm(joined).relu())))

class Branches(nn.Module):
    def __init__(self, c, k, p=0.0, q=0.0):
        from torchvision.ops import StochasticDepth
        super().__init__()
        self.stem = nn.Conv2d(c, 6, 5, stride=3)
        self.blocks = nn.ModuleList([Block(6, p, StochasticDepth(q, "row")) for _ in range(2)])
        self.place, self.attend = nn.Parameter(torch.randn(81, 6) * 0.02), nn.MultiheadAttention(6, 2, batch_first=True)
        self.after, self.head = nn.LayerNorm(6), nn.Linear(6, k)
    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        tokens = F.max_pool2d(x, 1).flatten(2)[..., :81].transpose(1, 2)
        tokens = tokens + self.place[: tokens.shape[1]]
        tokens = tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]
        return self.head(self.after(tokens).mean(1))
"""
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.05},
    "averaged": {"ema_decay": 0.5, "keep": "best_validation"},
    "clipped": {"gradient_clip_norm": 0.1, "optimizer": "sgd", "lr": 0.05},
    "plateau": {"optimizer": "sgd", "lr": 0.05, "schedule": {"name": "plateau", "patience": 0, "threshold": 0.9}},
    "augmented": {"augmentation": {"shift": 0.1, "mixup_alpha": 0.2}},
    "spared": {"weight_decay": 0.1, "weight_decay_on": "weights", "optimizer": "adamw"},
    "accumulated": {"batch_size": 16, "accumulation": 2},
}


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed as one on a CPU too, where that does not pay."""
    monkeypatch.setattr(mapped, "DEVICES", ("cuda", "cpu"))


@pytest.mark.parametrize("kind", WITHOUT_TWINS)
def test_it_is_done_where_two_give_what_each_gives_alone(kind: str, tmp_path: Path) -> None:
    model = section(NETWORKS[kind][0], tmp_path).groups[0].model
    assert maps(model, SHAPE, 10) == (kind not in APART)
    assert largest_stack(model, SHAPE, 10, 4) == 1
    assert largest_stack(model, SHAPE, 10, 4, "cuda") == (4 if maps(model, SHAPE, 10) else 1)
    if not maps(model, SHAPE, 10):
        return
    stack = build_stack(model, SHAPE, 10, [5, 6, 7])
    assert stack.mapped is not None
    images = torch.rand(3, *SHAPE)
    for mode in (True, False):
        stack.train(mode)
        for member, seed in enumerate([5, 6, 7]):
            alone = Stack.build(model, SHAPE, 10, [seed]).train(mode)
            for name, tensor in alone.member_state(0).items():
                if mode:  # before anything was computed
                    torch.testing.assert_close(stack.member_state(member)[name], tensor, rtol=0, atol=0)
            assert stack.member_state(member).keys() == alone.member_state(0).keys()
            assert stack.parameters_per_member == alone.parameters_per_member
        if not mode and not stack.dropout:
            for member, seed in enumerate([5, 6, 7]):
                alone = Stack.build(model, SHAPE, 10, [seed]).eval()
                expected = alone(images)[:, 0]
                torch.testing.assert_close(stack(images)[:, member], expected, rtol=1e-4, atol=1e-5)
                own = images.expand(3, *images.shape)
                torch.testing.assert_close(stack(own)[:, member], expected, rtol=1e-4, atol=1e-5)


def branches(folder: Path, p: float, q: float = 0.0, **training: Any) -> Experiment:
    section(f"Branches(c, k, {p}, {q})", folder, MORE)
    return parse_experiment({
        "name": "t", "num_members": 4, "method": {"name": "deep_ensemble"}, "model": {"name": "python", "path": "own.py:make"},
        "training": {"epochs": 2, "batch_size": 32, **training}, "compute": {"device": "cpu", "checkpoint_every_s": 1e-3},
    }, folder=folder)  # fmt: skip


@pytest.mark.parametrize("recipe", [*RECIPES, "dropout", "stochastic depth"])
def test_members_train_as_alone(recipe: str, tmp_path: Path, arrays: dict[str, Any], everywhere: None) -> None:
    """Weights, votes and histories to rounding; draws are those of the member alone."""
    drawn = {"dropout": (0.4, 0.0), "stochastic depth": (0.0, 0.4)}.get(recipe, (0.0, 0.0))
    config = branches(tmp_path, *drawn, **RECIPES.get(recipe, RECIPES["sgd"]))
    assert obstacles(config.groups[0].model, SHAPE, 10)
    name = config.groups[0].name
    items = train(config, specs([0, 1, 2], recipe=name), arrays)
    assert any("as one network by torch.func" in item.message for item in items if isinstance(item, Notice))
    together = results(items)
    assert {member.stack_size for member in together.values()} == {3}
    for index, member in together.items():
        alone = results(train(config, specs([index], recipe=name), arrays))[index]
        assert member.weights.keys() == alone.weights.keys()
        for key, array in alone.weights.items():
            np.testing.assert_allclose(member.weights[key], array, rtol=2e-2, atol=2e-3, err_msg=key)
        np.testing.assert_allclose(member.votes.test_NK, alone.votes.test_NK, atol=2e-3)
        losses = [[record.train_loss for record in one.history] for one in (member, alone)]
        np.testing.assert_allclose(*losses, rtol=1e-3)
        assert member.kept_epoch == alone.kept_epoch
        assert member.num_parameters == alone.num_parameters


def test_it_goes_on_from_a_checkpoint_to_the_bit(tmp_path: Path, arrays: dict[str, Any], everywhere: None) -> None:
    config = branches(tmp_path, 0.3, 0.2, ema_decay=0.9, epochs=3)
    members = specs([0, 1], recipe=config.groups[0].name)
    trainer = Trainer.create(config, "cpu", 10)
    task = Task("task", config.groups[0].name, members)
    whole = list(trainer(task, arrays))
    states = [item for item in whole if isinstance(item, Checkpoint)]
    assert states
    expected = results(whole)
    again = results(list(trainer(replace(task, checkpoint=states[len(states) // 2].content), arrays)))
    for index, member in expected.items():
        for key, array in member.weights.items():
            np.testing.assert_array_equal(again[index].weights[key], array, err_msg=key)
        np.testing.assert_array_equal(again[index].votes.test_NK, member.votes.test_NK)


def test_frozen_layers_stay_and_their_statistics_too(tmp_path: Path, arrays: dict[str, Any], everywhere: None) -> None:
    config = branches(tmp_path, 0.0)
    stack = build_stack(config.groups[0].model, SHAPE, 10, [0, 1])
    before = {name: tensor.clone() for name, tensor in stack.member_state(1).items()}
    names = [name for name in before if name.startswith("blocks.0.")]
    stack.freeze(names)
    stack.train()
    stack(torch.rand(4, *SHAPE)).square().sum().backward()
    for name, parameter in stack.network.named_parameters():
        assert (parameter.grad is None) == (name in names), name
    changed = {name for name, tensor in stack.member_state(1).items() if not torch.equal(tensor, before[name])}
    assert changed == {"blocks.1.norm.running_mean", "blocks.1.norm.running_var"}


def test_ranks_that_share_batches_and_single_members_do_without(tmp_path: Path) -> None:
    model = branches(tmp_path, 0.0).groups[0].model
    assert build_stack(model, SHAPE, 10, [0]).mapped is None
    assert largest_stack(model, SHAPE, 10, 1, "cuda") == 1


def test_a_task_whose_members_were_trained_one_by_one_starts_again(
    tmp_path: Path, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an earlier version, or on another device; what is of other members altogether stays an error."""
    config = branches(tmp_path, 0.0)
    trainer, name = Trainer.create(config, "cpu", 10), config.groups[0].name
    task = Task("task", name, specs([0, 1], recipe=name))
    state = next(item for item in trainer(task, arrays) if isinstance(item, Checkpoint))
    monkeypatch.setattr(mapped, "DEVICES", ("cpu",))
    expected = results(list(trainer(task, arrays)))
    items = list(trainer(replace(task, checkpoint=state.content), arrays))
    assert any("were trained one by one before" in item.message for item in items if isinstance(item, Notice))
    for index, member in results(items).items():
        np.testing.assert_array_equal(member.votes.test_NK, expected[index].votes.test_NK)
    others = Task("task", name, specs([2, 3], recipe=name), state.content)
    with pytest.raises(StorageError, match="of members"):
        list(trainer(others, arrays))
