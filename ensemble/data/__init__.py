"""Data sets as uint8 arrays, their division into rows, and augmentation of whole batches on the device.

Importing this package loads no torch; the augmentation itself is in `ensemble.data.augmentation`, which does.
"""

from ensemble.data.augmentation_check import check_augmentation, check_views
from ensemble.data.catalogue import DATASETS, OWN_DATA, DatasetInfo, Framing, OwnData
from ensemble.data.dataset import Dataset, images_digest, load_dataset, normalization, split_of
from ensemble.data.split import Split, split_rows

__all__ = [
    "DATASETS",
    "OWN_DATA",
    "Dataset",
    "DatasetInfo",
    "Framing",
    "OwnData",
    "Split",
    "check_augmentation",
    "check_views",
    "images_digest",
    "load_dataset",
    "normalization",
    "split_of",
    "split_rows",
]
