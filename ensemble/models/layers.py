"""A network written layer by layer in the configuration.

model:
  name: layers
  layers:
    - {kind: conv, channels: 10, batch_norm: true, activation: relu}
    - {kind: max_pool}
    - {kind: conv, channels: classes, kernel_size: 1}
    - {kind: average_pool, size: 13}
"""

from __future__ import annotations

from torch import nn

from ensemble.config.models import ConvLayer, LayersConfig, PoolLayer
from ensemble.errors import ConfigError
from ensemble.models.activations import ACTIVATIONS
from ensemble.models.shapes import convolved, require_positive


def build_layers(config: LayersConfig, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The layers in their order. Raises ConfigError where no feature map or not one number per class is left."""
    modules: list[nn.Module] = []
    channels, height, width = image_shape
    flat = False
    for layer in config.layers:
        if isinstance(layer, ConvLayer):
            out_channels = num_classes if layer.channels == "classes" else layer.channels
            kernel, padding = layer.kernel_size, layer.padding
            bias = not layer.batch_norm if layer.bias is None else layer.bias
            modules.append(nn.Conv2d(channels, out_channels, kernel, padding=padding, bias=bias))
            if layer.batch_norm:
                modules.append(nn.BatchNorm2d(out_channels))
            channels = out_channels
            height, width = convolved(height, kernel, padding), convolved(width, kernel, padding)
        elif isinstance(layer, PoolLayer):
            stride = layer.stride or layer.size
            modules.append((nn.MaxPool2d if layer.kind == "max_pool" else nn.AvgPool2d)(layer.size, stride))
            height, width = (height - layer.size) // stride + 1, (width - layer.size) // stride + 1
        else:
            if not flat:
                modules.append(nn.Flatten())
                channels, height, width, flat = channels * height * width, 1, 1, True
            out_features = num_classes if layer.width == "classes" else layer.width
            modules.append(nn.Linear(channels, out_features))
            channels = out_features
        require_positive("layers", image_shape, height, width)
        if not isinstance(layer, PoolLayer):
            if layer.activation is not None:
                modules.append(ACTIVATIONS[layer.activation]())
            if layer.dropout:
                modules.append(nn.Dropout(layer.dropout))
    left = channels * height * width
    if left != num_classes:
        raise ConfigError(
            f"model layers: the last layer leaves {channels} channels of {height}x{width}, {left} numbers; expected {num_classes}, one per class: add pooling or another convolution"
        )
    return nn.Sequential(*modules) if flat else nn.Sequential(*modules, nn.Flatten())
