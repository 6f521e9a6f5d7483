"""torchvision's residual networks (He et al. 2016), untrained, for any number of channels and classes."""

from __future__ import annotations

from torch import nn

from ensemble.config.models import ResNetConfig


def build_resnet(config: ResNetConfig, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """resnet18 or resnet50. Stem `imagenet`: 7x7 stride 2 and pooling; `small`: 3x3 stride 1 and none."""
    from torchvision.models import resnet  # slow to import, and most runs need no ResNet

    model: nn.Module = getattr(resnet, config.name)(weights=None, num_classes=num_classes)
    channels = image_shape[0]
    if config.stem == "small":
        model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    else:
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own stem
    return model
