"""Data sets as uint8 arrays, their division into rows, and augmentation of whole batches on the device.

Importing this package loads no torch; the augmentation itself is in `ensemble.data.augmentation`, which does.
"""

from ensemble.data.augmentation_check import check_augmentation
from ensemble.data.catalogue import DATASETS, DatasetInfo
from ensemble.data.dataset import Dataset, Split, images_digest, load_dataset, normalization, split_rows

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetInfo",
    "Split",
    "check_augmentation",
    "images_digest",
    "load_dataset",
    "normalization",
    "split_rows",
]
