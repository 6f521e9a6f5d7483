"""The images of further sets that members vote on: the run's own test images, changed, or images from elsewhere.

    named = load_named_set(config, dataset)        # as the run's members take them
    named = calibration_set(dataset, split)

The random changes are the same in every run, so that runs can be compared image by image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ensemble.config.data import DataConfig, Ground
from ensemble.config.evaluation import CALIBRATION, TEST, UNKNOWN
from ensemble.config.schema import EvaluationConfig, SetConfig
from ensemble.data.account import Remark
from ensemble.data.corruptions import RECIPES, Corruption, problem_with
from ensemble.data.dataset import Dataset, load_dataset
from ensemble.data.duplicates import same_images
from ensemble.data.picture_reading import COLOURS
from ensemble.data.picture_tree import few
from ensemble.data.pixel_rule import UNIT, PixelRule
from ensemble.data.pixels_digest import pixels_sha256
from ensemble.data.published_corruptions import published_parts
from ensemble.data.reshaping import reshaped
from ensemble.data.split import Split
from ensemble.errors import ConfigError, DataError
from ensemble.outside.paths import given_path
from ensemble.types import ByteArray, IntArray

COMPARED_BYTES = 2 << 30  # of training images that are compared with those of further sets
SEED = 0  # of the random changes, in every run
VERSION = 1  # of how images are changed: votes on others than today's are cast anew


@dataclass(frozen=True, slots=True, eq=False)
class NamedSet:
    """Images [N, C, H, W], uint8, of the shape that the members take, and the parts that they are voted on as.

    labels_N: class numbers of the run; UNKNOWN for images of none of its classes. parts: how the images are changed; None: not
    at all. source: where they are from, in words. changed: the images of each part as they were published, where they are not to be
    changed here. elsewhere: they are not the run's own images. chooses_score: as in SetConfig. remarks: on how images from elsewhere
    were read, as a run says them of its own.
    """

    name: str
    kind: Literal["shifted", "unknown", "calibration", "known"]
    source: str
    images_NCHW: ByteArray
    labels_N: IntArray
    parts: tuple[Corruption | None, ...]
    images_sha256: str
    changed: tuple[ByteArray, ...] = ()
    elsewhere: bool = False
    chooses_score: bool = False
    remarks: tuple[Remark, ...] = ()

    def images_of(self, part: int) -> tuple[ByteArray, Corruption | None]:
        """The images of a part, and how they are still to be changed."""
        return (self.changed[part], None) if self.changed else (self.images_NCHW, self.parts[part])

    @property
    def definition(self) -> str:
        """SHA-256 of all that votes on the set depend on, but for the weights."""
        parts = [None if part is None else [part.name, part.level] for part in self.parts]
        facts = [
            VERSION,
            self.kind,
            self.images_sha256,
            hashlib.sha256(self.labels_N.tobytes()).hexdigest(),
            parts,
            SEED,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def load_named_sets(config: EvaluationConfig, dataset: Dataset, split: Split) -> list[NamedSet]:
    """The sets that the members of a run vote on besides validation and test, the calibration rows first. Raises as `load_named_set`."""
    sets = with_test_images([load_named_set(one, dataset) for one in config.sets], dataset)
    return [calibration_set(dataset, split), *sets] if len(split.calibration_rows) else sets


def with_test_images(sets: list[NamedSet], dataset: Dataset) -> list[NamedSet]:
    """Beside sets of unknown images the test images, for the energies of known ones, which the votes of a member do not have."""
    if not any(one.kind == "unknown" for one in sets):
        return sets
    images, labels_N = dataset.test_images_NCHW, dataset.test_labels_N
    digest = pixels_sha256(images, images[:0])
    return [*sets, NamedSet(TEST, "known", "the test images", images, labels_N, (None,), digest)]


def remarks_on(sets: Sequence[NamedSet], dataset: Dataset) -> Iterator[Remark]:
    """What is to be said of sets before they are voted on: how they were read, and whether members were trained on their images."""
    for one in sets:
        yield from (Remark(f"set {one.name}: {remark.text}", remark.warning) for remark in one.remarks)
    yield from (Remark(line, True) for line in seen_in_training(sets, dataset))


def seen_in_training(sets: Sequence[NamedSet], dataset: Dataset) -> Iterator[str]:
    """A sentence for each set from elsewhere that holds training images. Not looked for beside very many training images."""
    for one in sets if dataset.train_images_NCHW.nbytes <= COMPARED_BYTES else ():
        if one.elsewhere and (seen := same_images(dataset.train_images_NCHW, one.images_NCHW)):
            yield f"set {one.name}: {len(seen):,} of its {len(one.images_NCHW):,} images are training images of this run, pixel for pixel: what it says of them is too good"


def load_named_set(config: SetConfig, dataset: Dataset) -> NamedSet:
    """The images of a set, for members that were trained on `dataset`.

    Raises DataError for images that are not there or whose classes are not the run's, ConfigError for corruptions that do not
    suit the images.
    """
    if config.files is not None:
        return _published(config, given_path(config.files, "files"), dataset)
    parts = parts_of(config, dataset.image_shape)
    remarks: tuple[Remark, ...] = ()
    if config.data is None:
        images, labels_N, source = dataset.test_images_NCHW, dataset.test_labels_N, "the test images"
    else:
        images, labels_N, source, remarks = _from_elsewhere(config, config.data, dataset)
    if config.max_images is not None and config.max_images < len(images):
        rows_n = _evenly(labels_N, config.max_images)
        images, labels_N = images[rows_n], labels_N[rows_n]
        source = f"{len(rows_n):,} of {source}"
    if config.kind == "unknown":
        labels_N = np.full(len(images), UNKNOWN, np.int64)
    elif len(strange := np.flatnonzero(labels_N < 0)):
        raise DataError(f"set {config.name}: {len(strange):,} images have no class of the run")
    digest, elsewhere = pixels_sha256(images, images[:0]), config.data is not None
    return NamedSet(
        config.name, config.kind, source, images, labels_N, parts, digest, elsewhere=elsewhere, chooses_score=config.chooses_score,
        remarks=remarks,
    )  # fmt: skip


def _published(config: SetConfig, folder: Path, dataset: Dataset) -> NamedSet:
    """A benchmark's own files, which stay on the disk until they are voted on."""
    assert isinstance(config.corruptions, str), "files are of a recipe"
    found = published_parts(config.corruptions, folder, dataset.test_labels_N, dataset.image_shape)
    labels_N, count = dataset.test_labels_N, len(dataset.test_labels_N)
    changed = tuple(images for _, images in found)
    if config.max_images is not None and config.max_images < count:
        rows_n = _evenly(labels_N, config.max_images)
        labels_N, changed, count = labels_N[rows_n], tuple(images[rows_n] for images in changed), len(rows_n)
    if config.kind == "unknown":
        labels_N = np.full(count, UNKNOWN, np.int64)
    source = f"the published files of {config.corruptions} ({count:,} images)"
    parts = tuple(one for one, _ in found)
    return NamedSet(config.name, config.kind, source, changed[0], labels_N, parts, pixels_sha256(*changed), changed)


def calibration_set(dataset: Dataset, split: Split) -> NamedSet:
    """The rows that are kept for thresholds and prediction sets alone."""
    rows_n = split.calibration_rows
    images = dataset.train_images_NCHW[rows_n]
    source = "training images that no member was trained on (data.calibration_fraction)"
    labels_n = dataset.train_labels_N[rows_n]
    return NamedSet(CALIBRATION, "calibration", source, images, labels_n, (None,), pixels_sha256(images, images[:0]))


def parts_of(config: SetConfig, image_shape: tuple[int, int, int]) -> tuple[Corruption | None, ...]:
    """The parts of a set, in order. Raises ConfigError for corruptions that there are not, or not at such a level."""
    if isinstance(config.corruptions, str):
        listed = [(one.name, one.level) for one in RECIPES[config.corruptions]]
    else:
        listed = list(_listed(config.corruptions))
    found: list[Corruption] = []
    for name, level in listed:
        if problem := problem_with(name, level, image_shape):
            raise ConfigError(f"evaluation.sets: {config.name}: corruptions: {problem}")
        found.append(Corruption(name, level))
    if len(set(found)) != len(found):
        raise ConfigError(
            f"evaluation.sets: {config.name}: corruptions: the same corruption and level stand there twice"
        )
    return tuple(found) or (None,)


def _listed(corruptions: Sequence[dict[str, tuple[float, ...]]]) -> Iterator[tuple[str, float | None]]:
    for entry in corruptions:
        for name, levels in entry.items():
            yield from ((name, level) for level in levels or (None,))


def _from_elsewhere(
    config: SetConfig, data: DataConfig, dataset: Dataset
) -> tuple[ByteArray, IntArray, str, tuple[Remark, ...]]:
    """Images, labels, where they are from, and what is odd about how they were read."""
    try:
        other = load_dataset(
            _as_the_run_reads(data, dataset), labelled=config.kind != "unknown" or config.part == "test"
        )
    except DataError as error:
        raise DataError(f"set {config.name}: {error}") from error
    whole = config.part == "all" or (config.part is None and data.own)
    names = {part.name for part in other.account.parts}
    used = [part for part in other.account.parts if whole or "test" not in names or part.name == "test"]
    account = replace(other.account, parts=tuple(used))
    remarks = [remark for remark in account.remarks() if remark.warning and not (whole and remark.of_division)]
    mine, theirs = dataset.pixels.range_of(np.dtype(np.uint16)), other.pixels.range_of(np.dtype(np.uint16))
    if other.pixels.wide_range is not None and mine != theirs and mine[1] > UNIT[1]:
        remarks.append(
            Remark(
                f"its values of more than 8 bits were read with {theirs[1]:g} as white, those of the run with {mine[1]:g}; for the run's "
                f"way, in which `ensemble predict` reads them too, set value_range: [{mine[0]:g}, {mine[1]:g}] in the set's data",
                True,
            )
        )
    images, labels_N = other.test_images_NCHW, other.test_labels_N
    if whole and not len(images):  # nothing is copied, since it may be mapped
        images, labels_N = other.train_images_NCHW, other.train_labels_N
    elif whole:
        images = np.concatenate([other.train_images_NCHW, other.test_images_NCHW])
        labels_N = np.concatenate([other.train_labels_N, other.test_labels_N])
    source = f"{'all images' if whole else 'the test images'} of {other.name}"
    if lost := sum(len(left) for part in used for left in part.left_out.values()):
        source += f", {lost:,} files left out"
    if other.image_shape != dataset.image_shape:
        # With the margin that pictures of another size have at prediction, where they have not had one already.
        same_size = other.image_shape[1:] == dataset.image_shape[1:]
        rule = replace(dataset.pixels, margin=0) if same_size or other.pixels.margin else dataset.pixels
        images = reshaped(images, dataset.image_shape, rule)
        source += f", {_sides(other.image_shape)} brought to {_sides(dataset.image_shape)}"
    if config.kind == "shifted":
        labels_N = _as_classes_of(dataset, other, labels_N, config.name)
    return images, labels_N, source, tuple(remarks)


def _as_the_run_reads(data: DataConfig, dataset: Dataset) -> DataConfig:
    """The section with the run's way of reading pixels where it says nothing itself; `predict` reads pictures so too."""
    rule, usual = dataset.pixels, {**asdict(PixelRule()), "channels": COLOURS}
    own: dict[str, Any] = {"resize": rule.resize}
    if data.pictures and dataset.image_shape[0] in (1, COLOURS):
        own["channels"] = dataset.image_shape[0]
    if data.image_shape is not None and data.image_shape[1:] == dataset.image_shape[1:]:
        own["margin"] = rule.margin  # pictures of another size are brought to the run's afterwards, margin and all
    if rule.value_range is None or rule.value_range[1] > UNIT[1] or not data.pictures:
        own["value_range"] = rule.value_range  # a range of fractions would make every byte of a picture white
    if rule.ground in get_args(Ground):  # the rule of the published sets of characters is none that a section can give
        own["ground"] = rule.ground
    unset = {
        name: value
        for name, value in own.items()
        if name in type(data).model_fields and getattr(data, name) is None and value != usual[name]
    }
    return data.model_copy(update=unset)


def _as_classes_of(dataset: Dataset, other: Dataset, labels_N: IntArray, name: str) -> IntArray:
    """Labels as class numbers of the run. Raises DataError where a class is not among the run's."""
    numbers = {known: k for k, known in enumerate(dataset.class_names)}
    present = [other.class_names[k] for k in np.unique(labels_N)]
    if strange := [one for one in present if one not in numbers]:
        raise DataError(
            f"set {name}: its images are of the classes {few(strange)}, which the run does not have ({few(list(dataset.class_names))}); "
            "give them the names of the run's classes, or kind: unknown for images of none of them"
        )
    numbers_K = np.array([numbers.get(one, UNKNOWN) for one in other.class_names], np.int64)
    found_N: IntArray = numbers_K[labels_N]
    return found_N


def _evenly(labels_N: IntArray, count: int) -> IntArray:
    """Rows, ascending, in which the classes have about the shares that they have in all."""
    by_class = np.argsort(labels_N, kind="stable")
    places = np.floor(np.arange(count) * (len(labels_N) / count)).astype(np.int64)
    rows_n: IntArray = np.sort(by_class[places])
    return rows_n


def _sides(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))
