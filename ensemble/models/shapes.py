"""Sizes of feature maps, and the one error for images too small for a network."""

from __future__ import annotations

from ensemble.errors import ConfigError


def pooled(size: int) -> int:
    """Side of a feature map after 2x2 max-pooling."""
    return size // 2


def convolved(size: int, kernel: int, padding: int) -> int:
    """Side of a feature map after a convolution of stride 1."""
    return size + 2 * padding - kernel + 1


def require_positive(model: str, image_shape: tuple[int, int, int], height: int, width: int) -> None:
    """Raises ConfigError when nothing is left of the feature map."""
    if min(height, width) < 1:
        channels, image_height, image_width = image_shape
        raise ConfigError(
            f"model {model}: images of {image_height}x{image_width} ({channels} channels) are too small: the last "
            f"feature map would be {max(height, 0)}x{max(width, 0)}; take fewer or smaller convolutions, more padding, or larger images"
        )
