"""The section on data: which images, from where, and how they are divided."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from ensemble.config.base import Section

DataName = Literal[
    "digits", "mnist", "fashion_mnist", "kmnist", "emnist_digits", "emnist_letters", "qmnist", "cifar10",
    "image_folder", "table", "arrays",
]  # fmt: skip
Side = Annotated[int, Field(ge=4, le=4096)]
PICTURES = frozenset({"image_folder", "table"})  # data sets of picture files
# Data sets that take each optional key of the data section; elsewhere the key would have no effect.
DATA_KEYS: dict[str, frozenset[str]] = {
    "root": frozenset(get_args(DataName)) - {"digits", "arrays"},
    "path": frozenset({"table", "arrays"}),
    "image_column": frozenset({"table"}),
    "label_column": frozenset({"table"}),
    "split_column": frozenset({"table"}),
    "group_column": frozenset({"table"}),
    "channels": PICTURES,
    "image_size": PICTURES,
    "resize": PICTURES,
    "test_fraction": PICTURES | {"arrays"},
    "layout": frozenset({"arrays"}),
    "value_range": PICTURES | {"arrays"},
    "ground": PICTURES | {"arrays"},
    "on_bad_image": PICTURES,
    "storage": PICTURES,
}


class DataConfig(Section):
    """Which images, from where, and how they are divided."""

    name: DataName = Field("digits", description="which data set; `ensemble datasets` tells more about each")
    root: str | None = Field(
        None,
        description="folder of the data sets; without it $ENSEMBLE_DATA, else ./data. image_folder: the folder itself; table: the folder of its files; of these two also an address, s3://bucket/photos",
    )
    path: str | None = Field(
        None,
        description="arrays: the .npz file with images and labels; table: the .csv, .tsv or .parquet file; or the address of one",
    )
    image_column: str | None = Field(
        None, min_length=1, description="table: the column with the picture files, seen from root or the table's folder"
    )
    label_column: str | None = Field(None, min_length=1, description="table: the column with the classes")
    split_column: str | None = Field(
        None,
        min_length=1,
        description="table: the column that says train, val or test; without it a test part is split off",
    )
    group_column: str | None = Field(
        None,
        min_length=1,
        description="table: the column whose equal values keep rows together, such as all pictures of a patient, where a test or validation part is split off",
    )
    channels: Literal[1, 3] | None = Field(None, description="own pictures: 1 grey, 3 colour; without it 3")
    image_size: Side | tuple[Side, Side] | None = Field(
        None, description="own pictures: height and width in pixels, such as [160, 224]; one number for squares"
    )
    resize: Literal["crop", "pad", "squash"] | None = Field(
        None,
        description="own pictures: how pictures of other proportions are brought to image_size; crop: scaled until they cover it, the middle cut out; pad: scaled until they fit into it, bars of data.ground beside them; squash: height and width scaled each by itself; without it crop",
    )
    test_fraction: float | None = Field(
        None, gt=0, lt=1, description="share held back for the test where the data come without; without it 0.2"
    )
    layout: Literal["channels_first", "channels_last"] | None = Field(
        None,
        description="arrays: which axis of images [N, ., ., .] holds the channels; without it the one of 1 to 4, where that is clear",
    )
    value_range: tuple[float, float] | None = Field(
        None,
        description="own data: the values that are black and white; without it 0 to 255 for bytes, 0 to 1 for floats, and for wider whole numbers 0 to the largest number of as many bits as the training images need",
    )
    ground: Literal["white", "black"] | None = Field(
        None,
        description="own data: what transparent parts of pictures are laid on, and the bars of data.resize pad; without it white",
    )
    on_bad_image: Literal["stop", "skip"] | None = Field(
        None,
        description="own pictures: what to do about pictures that cannot be read; skip: go on without them, counted by class; without it stop",
    )
    storage: Literal["auto", "memory", "mapped"] | None = Field(
        None,
        description="own pictures: memory: decode the pictures at every start; mapped: decode them once into a file of this machine's cache, which may be larger than memory; without it auto: mapped from 64 MiB of decoded images on",
    )
    download: bool = Field(True, description="fetch missing files")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the training images, stratified by class")
    calibration_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training images, stratified by class, that is kept for thresholds and prediction sets alone: no member is trained on it and nothing else is chosen by it",
    )
    max_train_rows: int | None = Field(None, ge=20, description="use only so many training images (stratified draw)")

    @model_validator(mode="after")
    def _keys_fit_data_set(self) -> Self:
        unused = [key for key, names in DATA_KEYS.items() if getattr(self, key) is not None and self.name not in names]
        if unused:
            takes = ", ".join(key for key, names in DATA_KEYS.items() if self.name in names) or "none of them"
            raise ValueError(f"{', '.join(unused)} has no effect with data set {self.name}, which takes {takes}")
        if self.value_range is not None and not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
            low, high = self.value_range
            raise ValueError(f"value_range is [{low:g}, {high:g}]; expected two finite numbers, the smaller one first")
        if self.name == "arrays" and self.path is None:
            raise ValueError("data set arrays needs path, the .npz file with train_images and train_labels")
        if self.name == "image_folder" and (self.root is None or self.image_size is None):
            raise ValueError("data set image_folder needs root, a folder with one folder per class, and image_size")
        if self.name == "table" and None in (self.path, self.image_column, self.label_column, self.image_size):
            raise ValueError(
                "data set table needs path, a .csv, .tsv or .parquet file, image_column and label_column, the names of its columns, and image_size"
            )
        return self

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width in pixels of the images of one's own pictures, whichever way image_size is written."""
        assert self.image_size is not None
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
