"""Augmentations that make no sense for a data set are refused by key."""

from __future__ import annotations

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
