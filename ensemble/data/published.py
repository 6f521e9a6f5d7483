"""What sources of published sets have in common: files in the data folder, fetched once where they are missing and may be.

class Stl10(Published): ...      # says how its files are read and fetched
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from pydantic import Field

from ensemble.config.data import DataConfig
from ensemble.data.catalogue import DatasetInfo
from ensemble.data.dataset import Dataset, shared_array
from ensemble.data.files import data_root, load_or_fetch
from ensemble.data.pixel_rule import PixelRule
from ensemble.types import ByteArray, IntArray

FourArrays = tuple[ByteArray, IntArray, ByteArray, IntArray]  # training images_NCHW and labels_N, then those to test


class Published(DataConfig):
    """A published set whose files lie below the data folder."""

    root: str | None = Field(None, description="folder of the data sets; without it $ENSEMBLE_DATA, else ./data")

    @property
    def data_folder(self) -> str | None:
        """See DataConfig."""
        return self.root

    @property
    def info(self) -> DatasetInfo:
        """What is known of the set."""
        found: DatasetInfo = self.published[self.name]
        return found

    def folder(self, root: Path) -> Path:
        """Where the files belong, for messages."""
        return root / self.info.place

    @abstractmethod
    def read(self, root: Path) -> FourArrays:
        """The images and class numbers. Raises FaultyFiles naming every file at fault."""

    @abstractmethod
    def fetch(self, root: Path) -> None:
        """Download the files into the folders below `root`. Raises FetchError."""

    def build(self) -> Dataset:
        """The data set, from disk, downloaded first where it is missing and may be.

        The root is data.root, else $ENSEMBLE_DATA, else ./data; it may be read-only when nothing is missing. Raises DataError
        for files that are missing or damaged, naming each and what to do.
        """
        root, _ = data_root(self.root, self.name)
        arrays = load_or_fetch(self, self.folder(root), lambda: self.read(root), lambda: self.fetch(root))
        return dataset_of_published(self.info, arrays)


def dataset_of_published(info: DatasetInfo, arrays: FourArrays) -> Dataset:
    """The data set of these arrays."""
    train_images, train_labels, test_images, test_labels = arrays
    return Dataset(
        name=info.name,
        train_images_NCHW=shared_array(train_images),
        train_labels_N=shared_array(train_labels),
        test_images_NCHW=shared_array(test_images),
        test_labels_N=shared_array(test_labels),
        class_names=info.class_names,
        flippable=info.flippable,
        pixels=PixelRule(ground="white" if info.framing is None else "contrast"),
    )
