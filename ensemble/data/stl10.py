"""STL-10 from its binary files. torchvision fetches them; they are read here, since its reader first wants the 2.8 GB of images
without a class, of which nothing here makes use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ensemble.config.data import register_data
from ensemble.data.catalogue import DatasetInfo, by_name
from ensemble.data.downloads import downloading
from ensemble.data.files import FaultyFiles, md5_faults, read_bytes
from ensemble.data.published import FourArrays, Published

FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
SHAPE = (3, 96, 96)


@register_data
class Stl10(Published):
    """Photographs of 96x96 colour pixels, few of them for training."""

    published: ClassVar[Mapping[str, DatasetInfo]] = by_name(
        DatasetInfo(
            "stl10", "photographs, 500 a class", SHAPE,
            ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"), 5000, 8000, True, 2640,
            "Coates et al. 2011", "stl10_binary", on_black=False,
        )
    )  # fmt: skip
    name: Literal["stl10"]

    def read(self, root: Path) -> FourArrays:
        """See Published."""
        from torchvision.datasets import STL10

        sums = [(name, known) for name, known in (*STL10.train_list, *STL10.test_list) if name in FILES]
        if faults := md5_faults(self.folder(root), sums):
            raise FaultyFiles(faults)
        train_images, train_labels, test_images, test_labels = (
            np.frombuffer(read_bytes(self.folder(root) / name), np.uint8) for name in FILES
        )
        # Each channel lies column by column; classes count from 1.
        train, test = (
            np.ascontiguousarray(values.reshape(-1, *SHAPE).transpose(0, 1, 3, 2))
            for values in (train_images, test_images)
        )
        return train, train_labels.astype(np.int64) - 1, test, test_labels.astype(np.int64) - 1

    def fetch(self, root: Path) -> None:
        """See Published."""
        from torchvision.datasets import STL10

        with downloading():
            root.mkdir(parents=True, exist_ok=True)
            STL10(str(root), download=True)
