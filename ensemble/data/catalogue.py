"""Every data set the trainer knows, as plain records: what it holds, where it comes from, how its files are named.

The records are read by `ensemble datasets`, by the loader and by the tests; nothing here touches the disk. Counts and
sizes are those of the published sets; a file with fewer images of the right form is read all the same, except for
MNIST, whose four files are known by their SHA-256.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class IdxLayout:
    """The four idx files of one data set of the MNIST family, in torchvision's folders.

    first_label: value of the first class in the label file (EMNIST letters count from 1).
    transposed: the images are stored with rows and columns exchanged.
    labels_table: the labels are an int32 table whose first column is the class (QMNIST), not a list of bytes.
    sha256: file name -> digest of the uncompressed file, where it is known.
    torchvision_class, torchvision_arguments: which constructor calls download the files.
    """

    folder: str
    train_images: str
    train_labels: str
    test_images: str
    test_labels: str
    torchvision_class: str
    torchvision_arguments: tuple[Mapping[str, object], ...] = ({},)
    first_label: int = 0
    transposed: bool = False
    labels_table: bool = False
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Framing:
    """How the makers of a data set of characters placed each one, so that a drawing can be placed the same way.

    box: longest side of the character in pixels. centre: what lies in the middle, the mass of the ink or the box.
    stroke: usual width of a line in pixels. blocks: the bilevel character was placed on 32x32 points, which were then
    counted in so many blocks along each side and enlarged (`digits.enlarge`); 0 for a plain image.
    """

    box: int
    centre: Literal["mass", "box"]
    stroke: float
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One line of `ensemble datasets`.

    image_shape: (C, H, W). flippable: a mirrored image keeps its class. download_mb: megabytes fetched when the files
    are missing, 0 for a set that comes with the installation. framing: for single characters; None for whole pictures.
    on_black: the images show light things on a black ground.
    """

    name: str
    title: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train_images: int
    test_images: int
    flippable: bool
    download_mb: int
    source: str
    idx: IdxLayout | None = None
    framing: Framing | None = None
    on_black: bool = True


@dataclass(frozen=True, slots=True)
class OwnData:
    """A form in which people bring their own images."""

    name: str
    title: str
    keys: str


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

# MNIST: as its makers describe it (20x20 box, centred by mass). Digits: as scikit-learn describes them (4x4 points
# counted), full height as in all training images. EMNIST: as its makers describe it (two pixels of border, centred by box).
_MNIST_FRAMING = Framing(box=20, centre="mass", stroke=2.4)
_EMNIST_FRAMING = Framing(box=24, centre="box", stroke=3.0)
_DIGITS_FRAMING = Framing(box=32, centre="box", stroke=6.5, blocks=8)

_GREY = (1, 28, 28)
_DIGITS = tuple(string.digits)
_CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "digits", "handwritten digits, 8x8 scaled up to 28x28", _GREY, _DIGITS, 1442, 355, False, 0,
            "scikit-learn load_digits (UCI optdigits); comes with the installation", framing=_DIGITS_FRAMING,
        ),
        DatasetInfo(
            "mnist", "handwritten digits", _GREY, _DIGITS, 60_000, 10_000, False, 12,
            "LeCun, Cortes and Burges 1998", _mnist_like("MNIST", sha256=_MNIST_SHA256), framing=_MNIST_FRAMING,
        ),
        DatasetInfo(
            "fashion_mnist", "pieces of clothing", _GREY, _CLOTHES, 60_000, 10_000, True, 31,
            "Xiao, Rasul and Vollgraf 2017", _mnist_like("FashionMNIST"),
        ),
        DatasetInfo(
            "kmnist", "cursive Japanese characters", _GREY, _KUZUSHIJI, 60_000, 10_000, False, 21,
            "Clanuwat et al. 2018", _mnist_like("KMNIST"),
        ),
        DatasetInfo(
            "emnist_digits", "handwritten digits of more writers", _GREY, _DIGITS, 240_000, 40_000, False, 562,
            "Cohen et al. 2017", _emnist("digits", first_label=0), framing=_EMNIST_FRAMING,
        ),
        DatasetInfo(
            "emnist_letters", "handwritten letters, both cases as one", _GREY, tuple(string.ascii_lowercase),
            124_800, 20_800, False, 562, "Cohen et al. 2017", _emnist("letters", first_label=1),
            framing=_EMNIST_FRAMING,
        ),
        DatasetInfo(
            "qmnist", "MNIST rebuilt, with 60,000 test images", _GREY, _DIGITS, 60_000, 60_000, False, 21,
            "Yadav and Bottou 2019", _QMNIST, framing=_MNIST_FRAMING,
        ),
        DatasetInfo(
            "cifar10", "small colour photographs", (3, 32, 32), _CIFAR, 50_000, 10_000, True, 171,
            "Krizhevsky 2009", on_black=False,
        ),
    )
}  # fmt: skip

OWN_DATA: dict[str, OwnData] = {
    own.name: own
    for own in (
        OwnData(
            "image_folder", "your pictures, one folder per class, or train/, val/ and test/ with one each",
            "root, image_size, resize, channels, test_fraction, value_range, ground, on_bad_image, storage",
        ),
        OwnData(
            "table", "your pictures by the rows of a .csv, .tsv or .parquet file",
            "path, image_column, label_column, split_column, group_column, root, image_size, resize, channels, test_fraction, value_range, ground, on_bad_image, storage",
        ),
        OwnData(
            "arrays", "your .npz with train_images, train_labels (and the same of val and test, class_names)",
            "path, test_fraction, layout, value_range, ground",
        ),
    )
}  # fmt: skip
