"""Networks built without drawing their weights, which is nearly all that building a large one takes."""

from __future__ import annotations

import torch
from torch import nn

from ensemble.config.network import Network
from ensemble.models import ImageShape, build_model


def undrawn(network: Network, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """For names, shapes and types: on torch's meta device where that can build it, else with weights that are drawn.

    torch's generator is left as it was. Raises ConfigError where the network cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_model(network, image_shape, num_classes)
        except (
            Exception
        ):  # the network may be a user's, and look at its numbers; or cannot be built, as the next line tells
            return build_model(network, image_shape, num_classes)
