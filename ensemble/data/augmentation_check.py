"""Whether an augmentation makes sense for a data set; needs no torch, so a bad configuration is refused early."""

from __future__ import annotations

from ensemble.config.recipe import AugmentationConfig
from ensemble.data.catalogue import DATASETS
from ensemble.data.dataset import Dataset
from ensemble.errors import ConfigError


def check_augmentation(config: AugmentationConfig, dataset: Dataset) -> None:
    """Raises ConfigError, with every mistake, for flips that change the class and crops larger than the image."""
    problems: list[str] = []
    if config.horizontal_flip and not dataset.flippable:
        allowed = ", ".join(name for name, info in DATASETS.items() if info.flippable)
        problems.append(
            f"training.augmentation.horizontal_flip: found true, expected false with data set {dataset.name}, whose "
            f"classes change when mirrored (flips are for {allowed})"
        )
    _, height, width = dataset.image_shape
    if config.crop_padding >= min(height, width):
        problems.append(
            f"training.augmentation.crop_padding: found {config.crop_padding}, expected less than the image side "
            f"({height}x{width} pixels in {dataset.name})"
        )
    if problems:
        raise ConfigError("\n".join(problems))
