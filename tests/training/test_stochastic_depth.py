"""Stochastic depth: the rule of the paper, the same draws alone and in a stack, after a checkpoint and in graphed steps, none in evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet

from ensemble.config.network import Network
from ensemble.errors import ConfigError
from ensemble.models import build_model
from ensemble.models.stochastic_depth import StochasticDepth, by_image
from ensemble.training import Trainer
from ensemble.training.cuda_graph import GraphedStep
from ensemble.training.job import Job
from ensemble.training.layers import BatchPlace, StackedStochasticDepth
from ensemble.training.placement import Placement
from ensemble.training.stack import Stack, build_seeded
from ensemble.training.stack_run import StackRun
from ensemble.training.trial import draws_itself
from ensemble.types import Checkpoint, EpochRecord, Task
from tests.training.helpers import experiment, results, specs, train

MODEL = {"name": "resnet18", "stem": "small", "stochastic_depth": 0.6}
SMALL, SHAPE = (1, 14, 14), (1, 48, 48)


def section(**changes: Any) -> Network:
    return experiment({**MODEL, **changes}).groups[0].model


@pytest.fixture(scope="module")
def halved(arrays: dict[str, Any]) -> dict[str, Any]:
    """Images of 14x14, and few: a ResNet step in milliseconds."""
    few = {name: arrays[name][:, :, ::2, ::2] for name in ("train_images", "test_images")}
    return {**arrays, **few}


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet50", 16)])
def test_the_chance_grows_in_proportion_to_the_depth(name: str, blocks: int) -> None:
    network = build_model(section(name=name), SMALL, 10)
    shares = [layer.p for layer in network.modules() if isinstance(layer, StochasticDepth)]
    np.testing.assert_allclose(shares, 0.6 * np.arange(1, blocks + 1) / blocks)


@pytest.mark.parametrize("width", [1.0, 0.25])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_in_evaluation_it_is_the_network_without(name: str, width: float) -> None:
    """The same weights under the same names for a seed, and the same answers; so files of weights fit both."""
    plain, dropping = (
        build_seeded(section(name=name, width=width, stochastic_depth=p), SMALL, 10, 3).eval() for p in (0.0, 0.5)
    )
    assert list(plain.state_dict()) == list(dropping.state_dict())
    assert all(map(torch.equal, plain.state_dict().values(), dropping.state_dict().values()))
    x = torch.rand(3, *SMALL)
    with torch.no_grad():
        assert torch.equal(plain(x), dropping(x))


def test_without_it_the_network_is_torchvision_s_as_before() -> None:
    torch.manual_seed(1)
    mine = build_model(section(stem="imagenet", stochastic_depth=0.0), (3, 32, 32), 10)
    torch.manual_seed(1)
    theirs = resnet.resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(theirs.conv1.weight, mode="fan_out", nonlinearity="relu")
    assert [type(layer) for layer in mine.modules()] == [type(layer) for layer in theirs.modules()]
    assert all(map(torch.equal, mine.state_dict().values(), theirs.state_dict().values()))


def layer_of(p: float, members: int) -> StackedStochasticDepth:
    layer = StackedStochasticDepth([StochasticDepth(p)] * members)
    layer.keys_K = torch.arange(5, 5 + members)
    layer.place = BatchPlace(0, 4000)
    return layer


def test_each_image_of_each_member_is_kept_or_left_out_as_a_whole() -> None:
    layer = layer_of(0.3, 2)
    factors_BKC = layer(torch.ones(4000, 6, 2, 2)).view(4000, 2, 12)
    assert bool((factors_BKC == factors_BKC[..., :1]).all()), "all of an image's numbers alike"
    kept_BK = factors_BKC[..., 0] > 0
    np.testing.assert_allclose(kept_BK.float().mean(0).numpy(), 0.7, atol=0.03)
    np.testing.assert_allclose(factors_BKC.max(), 1 / 0.7, rtol=1e-4)
    both = (kept_BK[:, 0] & kept_BK[:, 1]).float().mean()
    np.testing.assert_allclose(both, 0.49, atol=0.03), "members draw for themselves"
    assert torch.equal(layer.eval()(torch.ones(3, 6, 2, 2)), torch.ones(3, 6, 2, 2))


def test_draws_go_by_the_image_s_place_in_the_epoch_whatever_the_batch() -> None:
    whole = layer_of(0.5, 2)(torch.ones(4000, 2, 1, 1))
    part = layer_of(0.5, 2)
    part.place = BatchPlace(torch.tensor([1000]), 50, slice(10, 30))
    assert torch.equal(part(torch.ones(20, 2, 1, 1)), whole[1010:1030])
    alone = layer_of(0.5, 1)
    alone.keys_K = torch.tensor([6])
    assert torch.equal(alone(torch.ones(4000, 1, 1, 1)), whole[:, 1:])
    part.place = BatchPlace(0, 3, slice(3, 3))
    assert part(torch.ones(0, 2, 1, 1)).shape == (0, 2, 1, 1), "a rank may hold no row of a batch"


def test_members_of_a_stack_are_what_they_are_alone() -> None:
    """Outputs and gradients in float64, where nothing is rounded that the rest of the network could amplify."""
    x, keys = torch.rand(6, *SMALL, dtype=torch.float64), torch.tensor([11, 12, 13])

    def passed(seeds: list[int]) -> tuple[torch.Tensor, Stack]:
        stack = Stack.build(section(), SMALL, 10, seeds).double().train()
        stack.seed_dropout(keys[seeds])
        stack.place_dropout(BatchPlace(40, 6))
        logits_BKC = stack(x)
        logits_BKC.square().sum().backward()
        return logits_BKC, stack

    together_BKC, stack = passed([0, 1, 2])
    wide = dict(stack.named_parameters())
    for k in (0, 2):
        alone_BKC, alone = passed([k])
        torch.testing.assert_close(together_BKC[:, k], alone_BKC[:, 0], rtol=1e-8, atol=1e-9)
        for name, parameter in alone.named_parameters():
            theirs = wide[name].grad
            assert theirs is not None
            torch.testing.assert_close(theirs.reshape(3, -1)[k], parameter.grad.flatten(), rtol=1e-6, atol=1e-7)
    without = Stack.build(section(stochastic_depth=0.0), SMALL, 10, [0, 1, 2]).double().train()
    assert float((without(x) - together_BKC).detach().abs().max()) > 0.1


def test_members_train_as_one_network(halved: dict[str, Any]) -> None:
    config = experiment(MODEL, optimizer="sgd", lr=0.01, epochs=1, batch_size=65)
    assert results(train(config, specs([0, 1], rows=65), halved))[0].stack_size == 2


def test_a_checkpoint_goes_on_with_the_same_bits(halved: dict[str, Any]) -> None:
    config = experiment(MODEL, optimizer="sgd", lr=0.01, epochs=1, batch_size=65)
    eager = config.model_copy(update={"compute": config.compute.model_copy(update={"checkpoint_every_s": 1e-3})})
    items = train(eager, specs([0, 1], rows=130), halved)
    whole, kept = results(items), [item for item in items if isinstance(item, Checkpoint)]
    halfway = next(item for item in kept if item.step == 1)
    members = tuple(replace(member, recipe="resnet18") for member in specs([0, 1], rows=130))
    task = Task("task", "resnet18", members, halfway.content)
    again = results(list(Trainer.create(config, "cpu", 10)(task, halved)))
    for index in (0, 1):
        for name, tensor in whole[index].weights.items():
            np.testing.assert_array_equal(again[index].weights[name], tensor)


def test_graphed_steps_take_the_draws_of_plain_ones(halved: dict[str, Any]) -> None:
    """A CUDA graph's step reads the place of its batch from the device; here it is called as it would be replayed."""

    def trained(graphed: bool) -> tuple[list[torch.Tensor], list[EpochRecord]]:
        config = experiment(MODEL, optimizer="sgd", lr=0.01, epochs=3, batch_size=65)
        job = Job(config.seed, config.groups[0], config.compute, 10)
        members = tuple(replace(member, recipe="resnet18") for member in specs([0, 1], rows=130))
        run = StackRun(Task("t", "resnet18", members), job, halved, Placement.create(config.compute))
        if graphed:
            run.use_graph(GraphedStep(run.step_on_device, run.tensors, lambda step: step))
        found = [item for epoch in range(3) for item in run.train_epoch(epoch)]
        records = [replace(item[1], seconds=0.0, lr=0.0) for item in found if isinstance(item, tuple)]
        return [tensor.clone() for tensor in run.stack.state_dict().values()], records

    (mine, of_mine), (plain, of_plain) = trained(True), trained(False)
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose([r.train_loss for r in of_mine], [r.train_loss for r in of_plain], rtol=1e-3)


def test_a_stack_has_its_layers_among_those_that_draw() -> None:
    stack = Stack.build(section(), SMALL, 10, [0, 1])
    assert [type(layer) for layer in stack.dropout] == [StackedStochasticDepth] * 8
    assert len(Stack.build(section(stochastic_depth=0.0), SMALL, 10, [0, 1]).dropout) == 0


@pytest.mark.parametrize("value", [1.0, -0.1])
def test_shares_that_leave_nothing_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"model\.stochastic_depth"):
        section(stochastic_depth=value)


def _of_libraries() -> list[tuple[nn.Module, float | None]]:
    from timm.layers import DropPath
    from torchvision.ops import StochasticDepth as OfTorchvision

    return [
        (StochasticDepth(0.25), 0.25), (OfTorchvision(0.25, "row"), 0.25), (DropPath(0.25), 0.25), (DropPath(0.0), 0.0),
        (OfTorchvision(0.25, "batch"), None),  # one draw for the whole batch
        (DropPath(0.25, scale_by_keep=False), None),  # another function
        (OfTorchvision(1.0, "row"), None), (nn.Dropout(0.25), None), (nn.Identity(), None),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(9))
def test_layers_of_libraries_that_do_the_same_are_known(number: int) -> None:
    layer, p = _of_libraries()[number]
    found = by_image(layer)
    assert (None if found is None else found.p) == p
    if found is None or p == 0:
        return
    # The same distribution: whole images are left out, the others are scaled; in evaluation nothing happens.
    images = torch.ones(4000, 3, 2, 2)
    for one in (layer, found):
        one.train()
        factors = one(images)
        assert set(factors.flatten(1).std(1).tolist()) == {0.0}
        kept = factors[:, 0, 0, 0]
        torch.testing.assert_close(kept[kept > 0].unique(), torch.tensor([1 / (1 - 0.25)]))
        assert abs(float((kept > 0).float().mean()) - 0.75) < 0.04
        torch.testing.assert_close(one.eval()(images), images)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_members_of_such_networks_draw_as_alone(library: str, arrays: dict[str, Any]) -> None:
    """By member, epoch and image: a member in a stack has the draws that it has alone, and a run can be repeated."""
    architecture = {"torchvision": "efficientnet_b0", "timm": "efficientnet_lite0"}[library]
    args = {} if library == "torchvision" else {"drop_path_rate": 0.3}
    model = experiment({"name": library, "architecture": architecture, "args": args}).groups[0].model
    assert not draws_itself(model, SHAPE, 10)
    images = torch.rand(2, *SHAPE)

    def answers(members: list[int]) -> torch.Tensor:
        stack = Stack.build(model, SHAPE, 10, members).train()
        assert sum(isinstance(layer, StackedStochasticDepth) for layer in stack.dropout) > 3
        stack.seed_dropout(torch.tensor([100 + member for member in members]))
        stack.place_dropout(BatchPlace(8, 2))
        return stack(images).detach()

    if library == "torchvision":
        torch.testing.assert_close(answers([1, 2])[:, 1], answers([2])[:, 0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(answers([2]), answers([2]), rtol=0, atol=0)
    assert not torch.equal(answers([2]), answers([3]))
