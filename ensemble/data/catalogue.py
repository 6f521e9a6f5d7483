"""What is known of published data sets before they are read: what each holds, where it comes from, how its files are named.

    DATASETS["mnist"].framing      # of every source that is registered (`DataConfig.published`)

Nothing here touches the disk. Counts and sizes are those of the published sets; a file with fewer images of the right form is
read all the same, except for MNIST, whose four files are known by their SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ensemble.config.data import DataConfig


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
    on_black: the images show light things on a black ground. place: what lies below the data folder where the set is there.
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
    place: str = ""
    idx: IdxLayout | None = None
    framing: Framing | None = None
    on_black: bool = True


class _Published(Mapping[str, DatasetInfo]):
    """The published sets of all sources that are registered, the package's own first."""

    def __getitem__(self, name: str) -> DatasetInfo:
        section = DataConfig.registry.find(name)
        if section is None or name not in section.published:
            raise KeyError(name)
        info: DatasetInfo = section.published[name]
        return info

    def __iter__(self) -> Iterator[str]:
        return (name for name, section in DataConfig.registry.all().items() if name in section.published)

    def __len__(self) -> int:
        return sum(1 for _ in self)


DATASETS: Mapping[str, DatasetInfo] = _Published()


def by_name(*infos: DatasetInfo) -> Mapping[str, DatasetInfo]:
    """Records as `DataConfig.published` has them."""
    return {info.name: info for info in infos}
