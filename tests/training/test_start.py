"""What members start from where weights are given, and what of a network is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ensemble.config.network import Network
from ensemble.errors import ConfigError
from ensemble.models.stored_weights import read_weights
from ensemble.training.cuda_graph import GraphedStep
from ensemble.training.job import START
from ensemble.training.stack import Stack, build_seeded
from ensemble.training.start import head_of, starting_tensors, trained
from ensemble.training.suitability import starts
from tests.training.helpers import arrays as arrays
from tests.training.helpers import experiment, results, specs, train
from tests.training.test_cuda_graph import replayed, run_of

SHAPE = (1, 28, 28)
CNN: dict[str, Any] = {"name": "cnn", "widths": (4, 6), "batch_norm": True, "fully_connected": (8,)}
RESNET: dict[str, Any] = {"name": "resnet18", "stem": "small"}
NORM = ("1.weight", "1.bias", "1.running_mean", "1.running_var")


def section(**values: Any) -> Network:
    return Network.choose(values)


def weights_of(
    model: dict[str, Any], shape: tuple[int, int, int], classes: int, seed: int = 9
) -> dict[str, torch.Tensor]:
    """A network's tensors, none of them as they are at first."""
    state = build_seeded(section(**model), shape, classes, seed).state_dict()
    return {name: t + 0.01 if t.is_floating_point() else t for name, t in state.items()}


def stored(folder: Path, tensors: dict[str, torch.Tensor], name: str = "w.safetensors") -> dict[str, Any]:
    """The keys of a section that starts from these."""
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    return dict(Network.choose({"name": "lenet5"}).complete({"weights": str(folder / name)}, folder))


@pytest.mark.parametrize(
    "model", [CNN, RESNET, {"name": "lenet5"}, {"name": "mlp", "widths": (5,)}], ids=lambda m: m["name"]
)
def test_the_last_layer_is_what_grows_with_the_classes(model: dict[str, Any]) -> None:
    network = build_seeded(section(**model), SHAPE, 10, 0)
    last = [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)][-1]
    assert head_of(section(**model), SHAPE, 10) == {f"{last}.weight", f"{last}.bias"}


FIXED = """
import torch
from torch import nn
class Fixed(nn.Module):
    def __init__(self, num_classes, in_channels, own=10):
        super().__init__()
        self.head, self.body, self.own = nn.Linear(6, 10), nn.Linear(784, 6), own
    def forward(self, x):
        return self.head(self.body(x.flatten(1)).tanh())
class Twice(Fixed):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.whole = nn.Sequential(nn.Flatten(), self.body, nn.Tanh(), self.head)
    def forward(self, x):
        return self.whole(x)
class Only(Fixed):
    def __init__(self, num_classes, in_channels):
        if num_classes != 10:
            raise ValueError("ten digits")
        super().__init__(num_classes, in_channels)
class AnotherLast(Fixed):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.mixed = nn.Linear(10, 12)
    def forward(self, x):
        return self.mixed(super().forward(x))[:, :10]
class Unlike(Fixed):
    def forward(self, x):
        return self.body(x)
class Failing(Fixed):
    def forward(self, x):
        raise RuntimeError("not today")
"""


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("Fixed", "head"),
        ("Only", "head"),
        ("Twice", "head"),
        ("AnotherLast", None),
        ("Unlike", None),
        ("Failing", None),
    ],
)
def test_the_last_layer_of_a_network_for_these_classes_alone_is_called_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, head: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(FIXED)
    python = Network.registry.find("python")
    assert python is not None
    model = section(**python.complete({"name": "python", "path": f"nets.py:{kind}"}, tmp_path))
    names = {None: [], "head": ["head", "whole.3"] if kind == "Twice" else ["head"]}[head]
    assert head_of(model, SHAPE, 10) == {f"{name}.{key}" for name in names for key in ("weight", "bias")}
    if head is None:
        message = "has no last layer that backbone would leave out"
        frozen = model.model_copy(update={"freeze": "backbone"})
        group = experiment({"name": "lenet5"}).groups[0].model_copy(update={"model": frozen})
        with pytest.raises(ConfigError, match=message):
            trained(group, SHAPE, 10)


def test_files_of_weights_are_read_by_what_they_hold(tmp_path: Path) -> None:
    tensors = weights_of(CNN, SHAPE, 10)
    save_file(tensors, tmp_path / "a.safetensors")
    forms = {
        "a.pth": tensors, "b.pt": {"epoch": 3, "state_dict": tensors}, "c.bin": {"model": tensors, "optimizer": {}},
        "d.pth": {f"module.{name}": tensor for name, tensor in tensors.items()},
        "e.pth": {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()},
        "f.pth": {**tensors, "epoch": 3},
    }  # fmt: skip
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
    for name in ("a.safetensors", *forms):
        found = read_weights(tmp_path / name)
        assert found.keys() == tensors.keys(), name
        assert all(torch.equal(found[key], tensors[key]) for key in tensors), name


class _Harmful:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_files_that_are_no_weights_are_refused_and_not_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(weights_of(CNN, SHAPE, 10), tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    torch.save({"w": torch.zeros(3), "code": _Harmful()}, tmp_path / "harmful.pth")
    torch.save(weights_of(CNN, SHAPE, 10), tmp_path / "whole.pth")
    saved = (tmp_path / "whole.pth").read_bytes()
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    for name, damaged in {
        "cut.safetensors": content[:-5], "empty.safetensors": b"", "text.safetensors": b"hello" * 9,
        "long.safetensors": b"\xff" * 8 + content, "cut.pth": saved[: len(saved) // 2], "empty.pth": b"", "text.pt": b"hello",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(damaged)
    (tmp_path / "folder.pth").mkdir()
    bad = [path for path in tmp_path.iterdir() if path.stem != "whole"]
    assert len(bad) == 11
    for path in bad:
        with pytest.raises(ConfigError, match=rf"model\.weights: .*{path.name}: "):
            read_weights(path)
    with pytest.raises(ConfigError, match="is another file than it was"):
        read_weights(tmp_path / "whole.pth", "0" * 64)
    assert "executed" not in capsys.readouterr().out


def test_weights_fit_by_name_and_shape_and_the_head_is_drawn_anew_for_other_classes(tmp_path: Path) -> None:
    given = weights_of(CNN, SHAPE, 7)
    model = section(**CNN, **stored(tmp_path, given))
    found = starting_tensors(model, SHAPE, 10)
    assert found is not None
    tensors, notes = found
    assert notes == ["drawn anew for every member: 11.weight, 11.bias"]
    assert tensors.keys() == given.keys() - {"11.weight", "11.bias"}
    assert all(torch.equal(tensors[name], given[name]) for name in tensors)
    same = section(**CNN, **stored(tmp_path, weights_of(CNN, SHAPE, 10)))
    found = starting_tensors(same, SHAPE, 10)
    assert found is not None
    assert "11.weight" in found[0]
    assert found[1] == ["all members start from the same weights, the last layer's too; model.new_head draws that anew"]
    anew = starting_tensors(same.model_copy(update={"new_head": True}), SHAPE, 10)
    assert anew is not None
    assert "11.weight" not in anew[0]
    assert starting_tensors(section(**CNN), SHAPE, 10) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": torch.zeros(4, 1, 5, 5)}, r"0\.weight is \[4, 1, 5, 5\], but \[4, 1, 3, 3\] in this network"),
        ({"4.weight": None, "5.bias": None}, r"has nothing for 4\.weight, 5\.bias of this network; it holds 0\.weight"),
        ({"0.weight": torch.full((4, 1, 3, 3), torch.nan)}, r"0\.weight holds numbers that are not finite"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    tensors = {k: t for k, t in {**weights_of(CNN, SHAPE, 10), **change}.items() if t is not None}
    with pytest.raises(ConfigError, match=message):
        starting_tensors(section(**CNN, **stored(tmp_path, tensors)), SHAPE, 10)


def test_what_a_network_has_no_use_for_is_told(tmp_path: Path) -> None:
    tensors = {**weights_of(CNN, SHAPE, 10), "projector.weight": torch.zeros(3)}
    found = starting_tensors(section(**CNN, **stored(tmp_path, tensors)), SHAPE, 10)
    assert found is not None
    assert found[1][-1] == "not used, since the network has nothing of that name: projector.weight"


def test_a_grey_image_is_answered_as_the_same_one_in_colour(tmp_path: Path) -> None:
    given = weights_of(RESNET, (3, 28, 28), 10)
    colour, grey = build_seeded(section(**RESNET), (3, 28, 28), 10, 0), build_seeded(section(**RESNET), SHAPE, 10, 0)
    colour.load_state_dict(given)
    found = starting_tensors(section(**RESNET, **stored(tmp_path, given)), SHAPE, 10)
    assert found is not None
    grey.load_state_dict(found[0])
    images = torch.rand((3, *SHAPE), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(grey.eval()(images), colour.eval()(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    assert found[1][0] == "the first convolution takes 1 channels, the weights are for 3: summed"
    back = starting_tensors(section(**RESNET, **stored(tmp_path, found[0])), (3, 28, 28), 10)
    assert back is not None
    torch.testing.assert_close(back[0]["conv1.weight"].sum(1, keepdim=True), found[0]["conv1.weight"])


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("none", set()),
        ("backbone", {"0.weight", *NORM, "4.weight", "5.weight", "5.running_mean", "9.weight"}),
        (("0", "1"), {"0.weight", *NORM}),
        (("*.bias",), {"1.bias", "5.bias", "9.bias", "11.bias"}),
        (("4.w*",), {"4.weight"}),
    ],
)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_is_frozen_stays_as_it_is_to_the_last_bit(
    tmp_path: Path, arrays: dict[str, Any], freeze: Any, frozen: set[str], optimizer: str
) -> None:
    """Also under decay, averaging and the choice of an epoch; what is not frozen learns, in a stack as alone."""
    given = weights_of(CNN, SHAPE, 10)
    model = {**CNN, **stored(tmp_path, given), "freeze": freeze}
    config = experiment(
        model, optimizer=optimizer, weight_decay=0.1, ema_decay=0.5, keep="best_validation", lr=0.01,
        gradient_clip_norm=1.0,
    )  # fmt: skip
    start = starts(config.groups, SHAPE, 10).arrays
    assert list(start) == [f"{START}cnn"]
    together = results(train(config, specs([0, 1]), {**arrays, **start}))
    alone = results(train(config, specs([1]), {**arrays, **start}))[1]
    for result in (*together.values(), alone):
        for name, array in result.weights.items():
            same = np.array_equal(array, given[name].numpy())
            assert same == (name in frozen or (freeze == "backbone" and not name.startswith("11."))), name
    for name, array in alone.weights.items():
        np.testing.assert_allclose(together[1].weights[name], array, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (("conv9",), r"model\.freeze: 'conv9' fits no weights of the network; there are conv"),
        (("*",), r"model\.freeze: \* fits every weight; nothing would be trained"),
    ],
)
def test_patterns_that_cannot_be_meant(tmp_path: Path, freeze: Any, message: str) -> None:
    model = {**RESNET, **stored(tmp_path, weights_of(RESNET, SHAPE, 10)), "freeze": freeze}
    with pytest.raises(ConfigError, match=message):
        trained(experiment(model).groups[0], SHAPE, 10)


def test_the_backbone_learns_at_its_own_rate(arrays: dict[str, Any]) -> None:
    """One step of plain gradient descent moves it by that share of what it would have; the last layer moves as ever."""
    model: dict[str, Any] = {"name": "mlp", "widths": (8,), "activation": "tanh"}
    moved = []
    for factor in (1.0, 0.25):
        run = run_of(
            experiment(model, optimizer="sgd", batch_size=260, epochs=1, lr_backbone_factor=factor), arrays, None
        )
        before = {name: p.detach().clone() for name, p in run.stack.network.named_parameters()}
        list(run.train_epoch(0))
        moved.append({name: p.detach() - before[name] for name, p in run.stack.network.named_parameters()})
    assert len(moved[0]) == 4
    for name, change in moved[0].items():
        expected = change if name.startswith("3.") else change * 0.25
        torch.testing.assert_close(moved[1][name], expected, rtol=1e-3, atol=1e-7)
        assert change.abs().max() > 0


@pytest.mark.parametrize(
    "training", [{}, {"schedule": {"name": "plateau", "patience": 0, "threshold": 0.9}, "epochs": 3}]
)
def test_a_captured_step_has_both_rates(arrays: dict[str, Any], training: dict[str, Any]) -> None:
    """As in tests/training/test_cuda_graph.py: the steps of the graph's stand-in are the plain ones."""
    config = experiment(lr_backbone_factor=0.1, optimizer="sgd", lr=0.05, **training)
    ends = []
    for capture in (None, replayed):
        run = run_of(config, arrays, capture)
        for epoch in range(config.training.epochs):
            list(run.train_epoch(epoch))
        assert (run.graphed is None) == (capture is None)
        assert run.graphed is None or (isinstance(run.graphed, GraphedStep) and run.graphed.refused is None)
        ends.append([tensor.clone() for tensor in run.stack.state_dict().values()])
    for plain, captured in zip(*ends, strict=True):
        torch.testing.assert_close(captured, plain, rtol=1e-4, atol=1e-5)


def test_frozen_batch_norms_stay_still_in_every_mode(tmp_path: Path) -> None:
    stack = Stack.build(section(**CNN), SHAPE, 10, [0, 1])
    stack.freeze(frozenset(NORM) | {"1.num_batches_tracked"})
    images = torch.rand((2, 8, *SHAPE))
    before = {name: tensor.clone() for name, tensor in stack.state_dict().items()}
    for mode in (True, False, True):
        stack.train(mode)
        stack(images)
    changed = {name for name, tensor in stack.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"network.5.running_mean", "network.5.running_var"}


class _Normed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(1, 4, 3))
        self.older = torch.nn.utils.spectral_norm(torch.nn.Conv2d(4, 4, 3))  # type: ignore[no-untyped-call]
        self.norm, self.drop = torch.nn.BatchNorm2d(4, affine=False), torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.drop(self.norm(self.older(self.first(x)))).mean((2, 3))
        answer: torch.Tensor = self.head(features)
        return answer


def test_frozen_statistics_of_every_kind_stay_still() -> None:
    """Also of a batch norm without weights and of both spectral norms; dropout in between goes on."""
    network = _Normed()
    stack = Stack(network, 1)
    names = [name for name in network.state_dict() if not name.startswith("head")]
    stack.freeze(names)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for _ in range(3):
        stack.train()
        network(torch.rand((8, *SHAPE))).sum().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network.drop.training
    assert {name for name, p in network.named_parameters() if p.grad is not None} == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to_sparse(), r"0\.weight is torch\.sparse_coo; expected a plain tensor"),
        (lambda t: t.to("meta"), r"0\.weight is on the device meta, without values"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), r"0\.weight is quantised"),
        (lambda t: t.to(torch.complex64), r"0\.weight is of complex numbers"),
        (lambda t: (t * 100).to(torch.int8), r"0\.weight is torch\.int8; expected torch\.float32"),
        (lambda t: t.double() + 1e300, r"0\.weight holds numbers that are not finite in torch\.float32"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_tensors_that_are_no_weights_are_named(tmp_path: Path, change: Any, message: str) -> None:
    tensors = weights_of(CNN, SHAPE, 10)
    torch.save({**tensors, "0.weight": change(tensors["0.weight"])}, tmp_path / "w.pth")
    model = section(**CNN, weights=str(tmp_path / "w.pth"))
    with pytest.raises(ConfigError, match=message):
        starting_tensors(model, SHAPE, 10)


def test_half_precision_and_whole_trainings_are_taken(tmp_path: Path) -> None:
    tensors = weights_of(CNN, SHAPE, 10)
    floats = {k: t.half() if t.is_floating_point() else t for k, t in tensors.items()}
    torch.save({"state_dict": floats, "epoch": torch.tensor(3)}, tmp_path / "w.pth")
    found = starting_tensors(section(**CNN, weights=str(tmp_path / "w.pth")), SHAPE, 10)
    assert found is not None
    assert all(torch.equal(found[0][name], floats[name].to(tensor.dtype)) for name, tensor in tensors.items())
    without = {k: t for k, t in tensors.items() if k != "11.bias"}
    found = starting_tensors(section(**CNN, **stored(tmp_path, without)), SHAPE, 10)
    assert found is not None
    assert "11.weight" not in found[0], "a last layer is given whole, or drawn whole"
