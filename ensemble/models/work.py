"""How much work one image is for a network, so that tasks can be put in order before anything has run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ensemble.config.models import ModelConfig
from ensemble.models import build_model


def multiply_adds(config: ModelConfig, image_shape: tuple[int, int, int], num_classes: int) -> int:
    """Multiply-adds of the convolutions and linear layers of one forward pass for one image [C, H, W].

    Nothing is computed: shapes are followed on torch's meta device.
    """
    total = 0

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        places = output.numel() // output.shape[0] if isinstance(layer, nn.Linear) else output[0, 0].numel()
        weights = layer.weight
        assert isinstance(weights, Tensor)
        total += weights.shape[1] * places if isinstance(layer, nn.Linear) else weights.numel() * places

    with torch.device("meta"):
        network = build_model(config, image_shape, num_classes).eval()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        network(torch.empty(1, *image_shape))
    return total
