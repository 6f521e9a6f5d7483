"""The data set of a stored run: the same that its members were trained and judged on, or none.

dataset = load_run_data(folder)             # compared with what the run noted
images = disputed_images(folder)            # kept in the run itself, whatever became of the data set
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensemble.config.data import DataConfig
from ensemble.config.loading import parse_stored
from ensemble.data import Dataset, Split, images_digest, load_dataset, split_of
from ensemble.errors import ConfigError, StorageError
from ensemble.storage import Labels, RunFolder
from ensemble.storage.atomic import read_npz
from ensemble.storage.member_files import same_labels
from ensemble.storage.names import CONFIG, DATASET, DISPUTED, LABELS, WRONG
from ensemble.storage.parsing import array_of
from ensemble.storage.remedies import unfit
from ensemble.types import ByteArray


def load_run_data(folder: RunFolder, trust_code: bool = False) -> Dataset:
    """The data set of a run. Raises DataError when it is not there, StorageError when it is not what it was.

    trust_code: code that the folder holds may be executed, where the data are read by some; else such a run is a ConfigError.
    """
    experiment = parse_stored(folder.config(), str(folder.path / CONFIG))
    require_trust(folder.path, experiment.data, trust_code)
    dataset = load_dataset(experiment.data)
    split = split_of(dataset, experiment.data, experiment.seed)
    require_same_data(folder, dataset, split)
    return dataset


def require_trust(run: Path, data: DataConfig, trust_code: bool) -> None:
    """Raises ConfigError where reading these data of a stored run would execute code that its folder holds, unasked."""
    if data.stored_code and not trust_code:
        raise ConfigError(
            f"{run}: data of this run are read by Python code that its folder holds (data.code in {CONFIG}), and reading them would execute that; read it, then give --trust-code"
        )


def labels_of(dataset: Dataset, split: Split) -> Labels:
    """What votes on this data set and split are judged against."""
    return Labels(split.train_rows, split.validation_rows, dataset.train_labels_N, dataset.test_labels_N)


def require_same_data(folder: RunFolder, dataset: Dataset, split: Split) -> None:
    """Raises StorageError when a run was begun with other images, labels, classes or another split.

    Runs of earlier versions noted less, and a run that has not come so far has noted nothing; what there is is compared.
    """
    if folder.has(LABELS) and not same_labels(folder.load_labels(), labels_of(dataset, split)):
        raise _changed(folder, "labels or split")
    if not folder.has(DATASET):
        return
    known = folder.dataset()
    if known.class_names != list(dataset.class_names):
        raise _changed(
            folder, f"classes ({', '.join(dataset.class_names)[:80]}; {', '.join(known.class_names)[:80]} then)"
        )
    if known.image_shape not in (None, list(dataset.image_shape)):
        raise _changed(folder, f"shape of images ({list(dataset.image_shape)}; {known.image_shape} then)")
    if known.images_sha256 not in (None, images_digest(dataset)):
        raise _changed(folder, "images")


def _changed(folder: RunFolder, what: str) -> StorageError:
    return StorageError(
        f"{folder.path}: the data set's {what} are not those this run began with; restore the data, or give the run another name=..."
    )


def disputed_images(folder: RunFolder) -> dict[int, ByteArray]:
    """The test images [C, H, W] that the members dispute most, by row, as the run keeps them; none where it kept none."""
    return _kept_images(folder, DISPUTED)


def kept_images(folder: RunFolder) -> dict[int, ByteArray]:
    """All test images [C, H, W] that the run keeps, by row: the disputed ones, and the surest mistakes."""
    return {**_kept_images(folder, WRONG), **disputed_images(folder)}


def _kept_images(folder: RunFolder, name: str) -> dict[int, ByteArray]:
    if not folder.has(name):
        return {}
    where = folder.path / name
    arrays = read_npz(folder.read_bytes(name), where)
    rows = array_of(arrays, "rows", where, "i", (None,))
    shape = folder.dataset().image_shape if folder.has(DATASET) else None
    images = array_of(arrays, "images", where, "u", (len(rows), *(shape or (None, None, None))))
    if images.dtype != np.uint8:
        raise unfit(where, f"images are {images.dtype}; expected uint8")
    return {int(row): image for row, image in zip(rows, images, strict=True)}


def test_images(folder: RunFolder, rows: Sequence[int], trust_code: bool = False) -> ByteArray:  # noqa: PT028  # no test
    """These test images [N, C, H, W]: the run's own copies, or the data set's where the run has none, after comparing it."""
    kept = kept_images(folder)
    if rows and kept.keys() >= set(rows):
        return np.stack([kept[row] for row in rows])
    images: ByteArray = load_run_data(folder, trust_code).test_images_NCHW[np.asarray(rows, np.int64)]
    return images
