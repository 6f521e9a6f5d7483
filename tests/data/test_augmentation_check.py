"""Augmentations that make no sense for a data set are refused by key."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.config.recipe import AugmentationConfig
from ensemble.data import DATASETS, Dataset, check_augmentation
from ensemble.errors import ConfigError


def empty(name: str) -> Dataset:
    info = DATASETS[name]
    images = np.zeros((1, *info.image_shape), np.uint8)
    labels = np.zeros(1, np.int64)
    return Dataset(name, images, labels, images, labels, info.class_names, info.flippable)


@pytest.mark.parametrize("name", DATASETS)
def test_flips_are_for_sets_whose_classes_survive_them(name):
    flip = AugmentationConfig(horizontal_flip=True)
    if name in ("cifar10", "cifar100", "fashion_mnist", "stl10"):
        check_augmentation(flip, empty(name))
    else:
        with pytest.raises(ConfigError, match=r"training\.augmentation\.horizontal_flip: found true.*fashion_mnist"):
            check_augmentation(flip, empty(name))


def test_crop_padding_stays_below_the_side():
    check_augmentation(AugmentationConfig(crop_padding=27), empty("mnist"))
    with pytest.raises(ConfigError, match=r"training\.augmentation\.crop_padding: found 28.*28x28 pixels in mnist"):
        check_augmentation(AugmentationConfig(crop_padding=28), empty("mnist"))


def test_both_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        check_augmentation(AugmentationConfig(crop_padding=40, horizontal_flip=True), empty("digits"))
    assert "horizontal_flip" in str(caught.value)
    assert "crop_padding" in str(caught.value)


@pytest.mark.parametrize("key", ["saturation", "hue", "grey_probability"])
def test_colours_are_for_images_that_have_some(key):
    check_augmentation(AugmentationConfig(**{key: 0.3}), empty("cifar10"))
    with pytest.raises(
        ConfigError, match=rf"augmentation\.{key}: found 0\.3, expected 0 with data set mnist.*1 channel"
    ):
        check_augmentation(AugmentationConfig(**{key: 0.3}), empty("mnist"))


def test_randaugment_is_for_grey_and_for_colours():
    config = AugmentationConfig(randaugment_operations=2)
    check_augmentation(config, empty("mnist"))
    check_augmentation(config, empty("cifar10"))
    two = replace(
        empty("mnist"),
        train_images_NCHW=np.zeros((1, 2, 28, 28), np.uint8),
        test_images_NCHW=np.zeros((1, 2, 28, 28), np.uint8),
    )
    with pytest.raises(ConfigError, match=r"randaugment_operations: found 2, expected 0 .*2 channels: its operations"):
        check_augmentation(config, two)
