"""LeNet-5 in today's form (after LeCun et al. 1998): ReLU, max-pooling, full connections. 61,706 parameters on MNIST."""

from __future__ import annotations

from torch import nn

from ensemble.config.models import LeNet5Config
from ensemble.models.shapes import pooled, require_positive


def build_lenet5(_config: LeNet5Config, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Convolutions 6@5x5 (padding 2) and 16@5x5, each pooled by 2, then 120, 84 and the classes.

    Pooling stands before ReLU: both orders give the same values, and a quarter as many are clipped.
    """
    channels, height, width = image_shape
    height, width = pooled(pooled(height) - 4), pooled(pooled(width) - 4)
    require_positive("lenet5", image_shape, height, width)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(6, 16, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * height * width, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )
