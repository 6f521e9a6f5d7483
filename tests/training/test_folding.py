"""A single narrow network takes several images side by side on a CPU: the same network, with fuller vector units."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ensemble.config import parse_experiment
from ensemble.models import build_model
from ensemble.training.stack import Stack, useful_fold

CONVOLUTIONS = (
    {"kind": "conv", "channels": 10, "activation": "relu"},
    {"kind": "max_pool"},
    {"kind": "conv", "channels": "classes", "kernel_size": 13},
)
NARROW: dict[str, Any] = {"name": "layers", "layers": CONVOLUTIONS}  # ends in a convolution


def config(model: dict[str, Any]) -> Any:
    values = {"name": "f", "num_members": 1, "method": {"name": "deep_ensemble"}, "model": model}
    return parse_experiment(values).groups[0].model


@pytest.mark.parametrize(
    ("model", "fold"),
    [
        ({"name": "lenet5"}, 4),
        ({"name": "lenet4"}, 4),
        (NARROW, 2),
        ({"name": "mlp"}, 1),
        ({"name": "cnn"}, 1),
        ({"name": "cnn", "widths": (4, 8)}, 4),
        ({"name": "cnn", "widths": (4, 8), "batch_norm": True}, 1),
        ({"name": "cnn", "widths": (4, 8), "dropout": 0.5}, 1),
        ({"name": "resnet18"}, 1),
    ],
)
def test_only_narrow_networks_without_whole_batch_layers_fold(model: dict[str, Any], fold: int) -> None:
    assert useful_fold(build_model(config(model), (1, 28, 28), 10)) == fold
    assert Stack.build(config(model), (1, 28, 28), 10, [1]).fold == fold
    assert Stack.build(config(model), (1, 28, 28), 10, [1, 2]).fold == 1


@pytest.mark.parametrize("model", [{"name": "lenet5"}, NARROW, {"name": "cnn", "widths": (4, 8), "kernel_size": 5}])
@pytest.mark.parametrize("shape", [(8, 1, 28, 28), (12, 3, 28, 28)])
def test_folded_and_plain_agree(model: dict[str, Any], shape: tuple[int, int, int, int]) -> None:
    """Logits, and gradients of a loss that treats every image differently, so that a mixed-up order would show."""
    stack = Stack.build(config(model), shape[1:], 10, [3]).train()
    assert stack.fold > 1
    images, labels = torch.randn(shape), torch.arange(shape[0]) % 10
    found = []
    for fold in (stack.fold, 1):
        stack.fold = fold
        stack.zero_grad()
        logits = stack(images)
        assert logits.shape == (shape[0], 1, 10)
        losses = torch.nn.functional.cross_entropy(logits[:, 0], labels, reduction="none")
        (losses * torch.arange(1, shape[0] + 1)).sum().backward()
        found.append([logits.detach(), *(parameter.grad.clone() for parameter in stack.parameters())])
    for folded, plain in zip(*found, strict=True):
        torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-4)


def test_a_batch_that_cannot_be_folded_and_a_judged_one_go_the_plain_way() -> None:
    stack = Stack.build(config({"name": "lenet5"}), (1, 28, 28), 10, [3])
    widths: list[int] = []
    next(iter(stack.network.children())).register_forward_hook(lambda _m, inputs, _o: widths.append(inputs[0].shape[1]))
    with torch.no_grad():
        stack.train()
        stack(torch.randn(8, 1, 28, 28))
        stack(torch.randn(7, 1, 28, 28))
        stack.eval()
        stack(torch.randn(8, 1, 28, 28))
    assert widths == [4, 1, 1]
