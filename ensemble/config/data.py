"""What every source of images has that a configuration can name; the sources are in `ensemble/data`, a file each.

@register_data
class Stripes(DataConfig):
    \"\"\"Drawn stripes, upright and lying.\"\"\"

    name: Literal["stripes"]
    width: int = Field(3, ge=1)

    def build(self): return {"train": (images, labels), "test": (more_images, more_labels)}
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from ensemble.config.base import Part, register
from ensemble.registry import Registry

Side = Annotated[int, Field(ge=4, le=4096)]
Layout = Literal["channels_first", "channels_last"]
Ground = Literal["white", "black"]
Duplicates = Literal["tell", "leave_out"]
Storage = Literal["auto", "memory", "mapped"]
DEFAULT = "digits"  # of a section without a name

_DATA = "ensemble.data"


@dataclass(frozen=True)
class ArrayRule:
    """How arrays of one's own become images, and which share is held back: the keys of `OwnArrays`, where a source has them."""

    layout: Layout | None = None
    value_range: tuple[float, float] | None = None
    ground: Ground | None = None
    test_fraction: float | None = None
    duplicates: Duplicates | None = None


class DataConfig(Part):
    """Which images, from where, and how they are divided: the keys of every source, how it is read, what others must know of it.

    `DataConfig(name="mnist", root="data")` is a section of the class that is registered under that name.
    """

    registry: ClassVar[Registry[type[DataConfig]]] = Registry(
        "data set", "ensemble.data",
        {
            "digits": f"{_DATA}.digits", "mnist": f"{_DATA}.mnist_family", "fashion_mnist": f"{_DATA}.mnist_family",
            "kmnist": f"{_DATA}.mnist_family", "emnist_digits": f"{_DATA}.mnist_family", "emnist_letters": f"{_DATA}.mnist_family",
            "qmnist": f"{_DATA}.mnist_family", "cifar10": f"{_DATA}.cifar", "cifar100": f"{_DATA}.cifar", "svhn": f"{_DATA}.svhn",
            "stl10": f"{_DATA}.stl10", "image_folder": f"{_DATA}.image_folder", "table": f"{_DATA}.table", "webdataset": f"{_DATA}.webdataset", "arrays": f"{_DATA}.array_file",
            "python": f"{_DATA}.python", "huggingface": f"{_DATA}.huggingface",
        },
    )  # fmt: skip

    alike: ClassVar[bool] = True
    in_short: ClassVar[str] = ""  # a line for `ensemble datasets`; without it the first line of the docstring
    needed: ClassVar[str] = ""  # the keys without a default, in words, for who leaves one out
    published: ClassVar[
        Mapping[str, Any]
    ] = {}  # known sets by name (`ensemble.data.DatasetInfo`); else images of one's own
    pictures: ClassVar[bool] = False  # files that are decoded, and may be mapped: a subclass of OwnPictures
    stored_code: ClassVar[bool] = False  # it is read by executing text that its section holds

    name: str = Field(description="which data set; `ensemble datasets` tells more about each")
    download: bool = Field(True, description="fetch missing files")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the training images, stratified by class")
    calibration_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training images, stratified by class, that is kept for thresholds and prediction sets alone: no member is trained on it and nothing else is chosen by it",
    )
    max_train_rows: int | None = Field(None, ge=20, description="use only so many training images (stratified draw)")

    def __new__(cls, *_args: Any, **values: Any) -> Self:
        """An instance of the class that `name` chooses, where it is asked for by the class that stands for all."""
        return super().__new__(type(cls.choose(values)) if cls.stands_for_all() else cls)

    @classmethod
    def choose(cls, value: Any) -> Self:
        """The section that a mapping describes; without a name it is of the digits. Raises pydantic's ValidationError."""
        unnamed = isinstance(value, dict) and "name" not in value
        return super().choose({**value, "name": DEFAULT} if unnamed else value)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The section that `model_dump_json` made a text of."""
        values = json.loads(text)
        return cls.choose({key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    @classmethod
    def own_keys(cls) -> tuple[str, ...]:
        """The keys of this source that others need not have, its very own first, without those that are filled in."""
        above = [base for base in cls.__mro__ if issubclass(base, DataConfig) and not base.stands_for_all()]
        declared = dict.fromkeys(key for base in above for key in base.__annotations__ if key in cls.model_fields)
        return tuple(key for key in declared if key not in (*DataConfig.model_fields, "code"))

    @classmethod
    def complete(cls, values: Mapping[str, Any], _folder: Path, _where: str = "data") -> Mapping[str, Any]:
        """The keys of a section with what else it needs from the folder of its configuration. Raises ConfigError.

        where: the section's place in the configuration, for messages.
        """
        return values

    @classmethod
    def places(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Those keys of a section that name a file or folder of a machine."""
        return tuple(key for key in ("root", "path") if values.get(key) is not None)

    @classmethod
    def files_beside(cls, _values: Mapping[str, Any], _folder: Path) -> list[Path]:
        """Files beside the configuration, in its folder, that the section cannot be read without: a job takes them along."""
        return []

    @model_validator(mode="before")
    @classmethod
    def _own_keys_alone(cls, values: Any) -> Any:
        """Keys of other sources are refused; null ones are left out, which sections of earlier versions are full of."""
        if not isinstance(values, dict):
            return values
        foreign = [key for key in values if key not in cls.model_fields and _known(key)]
        name = values.get("name", DEFAULT)
        if unused := [key for key in foreign if values[key] is not None]:
            takes = ", ".join(cls.own_keys()) or "none of them"
            raise ValueError(f"{', '.join(unused)} has no effect with data set {name}, which takes {takes}")
        required = [key for key, field in cls.model_fields.items() if field.is_required() and key != "name"]
        if cls.needed and any(values.get(key) is None for key in required):
            raise ValueError(f"data set {name} needs {cls.needed}")
        return {key: value for key, value in values.items() if key not in foreign}

    @abstractmethod
    def build(self) -> Any:
        """The images: an `ensemble.data.Dataset`, or whatever `ensemble.train(data=...)` takes as arrays or data sets.

        Such as {"train": (images, labels), "test": ..., "validation": ...}, where a data set of (image, class number) may
        stand for each pair; without a test part a share is held back. Raises DataError for what cannot be read.
        """

    def build_unlabelled(self) -> Any:
        """As `build`, for a set of images of no class of a run, whose labels nobody looks at: a source may do without them."""
        return self.build()

    @property
    def own(self) -> bool:
        """True for images that somebody brings, of any size; False for a published set."""
        return self.name not in self.published

    @property
    def pictures_from(self) -> str:
        """Where picture files lie, for messages."""
        values = self.model_dump()
        return " and ".join(str(values[key]) for key in self.places(values) or ("path",))

    @property
    def data_folder(self) -> str | None:
        """The folder of published sets, where the section names one."""
        return None

    @property
    def label(self) -> str:
        """What the data set is called where `build` does not name it."""
        return self.name

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W), where that is known before anything is read."""
        return None if self.own else self.published[self.name].image_shape

    @property
    def num_classes(self) -> int | None:
        """As many as there are, where that is known before anything is read."""
        return None if self.own else len(self.published[self.name].class_names)

    @property
    def kept_margin(self) -> int:
        """Pixels that training pictures are kept with on each side beyond their image, see `OwnPictures.margin`."""
        return 0

    @property
    def array_rule(self) -> ArrayRule:
        """How arrays that `build` gives are read."""
        return ArrayRule()


class OwnImages(DataConfig):
    """The keys of sources in which people bring images of their own."""

    test_fraction: float | None = Field(
        None, gt=0, lt=1, description="share held back for the test where the data come without; without it 0.2"
    )
    value_range: tuple[float, float] | None = Field(
        None,
        description="own data: the values that are black and white; without it 0 to 255 for bytes, 0 to 1 for floats, and for wider whole numbers 0 to the largest number of as many bits as the training images need",
    )
    ground: Ground | None = Field(
        None,
        description="own data: what transparent parts of pictures are laid on, and the bars of data.resize pad; without it white",
    )

    duplicates: Duplicates | None = Field(
        None,
        description="own data: what to do about test images, and images of a validation part that is given, that are training images too, pixel for pixel; leave_out: judge and choose without them, and say how many; without it tell",
    )

    @model_validator(mode="after")
    def _range_has_two_ends(self) -> Self:
        if self.value_range is not None and not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
            low, high = self.value_range
            raise ValueError(f"value_range is [{low:g}, {high:g}]; expected two finite numbers, the smaller one first")
        return self

    @property
    def array_rule(self) -> ArrayRule:
        """See DataConfig."""
        return ArrayRule(None, self.value_range, self.ground, self.test_fraction, self.duplicates)


class OwnArrays(OwnImages):
    """The keys of sources that give arrays."""

    layout: Layout | None = Field(
        None,
        description="arrays: which axis of images [N, ., ., .] holds the channels; without it the one of 1 to 4, where that is clear",
    )

    @property
    def array_rule(self) -> ArrayRule:
        """See DataConfig."""
        return ArrayRule(self.layout, self.value_range, self.ground, self.test_fraction, self.duplicates)


class OwnPictures(OwnImages):
    """The keys of sources that list picture files, which `ensemble.data.decoding` makes images of."""

    pictures: ClassVar[bool] = True
    image_size: Side | tuple[Side, Side] = Field(
        description="own pictures: height and width in pixels, such as [160, 224]; one number for squares"
    )
    channels: Literal[1, 3] | None = Field(None, description="own pictures: 1 grey, 3 colour; without it 3")
    resize: Literal["crop", "pad", "squash"] | None = Field(
        None,
        description="own pictures: how pictures of other proportions are brought to image_size; crop: scaled until they cover it, the middle cut out; pad: scaled until they fit into it, bars of data.ground beside them; squash: height and width scaled each by itself; without it crop",
    )
    margin: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="own pictures: so many pixels more are kept on each side than image_size; members are trained on windows of image_size, drawn anew for every image and epoch, and validated, tested and asked on the middle one, as with pictures of 256 pixels and crops of 224 (margin: 16); without it none",
    )
    on_bad_image: Literal["stop", "skip"] | None = Field(
        None,
        description="own pictures: what to do about pictures that cannot be read; skip: go on without them, counted by class; without it stop",
    )
    storage: Storage | None = Field(
        None,
        description="own pictures: memory: decode the pictures at every start; mapped: decode them once into a file of this machine's cache, which may be larger than memory; without it auto: mapped from 64 MiB of decoded images on",
    )

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width in pixels of the images, whichever way image_size is written."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """See DataConfig."""
        return self.channels or 3, *self.height_width

    @property
    def kept_margin(self) -> int:
        """See DataConfig."""
        return self.margin or 0


def _known(key: str) -> bool:
    """True for a key that some source has."""
    return any(key in section.model_fields for section in DataConfig.choices())


_Class = TypeVar("_Class", bound=type[DataConfig])


def register_data(source: _Class) -> _Class:
    """Class decorator: configurations can name this source of images. Raises ConfigError where its name is taken."""
    register(source)
    return source
