"""CIFAR-10 and CIFAR-100 through torchvision, which reads the original pickled batches after checking their MD5 sums.

The sums are checked here first, file by file, because torchvision only says that something is wrong.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ensemble.config.data import register_data
from ensemble.data.catalogue import DatasetInfo, by_name
from ensemble.data.downloads import downloading
from ensemble.data.files import FaultyFiles, md5_faults
from ensemble.data.published import FourArrays, Published
from ensemble.types import ByteArray, IntArray

_TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# The fine classes, in the order of their numbers.
_HUNDRED = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster",
    "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter",
    "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon",
    "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip
_SOURCE = "Krizhevsky 2009"


@register_data
class Cifar(Published):
    """Photographs of 32x32 colour pixels in pickled batches."""

    published: ClassVar[Mapping[str, DatasetInfo]] = by_name(
        DatasetInfo(
            "cifar10", "small colour photographs", (3, 32, 32), _TEN, 50_000, 10_000, True, 171, _SOURCE,
            "cifar-10-batches-py", on_black=False,
        ),
        DatasetInfo(
            "cifar100", "small colour photographs of 100 classes", (3, 32, 32), _HUNDRED, 50_000, 10_000, True, 169, _SOURCE,
            "cifar-100-python", on_black=False,
        ),
    )  # fmt: skip
    name: Literal["cifar10", "cifar100"]

    def read(self, root: Path) -> FourArrays:
        """See Published."""
        reader = self._reader()
        meta = (reader.meta["filename"], reader.meta["md5"])
        if faults := md5_faults(self.folder(root), (*reader.train_list, *reader.test_list, meta)):
            raise FaultyFiles(faults)
        return *self._part(root, train=True), *self._part(root, train=False)

    def fetch(self, root: Path) -> None:
        """See Published."""
        with downloading():
            root.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the batches were pickled by a numpy of 2009
                self._reader()(str(root), download=True)

    def _reader(self) -> Any:
        from torchvision import datasets

        return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[self.name]

    def _part(self, root: Path, train: bool) -> tuple[ByteArray, IntArray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            part = self._reader()(str(root), train=train, download=False)
        images_NHWC: ByteArray = part.data
        return np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2)), np.asarray(part.targets, np.int64)
