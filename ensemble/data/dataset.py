"""Data sets as arrays of bytes.

    dataset = load_dataset(experiment.data)
    split = split_of(dataset, experiment.data, experiment.seed)      # see `split`
    mean_C, std_C = normalization(dataset, split)

Images are uint8 arrays, in memory (47 MB for MNIST) or mapped from a file of pictures that were decoded once (`mapped`). There is no
loader process and no image library between them and the network. The arrays are read-only, because tasks share them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ensemble.config.data import DataConfig
from ensemble.data.account import Account
from ensemble.data.arrays import Arrays, check_names, parts_of_arrays
from ensemble.data.class_spelling import spelling_remarks
from ensemble.data.map_style import given_arrays
from ensemble.data.mapped import middle, place_of, remembered
from ensemble.data.own_parts import Parts
from ensemble.data.pixel_rule import PixelRule
from ensemble.data.pixels_digest import pixels_sha256
from ensemble.data.regular_files import shown
from ensemble.data.split import Split, split_rows
from ensemble.errors import DataError
from ensemble.outside.object_storage import is_address
from ensemble.outside.paths import given_path
from ensemble.types import ByteArray, FloatArray, IntArray

T = TypeVar("T", bound=np.generic)
COUNTED_PIXELS = 1 << 22  # of a channel at a time


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Training and test images with their classes. All arrays are read-only, and C-contiguous but for images with a margin.

    Those are the middle of what is kept: `kept` has all of it, `pixels.margin` more on each side. flippable: a horizontally mirrored image keeps its class. pixels: how pictures like these become bytes, which the run
    keeps for predicting. account: what was read of a person's own data and what was not.
    """

    name: str
    train_images_NCHW: ByteArray
    train_labels_N: IntArray
    test_images_NCHW: ByteArray
    test_labels_N: IntArray
    class_names: tuple[str, ...]
    flippable: bool
    pixels: PixelRule = field(default_factory=PixelRule)
    account: Account = field(default_factory=Account)
    train_files: tuple[str, ...] = ()  # of each image, below data.root; empty where they are no files
    test_files: tuple[str, ...] = ()
    validation_rows: IntArray | None = None  # of the training part, where such a part is given
    groups_N: IntArray | None = (
        None  # number of the group of each training row, where the rows of a group stay together
    )
    kept: tuple[ByteArray, ByteArray] | None = None  # training and test images with their margin, where they have one

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.train_images_NCHW.shape
        return channels, height, width

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def kept_images(self) -> tuple[ByteArray, ByteArray]:
        """Training and test images with the margin they are kept with, C-contiguous: [N, C, H + 2 margin, W + 2 margin]."""
        return self.kept or (self.train_images_NCHW, self.test_images_NCHW)


def load_dataset(config: DataConfig, labelled: bool = True) -> Dataset:
    """The data set of a section. Raises DataError for what is missing, damaged or no data set, naming it and what to do.

    labelled: False where nobody looks at the labels; some sources then have all images in the training part.
    """
    made = config.build() if labelled else config.build_unlabelled()
    if isinstance(made, Dataset):
        return made
    arrays = given_arrays(made, f"data set {config.label}")
    if arrays is None:
        raise DataError(
            f"data set {config.label}: found {type(made).__name__}; expected {{'train': ..., 'test': ...}} with data sets of (image, class number) or pairs (images, labels), or arrays by the names of an .npz file, train_images and train_labels"
        )
    return dataset_of_arrays(arrays, config, config.label)


def dataset_of_arrays(arrays: Arrays, config: DataConfig, name: str, where: str = "") -> Dataset:
    """A data set of arrays in memory, by the names they have in an .npz file. where: for messages. Raises DataError as for such a file."""
    path = Path(where or name)
    check_names(path, arrays)
    return dataset_of_parts(name, parts_of_arrays(arrays, path, config))


def dataset_from(written: str, source: str, parts: Parts) -> Dataset:
    """A data set of somebody's own that is called after its folder or file, as it is written in the section of a source."""
    place = Path(written) if is_address(written) else given_path(written, "data.root or data.path").resolve()
    return dataset_of_parts(f"{shown(place.name)} ({source})", parts)


def dataset_of_parts(name: str, parts: Parts) -> Dataset:
    """A data set of somebody's own. Whether flips keep a class only they can know. Raises DataError for class names that read the same."""
    said = spelling_remarks(name, parts.class_names)
    kept = shared_array(parts.train.images_NCHW), shared_array(parts.test.images_NCHW)
    return Dataset(
        name=name,
        train_images_NCHW=middle(kept[0], parts.pixels.margin),
        train_labels_N=shared_array(parts.train.labels_N),
        test_images_NCHW=middle(kept[1], parts.pixels.margin),
        test_labels_N=shared_array(parts.test.labels_N),
        class_names=parts.class_names,
        flippable=True,
        pixels=parts.pixels,
        account=replace(parts.account, others=(*parts.account.others, *said)),
        train_files=parts.train.files,
        test_files=parts.test.files,
        validation_rows=parts.validation_rows,
        groups_N=parts.groups_N,
        kept=kept if parts.pixels.margin else None,
    )


def split_of(dataset: Dataset, config: DataConfig, seed: int) -> Split:
    """The training rows of a data set divided as `split_rows` does, or as it comes divided itself."""
    return split_rows(
        dataset.train_labels_N, dataset.num_classes, config, seed, dataset.class_names, dataset.validation_rows,
        dataset.groups_N,
    )  # fmt: skip


def normalization(dataset: Dataset, split: Split) -> tuple[FloatArray, FloatArray]:
    """mean_C and std_C (population) of the training rows' pixels in [0, 1], their margins too; validation and test are not looked at."""
    rows_sha256 = hashlib.sha256(np.ascontiguousarray(split.train_rows).data).hexdigest()[:32]
    images, rows = dataset.kept_images[0], split.train_rows
    histogram_CV = np.array(remembered(images, f"levels-{rows_sha256}", lambda: _histogram(images, rows)), np.int64)
    values = np.arange(256) / 255.0
    share_CV = histogram_CV / histogram_CV.sum(axis=1, keepdims=True)
    mean_C = share_CV @ values
    std_C = np.sqrt((share_CV * (values - mean_C[:, None]) ** 2).sum(axis=1))
    std_C[std_C == 0] = 1.0  # a constant channel: centred it is zero, whatever it is divided by
    return mean_C.astype(np.float32), std_C.astype(np.float32)


def images_digest(dataset: Dataset) -> str:
    """SHA-256 of all training and test pixels, their margins too: whether a run goes on with the images it began with."""
    train, test = (place_of(images) for images in dataset.kept_images)
    if train is not None and test is not None and train.sha256 == test.sha256:
        return train.sha256
    return pixels_sha256(*dataset.kept_images)


def _histogram(images_NCHW: ByteArray, rows: IntArray) -> list[list[int]]:
    """How often each level occurs in each channel of these rows: [C][256]."""
    channels, height, width = images_NCHW.shape[1:]
    histogram_CV = np.zeros((channels, 256), np.int64)
    at_once = max(1, COUNTED_PIXELS // (height * width))
    for start in range(0, len(rows), at_once):  # counting needs 8 bytes per pixel, so not all at once
        images = images_NCHW[rows[start : start + at_once]]
        for c in range(channels):
            histogram_CV[c] += np.bincount(images[:, c].ravel(), minlength=256)
    return [[int(count) for count in levels] for levels in histogram_CV]


def shared_array(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """The array, contiguous and read-only."""
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array
