"""`data.name: image_folder`: one folder per class, as torchvision's ImageFolder has it.

    flowers/rose/1.jpg  flowers/tulip/2.png ...                    a test part is split off
    flowers/train/rose/1.jpg ... flowers/test/rose/9.jpg ...       the parts are given

Pictures become uint8 squares of data.image_size pixels, grey or RGB (data.channels), and are held in memory, or decoded once
into a mapped file (data.storage). What lies in the folders is used or accounted for (`account`); all pictures are read by one
rule (`pixel_rule`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.config.schema import DataConfig
from ensemble.data.account import Account, PartAccount, Remark, used_by_class
from ensemble.data.class_folders import find_layout
from ensemble.data.mapped import Place, map_images
from ensemble.data.own_parts import Part, Parts, held_back, pixels_sha256
from ensemble.data.picture_reading import InMemory, PictureReader, Room, level_remarks, pixel_remarks
from ensemble.data.picture_tree import DAMAGED, Found, LeftOut, beside, few, pictures_below, reasons_text
from ensemble.data.pictures import SUFFIXES
from ensemble.data.pixel_rule import PixelRule
from ensemble.data.prepared import PreparedFolder, prepared
from ensemble.data.regular_files import list_folder, shown
from ensemble.errors import DataError
from ensemble.outside.long_work import working
from ensemble.outside.memory import available_memory
from ensemble.outside.paths import given_path
from ensemble.types import ByteArray, IntArray

SHOWN = 5
FORMAT = 1  # of prepared folders; a new number where the same pictures would be decoded to other bytes
MAPPED_FROM = 1 << 26  # bytes of decoded images from which data.storage auto maps them

MakeRoom = Callable[[str, tuple[int, int, int, int]], Room]
Choose = Callable[[str, Sequence[ByteArray], IntArray, IntArray], ByteArray]


@dataclass(frozen=True, eq=False)
class _Listed:
    """The files of a part. files: of all classes, one after the other, with their class numbers."""

    root: Path
    files: list[Path]
    labels_N: IntArray
    left_out: dict[str, tuple[LeftOut, ...]]


@dataclass(frozen=True, eq=False)
class _Listing:
    """All files, part after part, as they lie in the folders. parts: their names for the account.

    divided: one part lies there, of which another is held back.
    """

    root: Path
    parts: dict[str, _Listed]
    class_names: tuple[str, ...]
    divided: bool
    config: DataConfig

    @property
    def files(self) -> list[Path]:
        return [file for listed in self.parts.values() for file in listed.files]

    @property
    def labels_N(self) -> IntArray:
        return np.concatenate([listed.labels_N for listed in self.parts.values()])

    @property
    def training(self) -> str:
        """Where the training pictures lie, for messages."""
        return shown(next(iter(self.parts.values())).root)

    def rows_without(self, faults: Mapping[int, str]) -> dict[str, IntArray]:
        """The rows of the training and the test part, ascending, when the files of these rows are left out."""
        usable_N = np.ones(len(self.files), bool)
        usable_N[list(faults)] = False
        rows = np.flatnonzero(usable_N)
        if not self.divided:
            trains = len(next(iter(self.parts.values())).files)
            return {"train": rows[rows < trains], "test": rows[rows >= trains]}
        (whole,) = self.parts.values()
        names = [whole.files[row].relative_to(whole.root).as_posix() for row in rows]
        test_N = held_back(whole.labels_N[rows], names, self.class_names, self.config)
        return {"train": rows[~test_N], "test": rows[test_N]}


@dataclass(frozen=True, eq=False)
class Decoded:
    """The images of both parts, and what was found on the way. faults: row of the listing -> what is wrong with the file."""

    images_NCHW: Mapping[str, ByteArray]
    faults: Mapping[int, str]
    rule: PixelRule
    remarks: Sequence[Remark]


def load_image_folder(config: DataConfig) -> Parts:
    """Training and test part. Raises DataError naming the folders and pictures at fault."""
    listing = _list(config)
    reader = PictureReader(config)
    wants = len(listing.files) * int(np.prod(reader.image_shape))
    mapped = config.storage == "mapped" or (config.storage in (None, "auto") and wants >= MAPPED_FROM)
    decoded = (_mapped(listing, reader) if mapped else None) or _in_memory(listing, reader, wants)
    _check_damage(listing, decoded.faults)
    return _assembled(listing, decoded)


def _list(config: DataConfig) -> _Listing:
    assert config.root is not None
    root = given_path(config.root, "data.root")
    if not os.path.isdir(root):  # noqa: PTH112  # Path.is_dir raises where the way there may not be looked at
        raise DataError(f"data.root: no folder {shown(root)}; expected one with a folder of pictures per class")
    list_folder(root)
    layout = find_layout(root)
    if layout.test_root is not None and config.test_fraction is not None:
        raise DataError(
            f"data.test_fraction: found {config.test_fraction}, but {shown(layout.test_root)} is the test part; remove one"
        )
    class_names = tuple(layout.train)
    train = _listed(layout.train_root, layout.train, class_names)
    if layout.test_root is None:
        return _Listing(root, {shown(train.root.name): train}, class_names, True, config)
    test = _listed(layout.test_root, layout.test, class_names)
    if layout.train_root.parent == root and layout.train_root != root:
        train.left_out[""] = (*train.left_out.get("", ()), *beside(root))
    return _Listing(root, {"train": train, "test": test}, class_names, False, config)


def _decode(listing: _Listing, reader: PictureReader, make_room: MakeRoom, choose: Choose) -> Decoded:
    """Read all files, each part into its room.

    choose: makes the images of a part of rows of several arrays, where damaged files have left gaps.
    """
    files, expected = listing.files, listing.rows_without({})
    readings = {
        name: reader.read([files[row] for row in rows], make_room(name, (len(rows), *reader.image_shape)))
        for name, rows in expected.items()
    }
    faults = {int(expected[name][row]): text for name, read in readings.items() for row, text in read.faults.items()}
    wide = {int(expected[name][row]): found for name, read in readings.items() for row, found in read.wide.items()}
    _check_damage(listing, faults)
    rows = listing.rows_without(faults)
    rule = reader.rule([wide[row] for row in rows["train"].tolist() if row in wide], listing.training)
    for read in readings.values():
        reader.read_wide(read, rule)
    sources = [read.images_NCHW for read in readings.values()]
    source_N, row_N = np.empty((2, len(files)), np.int64)
    for number, own in enumerate(expected.values()):
        source_N[own], row_N[own] = number, np.arange(len(own))
    images = {
        name: sources[number]
        if np.array_equal(rows[name], expected[name])
        else choose(name, sources, source_N[rows[name]], row_N[rows[name]])
        for number, name in enumerate(expected)
    }
    low, high = _levels(images["train"])
    return Decoded(images, faults, rule, [*pixel_remarks(rule, list(readings.values())), *level_remarks(low, high)])


def _levels(images_NCHW: ByteArray) -> tuple[int, int]:
    """The darkest and the brightest level of all."""
    parts = [images_NCHW[start : start + 1024] for start in range(0, len(images_NCHW), 1024)]
    return min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)


def _in_memory(listing: _Listing, reader: PictureReader, wants: int) -> Decoded:
    """Raises DataError where so many bytes are not free."""
    free = available_memory()
    if free is not None and wants > free:
        raise DataError(
            f"{listing.training}: {len(listing.files):,} pictures need {wants / 2**30:.1f} GiB of memory as {_described(reader)}, "
            f"and {free / 2**30:.1f} GiB are free; set data.storage=mapped with room for them in the cache folder ($ENSEMBLE_CACHE), or a smaller data.image_size"
        )
    return _decode(listing, reader, lambda _name, shape: InMemory(shape), _chosen)


def _described(reader: PictureReader) -> str:
    channels, height, width = reader.image_shape
    return f"{height}x{width} pixels in {channels} channels"


def _mapped(listing: _Listing, reader: PictureReader) -> Decoded | None:
    """The images as an earlier start has decoded them on this machine, or decoded now; None where data.storage may be memory
    and they cannot be kept. Raises DataError where they must be mapped and cannot be kept.
    """
    try:
        with prepared(_key(listing, reader)) as folder:
            index = folder.finished() or _prepare(folder, listing, reader)
            folder.touch()
            return _opened(folder, index, listing.config)
    except (OSError, RuntimeError) as error:
        if listing.config.storage == "mapped":
            raise DataError(
                f"data.storage is mapped, but decoded pictures cannot be kept: {error}; set ENSEMBLE_CACHE to a folder of yours "
                f"with {len(listing.files) * int(np.prod(reader.image_shape)) / 2**30:.1f} GiB free, or data.storage=memory"
            ) from error
        return None


def _key(listing: _Listing, reader: PictureReader) -> str:
    """Of all that decides what the images of a folder are: names, sizes and times of the files, and how they are read."""
    import PIL

    config = listing.config
    rule = [reader.image_shape, config.value_range, config.ground, listing.divided and config.test_fraction]
    digest = hashlib.sha256(json.dumps([FORMAT, PIL.__version__, os.fspath(listing.root.resolve()), rule]).encode())
    for file, label in zip(listing.files, listing.labels_N.tolist(), strict=True):
        facts = file.stat()
        name = os.fsencode(file.relative_to(listing.root))
        digest.update(b"%s\0%d %d %d\n" % (name, label, facts.st_size, facts.st_mtime_ns))
    return digest.hexdigest()[:32]


def _prepare(folder: PreparedFolder, listing: _Listing, reader: PictureReader) -> dict[str, Any]:
    """Decode all files into a folder; returns its index."""

    def choose(name: str, images: Sequence[ByteArray], source_N: IntArray, row_N: IntArray) -> ByteArray:
        path = folder.chosen(name, images, source_N, row_N)
        return np.memmap(path, np.uint8, "r", shape=(len(row_N), *reader.image_shape))

    decoded = _decode(listing, reader, folder.part, choose)
    with working("looking through the decoded pictures"):
        images = {name: part for name, part in decoded.images_NCHW.items() if isinstance(part, np.memmap)}
        for part in images.values():
            part.flush()  # wide ones were filled in after the last note
        index = {
            "root": os.fspath(listing.root.resolve()),
            "sha256": pixels_sha256(*images.values()),
            "rule": decoded.rule.to_json(),
            "remarks": [[remark.text, remark.warning] for remark in decoded.remarks],
            "faults": {str(row): text for row, text in decoded.faults.items()},
            "parts": {
                name: {"file": Path(str(part.filename)).name, "shape": part.shape} for name, part in images.items()
            },
        }
        folder.finish(index)
    return index


def _opened(folder: PreparedFolder, index: dict[str, Any], config: DataConfig) -> Decoded:
    source = config.model_copy(update={"root": index["root"], "storage": "mapped"}).model_dump_json()
    images = {
        name: map_images(
            Place(os.fspath(folder.path), part["file"], tuple(part["shape"]), source, name, str(index["sha256"]))
        )
        for name, part in index["parts"].items()
    }
    faults = {int(row): str(text) for row, text in index["faults"].items()}
    remarks = [Remark(str(text), bool(warning)) for text, warning in index["remarks"]]
    return Decoded(images, faults, PixelRule.from_json(index["rule"]), remarks)


def _chosen(_name: str, images: Sequence[ByteArray], source_N: IntArray, row_N: IntArray) -> ByteArray:
    """Row row_N[n] of images[source_N[n]], for every n."""
    chosen = np.empty((len(row_N), *images[0].shape[1:]), np.uint8)
    for source, pixels in enumerate(images):
        chosen[source_N == source] = pixels[row_N[source_N == source]]
    return chosen


def _assembled(listing: _Listing, decoded: Decoded) -> Parts:
    """The parts with labels, names and the account of what was read and what was not."""
    files, labels_N, rows = listing.files, listing.labels_N, listing.rows_without(decoded.faults)
    train, test = (
        Part(decoded.images_NCHW[name], labels_N[rows[name]], _files(listing.root, [files[row] for row in rows[name]]))
        for name in ("train", "test")
    )
    accounts, first, in_test = [], 0, 0
    for name, listed in listing.parts.items():
        own = [row - first for row in sorted(decoded.faults) if first <= row < first + len(listed.files)]
        accounts.append(_account(name, listed, own, listing.class_names))
        first, in_test = first + len(listed.files), len(own)
    remarks = [*decoded.remarks]
    if listing.divided:
        held = f"{len(test.labels_N):,} of these are held back as the test part (data.test_fraction)"
        remarks.insert(0, Remark(held))
        if decoded.faults:
            lost = f"{len(decoded.faults):,} damaged pictures are in no part, so that nothing judges them"
            remarks.append(Remark(lost, True))
    elif in_test:
        lost = f"{in_test:,} damaged pictures of the test part are not judged: no error rate counts them"
        remarks.append(Remark(lost, True))
    return Parts(train, test, listing.class_names, decoded.rule, Account(tuple(accounts), tuple(remarks)))


def _files(root: Path, paths: Sequence[Path]) -> tuple[str, ...]:
    """Paths below data.root; bytes that are no text are written as \\xNN."""
    return tuple(os.fsencode(path.relative_to(root).as_posix()).decode(errors="backslashreplace") for path in paths)


def _listed(root: Path, folders: dict[str, Path], class_names: tuple[str, ...]) -> _Listed:
    """All pictures of a part, class by class. Raises DataError for classes without any."""
    found = {name: pictures_below(folder) for name, folder in folders.items()}
    if empty := [_empty(name, below) for name, below in found.items() if not below.files]:
        raise DataError(
            f"{shown(root)}: {few(empty)}; expected pictures ({', '.join(sorted(SUFFIXES))}) in every class folder: save "
            "them in one of these forms, fill the folder, or remove it"
        )
    labels = [np.full(len(below.files), class_names.index(name), np.int64) for name, below in found.items()]
    left_out = {name: below.left_out for name, below in found.items()}
    files = [path for below in found.values() for path in below.files]
    return _Listed(root, files, np.concatenate(labels), {**left_out, "": tuple(beside(root))})


def _empty(name: str, found: Found) -> str:
    held = f", which holds {reasons_text(found.left_out)}" if found.left_out else ""
    return f"no pictures in {name}{held}"


def _check_damage(listing: _Listing, faults: Mapping[int, str]) -> None:
    """Raises DataError for pictures that cannot be read, unless data.on_bad_image says skip."""
    if not faults:
        return
    found = [faults[row] for row in sorted(faults)]
    if listing.config.on_bad_image != "skip":
        some = "\n".join(f"  {fault}" for fault in found[:SHOWN])
        more = f"\n  ... and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise DataError(
            f"{listing.training}: {len(found)} of {len(listing.files)} pictures cannot be used\n{some}{more}\n"
            "Repair or remove them, or set data.on_bad_image=skip to go on without them"
        )
    first = 0
    for listed in listing.parts.values():
        if all(row in faults for row in range(first, first + len(listed.files))):
            raise DataError(f"{shown(listed.root)}: none of its pictures can be read; the first: {found[0]}")
        first += len(listed.files)


def _account(name: str, listed: _Listed, faulty: Sequence[int], class_names: Sequence[str]) -> PartAccount:
    left_out, kept_N = dict(listed.left_out), np.ones(len(listed.files), bool)
    kept_N[list(faulty)] = False
    for row in faulty:
        owner = class_names[listed.labels_N[row]]
        left_out[owner] = (*left_out.get(owner, ()), LeftOut(listed.files[row], DAMAGED))
    used = used_by_class(listed.labels_N[kept_N].tolist(), class_names)
    return PartAccount(name, {k: count for k, count in used.items() if k in listed.left_out}, left_out)
