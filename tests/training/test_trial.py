"""Networks of other people's habits: each is right alone, and right in a stack or told why it is in none."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ensemble.config import parse_experiment
from ensemble.errors import ConfigError
from ensemble.models import build_model
from ensemble.outside.own_code import EndsProgramError, staying
from ensemble.seeding import Purpose, member_seed
from ensemble.training import batch_last, check_network, mapped
from ensemble.training.layers import pool_before_bias
from ensemble.training.stack import Stack
from ensemble.training.trial import draws_itself, maps, obstacles
from tests.training.helpers import results, specs, train

HEAD = "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\n"
SHAPE = (1, 28, 28)
# What make() builds: body, and a part of the reason why it cannot be stacked ("" where it can).
NETWORKS: dict[str, tuple[str, str]] = {
    "a plain chain": ("nn.Sequential(nn.Conv2d(c, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(2704, k))", ""),
    "circular padding": ("nn.Sequential(nn.Conv2d(c, 4, 3, padding=1, padding_mode='circular'), nn.Flatten(), nn.Linear(3136, k))", "0 (Conv2d with padding_mode circular)"),
    "batch norm without weights": ("nn.Sequential(nn.Conv2d(c, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(2704, k))", "1 (BatchNorm2d without weights)"),
    "batch norm without statistics": ("nn.Sequential(nn.Conv2d(c, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(2704, k))", "1 (BatchNorm2d without running statistics)"),
    "batch norm with cumulative averages": ("nn.Sequential(nn.Conv2d(c, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.Flatten(), nn.Linear(2704, k))", "1 (BatchNorm2d with momentum None)"),
    "frozen layer": ("frozen(nn.Sequential(nn.Conv2d(c, 4, 3), nn.Flatten(), nn.Linear(2704, k)))", "0 (Conv2d with frozen weights)"),
    "old weight norm": ("nn.Sequential(nn.Flatten(), normed(nn.Linear(784, k)))", "1 (Linear with hooks)"),
    "new weight norm": ("nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(784, k)))", "ParametrizedLinear"),
    "a shared layer": ("shared(c, k)", ""),
    "tied weights": ("tied(c, k)", "with weights of another layer"),
    "a linear layer over the rows": ("nn.Sequential(nn.Flatten(1, 2), nn.Linear(28, 3), nn.Flatten(), nn.Linear(84, k))", "0 (Flatten of axes 1 to 2)"),
    "a linear layer over pixels": ("nn.Sequential(nn.Linear(28, 3), nn.Flatten(), nn.Linear(84, k))", "the network as two"),
    "group norm": ("nn.Sequential(nn.Conv2d(c, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(2704, k))", "1 (GroupNorm)"),
    "functional style": ("Functional(c, k)", "the network itself (Functional)"),
    "functional style with plain layers": ("Plain(c, k)", ""),
    "functional dropout": ("Plain(c, k, 0.3)", "draws random numbers by itself"),
    "branches that are joined": ("Joined(c, k)", "the network as two"),
    "a mean over channels": ("Means(c, k)", "the network as two"),
    "residual blocks": ("Residual(c, k)", ""),
    "squeeze and excitation": ("Squeezed(c, k)", ""),
    "weights that are read": ("Reading(c, k)", "the network as two"),
    "attention": ("Attention(k)", "the network itself (Attention)"),
    "lazy layers": ("lazy(c, k)", ""),
    "dropout of channels": ("nn.Sequential(nn.Conv2d(c, 4, 3), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(2704, k))", "1 (Dropout2d)"),
    "a dropout in two places": ("twice(c, k)", ""),
    "pooling with its places": ("Places(c, k)", "pool (MaxPool2d with return_indices)"),
    "a changed activation": ("nn.Sequential(nn.Flatten(), Mean(), nn.Linear(784, k))", "1 (Mean)"),
    "a forward put on": ("put_on(nn.Sequential(nn.Flatten(), nn.Linear(784, k)))", "with a forward of its own"),
}  # fmt: skip
HELPERS = """
def frozen(net):
    net[0].requires_grad_(False)
    return net

def normed(layer):
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(layer)

def shared(c, k):
    layer = nn.Linear(784, 784)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.Linear(784, k))

def tied(c, k):
    first, second = nn.Linear(784, 784), nn.Linear(784, 784)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.Linear(784, k))

def twice(c, k):
    dropout = nn.Dropout(0.5)
    return nn.Sequential(nn.Flatten(), dropout, nn.Linear(784, 784), dropout, nn.Linear(784, k))

def lazy(c, k):
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(k))
    net(torch.zeros(1, c, 28, 28))
    return net

class Functional(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.first, self.last = nn.Conv2d(c, 4, 3), nn.Linear(676, k)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.seen += 1
        x = F.dropout(F.max_pool2d(F.relu(self.first(x) * self.scale), 2), 0.3, self.training)
        return self.last(x.flatten(1))

class Plain(nn.Module):
    def __init__(self, c, k, p=0.0):
        super().__init__()
        self.first, self.norm, self.last, self.p = nn.Conv2d(c, 4, 3), nn.BatchNorm2d(4), nn.Linear(676, k), p

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        return self.last(F.dropout(torch.flatten(x, 1), self.p, self.training))

class Joined(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.one, self.other, self.last = nn.Conv2d(c, 2, 3), nn.Conv2d(c, 3, 3), nn.Linear(3380, k)

    def forward(self, x):
        return self.last(torch.cat([self.one(x), self.other(x)], 1).flatten(1))

class Means(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.first, self.last = nn.Conv2d(c, 4, 3), nn.Linear(2704, k)

    def forward(self, x):
        x = self.first(x)
        return self.last((x - x.mean(1, keepdim=True)).flatten(1))

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, x):
        return x + self.body(x)

class Residual(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(c, 4, 3, stride=2), nn.ModuleList([Block(4), Block(4)])
        self.last = nn.Linear(4, k)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.last(F.adaptive_avg_pool2d(x, 1).flatten(1))

class Squeezed(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(c, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(2704, k)

    def forward(self, x):
        x = self.first(x)
        return self.last((x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))).flatten(1))

class Reading(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.first, self.last = nn.Linear(784, 16), nn.Linear(16, k)

    def forward(self, x):
        x = F.linear(x.flatten(1), self.first.weight, self.first.bias)
        return F.linear(F.normalize(x), F.normalize(self.last.weight))

class Attention(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.places = nn.Parameter(torch.randn(28, 28) * 0.02)
        self.mixing = nn.MultiheadAttention(28, 2, batch_first=True)
        self.first, self.last = nn.Linear(28, 28), nn.Linear(28, k)

    def forward(self, x):
        x = self.first(x[:, 0]) + self.places
        return self.last((x + self.mixing(x, x, x, need_weights=False)[0]).mean(1))

class Places(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.pool, self.last = nn.MaxPool2d(2, return_indices=True), nn.Linear(196, k)

    def forward(self, x):
        values, places = self.pool(x)
        return self.last(values.flatten(1))

class Mean(nn.ReLU):
    def forward(self, x):
        return x - x.mean(1, keepdim=True)

def put_on(net):
    inner = net.forward
    net.forward = lambda x: -inner(x)
    return net
"""


def section(body: str, folder: Path, more: str = "") -> Any:
    """An experiment with the network that is written to own.py in the folder. more: further definitions in that file."""
    made = f"def make(num_classes, in_channels):\n    k, c = num_classes, in_channels\n    return {body}\n"
    (folder / "own.py").write_text(f"{HEAD}{HELPERS}{more}\n{made}")
    model = {"name": "python", "path": "own.py:make"}
    values = {"name": "t", "num_members": 2, "method": {"name": "deep_ensemble"}, "model": model}
    training, compute = {"epochs": 2, "batch_size": 40, "lr": 0.01}, {"device": "cpu"}
    return parse_experiment({**values, "training": training, "compute": compute}, folder=folder)


def seeded(model: Any, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(model, SHAPE, 10)


@pytest.mark.parametrize("kind", NETWORKS)
def test_alone_it_is_what_was_written(kind: str, tmp_path: Path) -> None:
    """Answers, gradients and names of the weights are those of the module itself, also after a step."""
    model = section(NETWORKS[kind][0], tmp_path).groups[0].model
    plain, stack = seeded(model, 3).eval(), Stack.build(model, SHAPE, 10, [3]).eval()
    images, labels = torch.rand(4, *SHAPE), torch.tensor([1, 2, 3, 4])
    for network in (plain, stack):
        weights = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images).reshape(4, 10), labels).backward()
            optimizer.step()
    torch.testing.assert_close(stack(images)[:, 0], plain(images), rtol=1e-4, atol=1e-5)
    state = plain.state_dict()
    state = {
        name: tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked") or name in stack.member_state(0)
    }
    assert stack.member_state(0).keys() == state.keys()
    for name, tensor in stack.member_state(0).items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_is_stacked_only_where_that_is_right(kind: str, tmp_path: Path) -> None:
    body, reason = NETWORKS[kind]
    model = section(body, tmp_path).groups[0].model
    found = ", ".join(obstacles(model, SHAPE, 10))
    assert (reason in found) if reason else found == "", found
    notes = list(check_network(model, SHAPE, 10, several=True))
    assert any("trained one by one" in note for note in notes) == bool(reason)
    if not reason:
        stack = Stack.build(model, SHAPE, 10, [0, 1]).eval()
        images = torch.rand(3, *SHAPE)
        for member in range(2):
            torch.testing.assert_close(stack(images)[:, member], seeded(model, member).eval()(images))


@pytest.mark.parametrize(
    "kind",
    [
        "frozen layer",
        "tied weights",
        "old weight norm",
        "functional style",
        "dropout of channels",
        "attention",
        "a dropout in two places",
        "functional dropout",
        "weights that are read",
    ],
)
def test_training_keeps_what_was_meant_and_can_be_repeated(kind: str, tmp_path: Path, arrays: dict[str, Any]) -> None:
    experiment = section(NETWORKS[kind][0], tmp_path)
    runs = []
    for seed in (1, 2):  # of the process, which must not matter
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        runs.append(results(train(experiment, specs([0, 1]), arrays)))
        assert torch.equal(torch.random.get_rng_state(), before)
    for member in (0, 1):
        weights, again = (run[member].weights for run in runs)
        assert weights.keys() == again.keys()
        assert all((weights[name] == again[name]).all() for name in weights)
    if kind == "tied weights":
        assert (weights["1.weight"] == weights["3.weight"]).all()
    if kind == "frozen layer":
        start = seeded(experiment.groups[0].model, member_seed(experiment.seed, 1, Purpose.INIT))
        assert (weights["0.weight"] == start[0].weight.detach().numpy()).all()
        assert (weights["2.weight"] != start[2].weight.detach().numpy()).any()


def test_draws_of_its_own_are_seen(tmp_path: Path) -> None:
    assert draws_itself(section(NETWORKS["functional style"][0], tmp_path).groups[0].model, SHAPE, 10)
    assert draws_itself(section(NETWORKS["dropout of channels"][0], tmp_path).groups[0].model, SHAPE, 10)
    assert not draws_itself(section(NETWORKS["a plain chain"][0], tmp_path).groups[0].model, SHAPE, 10)


def test_a_dropout_in_two_places_draws_twice(tmp_path: Path) -> None:
    from ensemble.training.layers import BatchPlace, StackedDropout

    layer = StackedDropout([nn.Dropout(0.5)])
    layer.keys_K, layer.place = torch.tensor([5]), BatchPlace(0, 8)
    ones = torch.ones(8, 64)
    first, second = layer(ones), layer(ones)
    assert not torch.equal(first, second)
    again = copy.deepcopy(layer)
    again.calls = 0
    assert torch.equal(again(ones), first)
    assert torch.equal(again(ones), second)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("nn.Sequential(nn.Flatten(), nn.Linear(784, k), nn.Dropout(1.0) if False else Noise())", "answers the same images differently"),
        ("Counting(k)", "changes its parameters or buffers in eval mode"),
        ("numpy_weights(k)", "built twice with the same seed it has different weights"),
        ("infinite(k)", "numbers that are not finite"),
        ("frozen_all(k)", "no weights to train"),
        ("Several(k)", "expected a tensor of logits"),
        ("Hidden(k)", "draws tensors that its state_dict does not hold"),
        ("InPlace(k)", "no way back from its answer to its weights"),
    ],
)  # fmt: skip
def test_what_training_cannot_rely_on_is_refused(body: str, message: str, tmp_path: Path) -> None:
    more = """
class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)

class Counting(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.last = nn.Linear(784, k)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.last(x.flatten(1))

class Several(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.last = nn.Linear(784, k)

    def forward(self, x):
        y = self.last(x.flatten(1))
        return y, y

class Hidden(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.last, self.turn = nn.Linear(784, k), torch.randn(784, 784)

    def forward(self, x):
        return self.last(x.flatten(1) @ self.turn)

class InPlace(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.first, self.last = nn.Linear(784, 8), nn.Linear(8, k)

    def forward(self, x):
        x = self.first(x.flatten(1)).sigmoid()
        y = self.last(x)
        x += 1
        return y

def numpy_weights(k):
    import numpy
    layer = nn.Linear(784, k)
    layer.weight.data = torch.from_numpy(numpy.random.default_rng().random((k, 784), dtype=numpy.float32))
    return nn.Sequential(nn.Flatten(), layer)

def infinite(k):
    layer = nn.Linear(784, k)
    layer.weight.data.fill_(1e38)
    return nn.Sequential(nn.Flatten(), layer)

def frozen_all(k):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, k)).requires_grad_(False)
"""
    experiment = section(body, tmp_path, more)
    with pytest.raises(ConfigError, match=message):
        list(check_network(experiment.groups[0].model, SHAPE, 10, several=True))


def test_members_that_start_alike_and_idle_weights_are_told(tmp_path: Path) -> None:
    zeroed = "\ndef zeroed(net):\n    nn.init.zeros_(net[1].weight), nn.init.zeros_(net[1].bias)\n    net.unused = nn.Parameter(torch.zeros(3))\n    return net\n"
    body = "zeroed(nn.Sequential(nn.Flatten(), nn.Linear(784, k)).append(nn.Identity()))"
    model = section(body, tmp_path, zeroed).groups[0].model
    notes = " ".join(check_network(model, SHAPE, 10, several=False))
    assert "all members start from the same weights" in notes
    assert "weights without a gradient, which stay as they are: unused" in notes


# Chains of narrow convolutions that are none: the kernels for narrow networks must not take them for such.
NARROW = {
    "a forward of its own": "Doubled(nn.Conv2d(c, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2704, k))",
    "a forward put on": "put_on(nn.Sequential(nn.Conv2d(c, 4, 3), nn.Flatten(), nn.Linear(2704, k)))",
    "a hook": "hooked(nn.Sequential(nn.Conv2d(c, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2704, k)))",
    "a changed activation": "nn.Sequential(nn.Conv2d(c, 4, 3), Mean(), nn.Flatten(), nn.Linear(2704, k))",
    "a changed pooling": "nn.Sequential(nn.Conv2d(c, 4, 3), Lowest(2), nn.Flatten(), nn.Linear(676, k))",
    "a linear layer over columns": "nn.Sequential(nn.Conv2d(c, 26, 3), nn.Linear(26, 3), nn.Flatten(), nn.Linear(2028, k))",
    "frozen": "frozen(nn.Sequential(nn.Conv2d(c, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2704, k)))",
    "inside another forward": "Inside(nn.Sequential(nn.Conv2d(c, 4, 3), nn.MaxPool2d(2), nn.ReLU()), k)",
    "plain": "nn.Sequential(nn.Conv2d(c, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(676, k))",
    "plain, of a class of its own": "Chain(nn.Conv2d(c, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2704, k))",
}
MORE = """
class Doubled(nn.Sequential):
    def forward(self, x):
        return super().forward(2 * x)

class Chain(nn.Sequential):
    pass

class Lowest(nn.MaxPool2d):
    def forward(self, x):
        return -super().forward(-x)

class Inside(nn.Module):
    def __init__(self, body, k):
        super().__init__()
        self.body, self.last = body, nn.Linear(2704 + 676, k)

    def forward(self, x):
        first = self.body[0](x)
        return self.last(torch.cat([first.flatten(1), self.body[2](self.body[1](first)).flatten(1)], 1))

def hooked(net):
    net[1].register_forward_hook(lambda layer, inputs, output: 3 * output)
    return net
"""


@pytest.mark.parametrize("kind", NARROW)
def test_kernels_for_narrow_networks_compute_what_was_written(kind: str, tmp_path: Path) -> None:
    """As training and prediction choose them, and with the pooling moved as it is on a GPU."""
    model = section(NARROW[kind], tmp_path, MORE).groups[0].model
    images = torch.rand(16, *SHAPE)
    expected = seeded(model, 3).eval()(images).detach()
    for members in ([3], [2, 3]) if not obstacles(model, SHAPE, 10) else ([3],):
        stack = Stack.build(model, SHAPE, 10, members).eval()
        stack.batch_last = batch_last.suits(stack.network)
        assert stack.batch_last == kind.startswith("plain")
        torch.testing.assert_close(stack(images)[:, -1].detach(), expected, rtol=1e-4, atol=1e-5)
        stack.batch_last = False
        pool_before_bias(stack.network)
        torch.testing.assert_close(stack(images)[:, -1].detach(), expected, rtol=1e-4, atol=1e-5)


def test_code_that_would_end_a_worker_fails_its_task(tmp_path: Path, arrays: dict[str, Any]) -> None:
    """On every executor: what a worker hands back is an error with its reason, not a process that is gone."""
    ending = """
class Ending(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.last, self.calls = nn.Linear(784, k), 0
    def forward(self, x):
        self.calls += self.training
        if self.calls > 4:
            raise SystemExit(0)
        return self.last(x.flatten(1))
"""
    config = section("Ending(c, k)", tmp_path, ending)
    with pytest.raises(EndsProgramError, match=r"ends the program \(sys\.exit\(0\)\); leave that out"):
        train(config, specs([0]), arrays)


def test_a_signal_that_ray_answers_is_nobody_s_code() -> None:
    """Ray's handler ends a worker by SystemExit, in whatever line that is: its task is tried again elsewhere."""
    of_ray: dict[str, Any] = {"__name__": "ray._private.worker"}
    exec("def handler():\n    raise SystemExit(1)", of_ray)
    with pytest.raises(SystemExit), staying():
        of_ray["handler"]()
    with pytest.raises(EndsProgramError), staying():
        raise SystemExit(1)


FOLDED = """
class Folded(nn.Module):
    def __init__(self, c, k, drop):
        super().__init__()
        self.body, self.head, self.drop = nn.Linear(14, 14), nn.Linear(14, k), drop
    def forward(self, x):
        rows = len(x)
        x = x.reshape(-1, 14)
        x = x + self.drop(self.body(x).tanh())
        return self.head(x.view(rows, -1, 14).mean(1))

class ChannelsLast(nn.Module):
    def __init__(self, c, k, drop):
        super().__init__()
        self.stem, self.body, self.drop = nn.Conv2d(c, 6, 3, 2, 1), nn.Conv2d(6, 6, 1), drop
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, k)
    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.drop(self.body(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return self.head(self.flat(self.pool(x.permute(0, 3, 1, 2))))

def depth():
    from torchvision.ops import StochasticDepth
    return StochasticDepth(0.3, "row")
"""


@pytest.mark.parametrize("drop", ["nn.Dropout(0.3)", "depth()"])
@pytest.mark.parametrize("shape", ["Folded", "ChannelsLast"])
def test_layers_that_draw_for_anything_but_images_train_as_they_were_written(
    shape: str, drop: str, tmp_path: Path, arrays: dict[str, Any]
) -> None:
    """Windows that lie beside each other in the batch, and an axis that is no channel: no draw of one member is another's."""
    config = section(f"{shape}(c, k, {drop})", tmp_path, FOLDED)
    model = config.groups[0].model
    assert obstacles(model, SHAPE, 10)
    stack = Stack.build(model, SHAPE, 10, [0])
    assert bool(stack.dropout) == (shape == "ChannelsLast")
    together = results(train(config, specs([0, 1]), arrays))
    alone = results(train(config, specs([1]), arrays))[1]
    for name, array in alone.weights.items():
        np.testing.assert_array_equal(together[1].weights[name], array)


MASKED = """
class Masked(nn.Module):
    def __init__(self, c, k, endless):
        super().__init__()
        self.embed, self.attend = nn.Linear(28, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        mask = torch.triu(torch.ones(28, 28), 1).bool()
        self.register_buffer("mask", torch.zeros(28, 28).masked_fill(mask, float("-inf")) if endless else mask)
        self.scale, self.head = nn.Parameter(torch.tensor(1.0)), nn.Linear(8, k)
    def forward(self, x):
        x = self.embed(x.flatten(1, 2)) * self.scale
        return self.head(self.attend(x, x, x, attn_mask=self.mask, need_weights=False)[0].mean(1))
"""


@pytest.mark.parametrize("endless", [False, True])
def test_masks_and_scales_are_no_obstacle_to_torch_func(
    endless: bool, tmp_path: Path, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truth values and -inf in a buffer, a parameter without axes; clipped and averaged, together as alone."""
    config = section(f"Masked(c, k, {endless})", tmp_path, MASKED)
    recipe = config.training.model_copy(update={"gradient_clip_norm": 0.5, "ema_decay": 0.9, "optimizer": "sgd"})
    config = config.model_copy(update={"training": recipe})
    assert maps(config.groups[0].model, SHAPE, 10)
    monkeypatch.setattr(mapped, "DEVICES", ("cpu",))
    together = results(train(config, specs([0, 1]), arrays))
    assert together[1].stack_size == 2
    alone = results(train(config, specs([1]), arrays))[1]
    for name, array in alone.weights.items():
        np.testing.assert_allclose(together[1].weights[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
