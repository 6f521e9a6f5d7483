"""MNIST and the sets that have its form: idx files in torchvision's folders (read by `idx`, fetched by `downloads`)."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from ensemble.config.data import register_data
from ensemble.data.catalogue import DatasetInfo, Framing, IdxLayout, by_name
from ensemble.data.downloads import fetch_idx_files
from ensemble.data.idx import read_idx_dataset
from ensemble.data.published import FourArrays, Published


def _mnist_like(
    folder: str, prefixes: tuple[str, str] = ("train", "t10k"), sha256: Mapping[str, str] | None = None
) -> IdxLayout:
    """The layout of MNIST itself and of the sets that copied its file names."""
    train, test = prefixes
    return IdxLayout(
        folder=f"{folder}/raw",
        train_images=f"{train}-images-idx3-ubyte",
        train_labels=f"{train}-labels-idx1-ubyte",
        test_images=f"{test}-images-idx3-ubyte",
        test_labels=f"{test}-labels-idx1-ubyte",
        torchvision_class=folder,
        sha256=sha256 or {},
    )


def _emnist(split: str, first_label: int) -> IdxLayout:
    """The layout of one part of EMNIST; all its parts come in one archive."""
    return IdxLayout(
        folder="EMNIST/raw",
        train_images=f"emnist-{split}-train-images-idx3-ubyte",
        train_labels=f"emnist-{split}-train-labels-idx1-ubyte",
        test_images=f"emnist-{split}-test-images-idx3-ubyte",
        test_labels=f"emnist-{split}-test-labels-idx1-ubyte",
        torchvision_class="EMNIST",
        torchvision_arguments=({"split": split, "train": True}, {"split": split, "train": False}),
        first_label=first_label,
        transposed=True,
    )


_QMNIST = IdxLayout(
    folder="QMNIST/raw",
    train_images="qmnist-train-images-idx3-ubyte",
    train_labels="qmnist-train-labels-idx2-int",
    test_images="qmnist-test-images-idx3-ubyte",
    test_labels="qmnist-test-labels-idx2-int",
    torchvision_class="QMNIST",
    torchvision_arguments=({"train": True}, {"train": False}),
    labels_table=True,
)

_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

# MNIST: as its makers describe it (20x20 box, centred by mass). EMNIST: as its makers describe it (two pixels of border, centred
# by box).
_MNIST_FRAMING = Framing(box=20, centre="mass", stroke=2.4)
_EMNIST_FRAMING = Framing(box=24, centre="box", stroke=3.0)

_GREY = (1, 28, 28)
_DIGITS = tuple(string.digits)
_CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


@register_data
class MnistFamily(Published):
    """Images of 28x28 grey pixels in idx files."""

    published: ClassVar[Mapping[str, DatasetInfo]] = by_name(
        DatasetInfo(
            "mnist", "handwritten digits", _GREY, _DIGITS, 60_000, 10_000, False, 12, "LeCun et al. 1998",
            "MNIST/raw", _mnist_like("MNIST", sha256=_MNIST_SHA256), framing=_MNIST_FRAMING,
        ),
        DatasetInfo(
            "fashion_mnist", "pieces of clothing", _GREY, _CLOTHES, 60_000, 10_000, True, 31,
            "Xiao et al. 2017", "FashionMNIST/raw", _mnist_like("FashionMNIST"),
        ),
        DatasetInfo(
            "kmnist", "cursive Japanese characters", _GREY, _KUZUSHIJI, 60_000, 10_000, False, 21,
            "Clanuwat et al. 2018", "KMNIST/raw", _mnist_like("KMNIST"),
        ),
        DatasetInfo(
            "emnist_digits", "handwritten digits of more writers", _GREY, _DIGITS, 240_000, 40_000, False, 562,
            "Cohen et al. 2017", "EMNIST/raw", _emnist("digits", first_label=0), framing=_EMNIST_FRAMING,
        ),
        DatasetInfo(
            "emnist_letters", "handwritten letters, both cases as one", _GREY, tuple(string.ascii_lowercase), 124_800, 20_800,
            False, 562, "Cohen et al. 2017", "EMNIST/raw", _emnist("letters", first_label=1), framing=_EMNIST_FRAMING,
        ),
        DatasetInfo(
            "qmnist", "MNIST rebuilt, with 60,000 test images", _GREY, _DIGITS, 60_000, 60_000, False, 21,
            "Yadav, Bottou 2019", "QMNIST/raw", _QMNIST, framing=_MNIST_FRAMING,
        ),
    )  # fmt: skip
    name: Literal["mnist", "fashion_mnist", "kmnist", "emnist_digits", "emnist_letters", "qmnist"]

    def read(self, root: Path) -> FourArrays:
        """See Published."""
        return read_idx_dataset(root, self.info)

    def fetch(self, root: Path) -> None:
        """See Published."""
        assert self.info.idx is not None
        fetch_idx_files(root, self.info.idx)
