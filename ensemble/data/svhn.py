"""SVHN, house numbers in photographs, through torchvision, which reads the published .mat files (cropped digits, without `extra`)."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ensemble.config.data import register_data
from ensemble.data.catalogue import DatasetInfo, by_name
from ensemble.data.downloads import downloading
from ensemble.data.files import FaultyFiles, md5_faults
from ensemble.data.published import FourArrays, Published
from ensemble.types import ByteArray, IntArray

PARTS = ("train", "test")


@register_data
class Svhn(Published):
    """Digits of house numbers, 32x32 colour pixels."""

    published: ClassVar[Mapping[str, DatasetInfo]] = by_name(
        DatasetInfo(
            "svhn", "digits of house numbers in photographs", (3, 32, 32), tuple(string.digits), 73_257, 26_032, False, 246,
            "Netzer et al. 2011", "train_32x32.mat", on_black=False,
        )
    )  # fmt: skip
    name: Literal["svhn"]

    def folder(self, root: Path) -> Path:
        """See Published: the files lie beside each other, in no folder of their own."""
        return root

    def read(self, root: Path) -> FourArrays:
        """See Published."""
        from torchvision.datasets import SVHN

        if faults := md5_faults(root, [(SVHN.split_list[part][1], SVHN.split_list[part][2]) for part in PARTS]):
            raise FaultyFiles(faults)
        train, test = (self._part(root, part) for part in PARTS)
        return *train, *test

    def fetch(self, root: Path) -> None:
        """See Published."""
        from torchvision.datasets import SVHN

        with downloading():
            root.mkdir(parents=True, exist_ok=True)
            for part in PARTS:
                SVHN(str(root), split=part, download=True)

    def _part(self, root: Path, name: str) -> tuple[ByteArray, IntArray]:
        from torchvision.datasets import SVHN

        part = SVHN(str(root), split=name, download=False)
        return np.ascontiguousarray(part.data), np.asarray(part.labels, np.int64)
