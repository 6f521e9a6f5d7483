"""Data sets as uint8 arrays, their division into rows, and augmentation of whole batches on the device.

Importing this package loads no torch; the augmentation itself is in `ensemble.data.augmentation`, which does.
"""

from ensemble.data.augmentation_check import check_augmentation, check_views
from ensemble.data.catalogue import DATASETS, DatasetInfo, Framing
from ensemble.data.dataset import Dataset, images_digest, load_dataset, normalization, split_of
from ensemble.data.split import Split, split_rows

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetInfo",
    "Framing",
    "Split",
    "check_augmentation",
    "check_views",
    "images_digest",
    "load_dataset",
    "normalization",
    "split_of",
    "split_rows",
]
