"""CIFAR-10 through torchvision, which reads the original pickled batches after checking their MD5 sums.

The sums are checked here first, file by file, because torchvision only says that something is wrong.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ensemble.data.downloads import downloading
from ensemble.data.files import Fault, FaultyFiles, looks_like_html, md5, read_bytes
from ensemble.types import ByteArray, IntArray


def cifar10_folder(root: Path) -> Path:
    """Where torchvision keeps the batches."""
    return root / "cifar-10-batches-py"


def read_cifar10(root: Path) -> tuple[ByteArray, IntArray, ByteArray, IntArray]:
    """Training images_NCHW and labels_N, then test images and labels. Raises FaultyFiles."""
    from torchvision.datasets import CIFAR10

    meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    faults: list[Fault] = []
    for name, expected in (*CIFAR10.train_list, *CIFAR10.test_list, meta):
        path = cifar10_folder(root) / name
        try:
            content = read_bytes(path)
        except FaultyFiles as problem:
            faults.extend(problem.faults)
            continue
        if (digest := md5(content)) != expected:
            found = "a web page (HTML)" if looks_like_html(content) else f"{len(content)} bytes with MD5 {digest}"
            faults.append(Fault(path, "damaged", found, f"MD5 {expected}"))
    if faults:
        raise FaultyFiles(faults)
    return *_part(root, train=True), *_part(root, train=False)


def fetch_cifar10(root: Path) -> None:
    """Downloads and unpacks the batches below `root`. Raises FetchError."""
    from torchvision.datasets import CIFAR10

    with downloading():
        root.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the batches were pickled by a numpy of 2009
            CIFAR10(str(root), download=True)


def _part(root: Path, train: bool) -> tuple[ByteArray, IntArray]:
    from torchvision.datasets import CIFAR10

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        part = CIFAR10(str(root), train=train, download=False)
    images_NHWC: ByteArray = part.data
    return np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2)), np.asarray(part.targets, np.int64)
