"""Whether an augmentation makes sense for a data set; needs no torch, so a bad configuration is refused early."""

from __future__ import annotations

from ensemble.config.recipe import AugmentationConfig
from ensemble.config.tta import TtaConfig
from ensemble.data.catalogue import DATASETS
from ensemble.data.dataset import Dataset
from ensemble.errors import ConfigError


def check_augmentation(config: AugmentationConfig, dataset: Dataset) -> None:
    """Raises ConfigError, with every mistake, for flips that change the class, crops larger than the image and colours of grey images."""
    problems = _of_flips("training.augmentation.horizontal_flip", config.horizontal_flip, dataset)
    channels, height, width = dataset.image_shape
    for key in ("saturation", "hue", "grey_probability"):
        if getattr(config, key) and channels != 3:
            problems.append(
                f"training.augmentation.{key}: found {getattr(config, key):g}, expected 0 with data set {dataset.name}, whose "
                f"images have {_in_words(channels)} and no colours to change"
            )
    if config.randaugment_operations and channels not in (1, 3):
        problems.append(
            f"training.augmentation.randaugment_operations: found {config.randaugment_operations}, expected 0 with data set "
            f"{dataset.name}, whose images have {_in_words(channels)}: its operations are defined for grey and for red, green, blue"
        )
    if config.crop_padding >= min(height, width):
        problems.append(
            f"training.augmentation.crop_padding: found {config.crop_padding}, expected less than the image side "
            f"({height}x{width} pixels in {dataset.name})"
        )
    if problems:
        raise ConfigError("\n".join(problems))


def check_views(config: TtaConfig, dataset: Dataset) -> None:
    """Raises ConfigError, with every mistake, for views that change the class and moves out of the image."""
    problems = _of_flips("evaluation.tta.horizontal_flip", config.horizontal_flip, dataset)
    _, height, width = dataset.image_shape
    if config.shift >= min(height, width):
        problems.append(
            f"evaluation.tta.shift: found {config.shift}, expected less than the image side ({height}x{width} pixels in {dataset.name})"
        )
    if problems:
        raise ConfigError("\n".join(problems))


def _of_flips(key: str, wanted: bool, dataset: Dataset) -> list[str]:
    if not wanted or dataset.flippable:
        return []
    allowed = ", ".join(name for name, info in DATASETS.items() if info.flippable)
    return [
        f"{key}: found true, expected false with data set {dataset.name}, whose classes change when mirrored (flips are for {allowed})"
    ]


def _in_words(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"
