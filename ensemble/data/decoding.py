"""Images made of listed pictures: in memory at every start, or once into files of this machine (data.storage).

    parts = decoded_parts(listing)

Both ways give the same bits, the same account and the same errors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ensemble.config.data import Storage
from ensemble.data.account import Remark
from ensemble.data.duplicates import require_some_left, shared_images
from ensemble.data.listing import Listing
from ensemble.data.own_parts import Part, Parts
from ensemble.data.picture_reading import (
    InMemory,
    PictureReader,
    Room,
    level_remarks,
    levels_of,
    pixel_remarks,
    threads,
)
from ensemble.data.pixel_rule import PixelRule
from ensemble.data.pixels_digest import pixels_sha256
from ensemble.data.prepared import PreparedFolder, file_of, prepared
from ensemble.errors import DataError
from ensemble.outside.long_work import working
from ensemble.outside.memory import available_memory
from ensemble.types import ByteArray, IntArray

FORMAT = 3  # of prepared folders; a new number where the same pictures would be decoded to other bytes
MAPPED_FROM = 1 << 26  # bytes of decoded images from which data.storage auto maps them

MakeRoom = Callable[[str, tuple[int, int, int, int]], Room]
Choose = Callable[[str, Sequence[ByteArray], IntArray, IntArray], ByteArray]


@dataclass(frozen=True, eq=False)
class _Decoded:
    """The images of both parts, and what was found on the way. faults: row of the listing -> what is wrong with the file.

    duplicates: by part the rows that are left out because they are training images too. as_written: True when every image is as its
    room got it, none was filled in later and no row was left out.
    """

    images_NCHW: Mapping[str, ByteArray]
    faults: Mapping[int, str]
    rule: PixelRule
    remarks: Sequence[Remark]
    duplicates: Mapping[str, IntArray] = field(default_factory=dict)
    as_written: bool = False


def decoded_parts(listing: Listing) -> Parts:
    """Training and test part of what is listed. Raises DataError naming the pictures at fault, or where there is no room for them."""
    reader, storage = PictureReader(listing.config), listing.config.storage
    wants = len(listing.pictures) * int(np.prod(reader.image_shape))
    if is_mapped(storage, wants, far=listing.address is not None):
        decoded = _mapped(listing, reader, wants)
    else:
        decoded = _in_memory(listing, reader, wants)
    listing.check_damage(decoded.faults)
    rows = _without(listing.rows_without(decoded.faults), decoded.duplicates)
    train, test = (
        Part(decoded.images_NCHW[name], listing.labels_N[rows[name]], listing.names(rows[name]))
        for name in ("train", "test")
    )
    groups = None if listing.groups is None else [listing.groups[row] for row in rows["train"].tolist()]
    return Parts(
        train,
        test,
        listing.class_names,
        decoded.rule,
        listing.account(decoded.faults, decoded.remarks, len(rows["test"]), decoded.duplicates),
        validation_rows=_validation_rows(listing, decoded.faults, decoded.duplicates),
        groups_N=None if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64),
    )


def is_mapped(storage: Storage | None, wants: int, far: bool) -> bool:
    """Whether images of so many bytes are kept in files. far: they come from object storage, from where they are fetched once."""
    return storage == "mapped" or (storage in (None, "auto") and (wants >= MAPPED_FROM or far))


def not_kept(what: str, error: Exception, wants: int) -> DataError:
    """What is said where images of so many bytes must be kept, and cannot be. what: the images, in words."""
    return DataError(
        f"data.storage is mapped, but {what} cannot be kept: {error}; set ENSEMBLE_CACHE to a folder of yours "
        f"with {max(1, wants >> 20):,} MiB free, or data.storage=memory"
    )


def _without(rows: Mapping[str, IntArray], duplicates: Mapping[str, IntArray]) -> dict[str, IntArray]:
    left = np.concatenate([np.empty(0, np.int64), *duplicates.values()])
    return {name: own if not len(left) else own[~np.isin(own, left)] for name, own in rows.items()}


def _validation_rows(
    listing: Listing, faults: Mapping[int, str], duplicates: Mapping[str, IntArray]
) -> IntArray | None:
    """Where in the training array the validation part lies that is given and not left out; None without one."""
    given = listing.validation_rows(faults)
    return None if given is None else given[: len(given) - len(duplicates.get("validation", ()))]


def _decode(listing: Listing, reader: PictureReader, make_room: MakeRoom, choose: Choose) -> _Decoded:
    """Read all pictures, each part into its room.

    choose: makes the images of a part of rows of several arrays, where damaged files have left gaps.
    """
    pictures, expected = listing.pictures, listing.rows_without({})
    rooms = {name: make_room(name, (len(rows), *reader.image_shape)) for name, rows in expected.items()}
    left = len(pictures) - sum(len(room.facts) for room in rooms.values())
    with threads("reading pictures", left, waiting=listing.address is not None) as every:
        readings = {
            name: reader.read(pictures.decode, rows.tolist(), rooms[name], every) for name, rows in expected.items()
        }
    faults = {row: text for read in readings.values() for row, text in read.faults.items()}
    wide = {row: found for read in readings.values() for row, found in read.wide.items()}
    listing.check_damage(faults)
    rows = listing.rows_without(faults)
    rule = reader.rule([wide[row] for row in rows["train"].tolist() if row in wide], listing.where)
    for read in readings.values():
        reader.read_wide(pictures.decode, read, rule)
    sources = [read.images_NCHW for read in readings.values()]
    source_N, row_N = np.empty((2, len(pictures)), np.int64)
    for number, own in enumerate(expected.values()):
        source_N[own], row_N[own] = number, np.arange(len(own))
    images = {
        name: sources[number]
        if np.array_equal(rows[name], expected[name])
        else choose(name, sources, source_N[rows[name]], row_N[rows[name]])
        for number, name in enumerate(expected)
    }
    remarks = [*pixel_remarks(rule, list(readings.values())), *level_remarks(*levels_of(images["train"]))]
    validation = listing.validation_rows(faults)
    count = len(rows["train"]) - (0 if validation is None else len(validation))
    leave_out, duplicates = listing.config.duplicates == "leave_out", dict[str, IntArray]()
    for shared in shared_images(images["train"], count, images["test"]):
        own, other = rows["test" if shared.part == "test" else "train"], rows["train"]
        names = listing.names(own[[shared.rows[0]]])[0], listing.names(other[[shared.first]])[0]
        remarks.append(shared.remark(names, leave_out))
        if leave_out:
            require_some_left(shared, listing.where)
            duplicates[shared.part] = own[shared.rows]
    for name, own in _without(rows, duplicates).items():
        if len(own) < len(rows[name]):
            images[name] = choose(name, sources, source_N[own], row_N[own])
    as_written = not wide and all(images[name] is read.images_NCHW for name, read in readings.items())
    return _Decoded(images, faults, rule, remarks, duplicates, as_written)


def _in_memory(listing: Listing, reader: PictureReader, wants: int) -> _Decoded:
    """Raises DataError where so many bytes are not free."""
    free = available_memory()
    if free is not None and wants > free:
        channels, height, width = reader.image_shape
        kept = " with their margin" if listing.config.kept_margin else ""
        raise DataError(
            f"{listing.where}: {len(listing.pictures):,} pictures need {wants / 2**30:.1f} GiB of memory as {height}x{width} pixels{kept} "
            f"in {channels} channels, and {free / 2**30:.1f} GiB are free; set data.storage=mapped with room for them in the "
            f"cache folder ($ENSEMBLE_CACHE), or a smaller data.image_size{' or data.margin' if kept else ''}"
        )

    def choose(_name: str, images: Sequence[ByteArray], source_N: IntArray, row_N: IntArray) -> ByteArray:
        chosen = np.empty((len(row_N), *images[0].shape[1:]), np.uint8)
        for source, pixels in enumerate(images):
            chosen[source_N == source] = pixels[row_N[source_N == source]]
        return chosen

    return _decode(listing, reader, lambda _name, shape: InMemory(shape), choose)


def _mapped(listing: Listing, reader: PictureReader, wants: int) -> _Decoded:
    """The images as an earlier start has decoded them on this machine, or decoded now; in memory where they cannot be kept and
    need not be. Raises DataError where they must be mapped and cannot be kept.
    """
    try:
        with prepared(_key(listing, reader), listing.origin) as folder:
            index = folder.finished()
            try:
                if index is None or _passed(listing, index):
                    index = _prepare(folder, listing, reader)
            except OSError:
                if listing.config.storage != "mapped" or not folder.has_notes():
                    folder.discard()  # it would keep a full disk full
                raise
            folder.touch()
            return _opened(folder, index, listing)
    except (OSError, RuntimeError) as error:
        if listing.config.storage == "mapped":
            raise not_kept("decoded pictures", error, wants) from error
        decoded = _in_memory(listing, reader, wants)
        text = f"the decoded pictures cannot be kept for later starts: {error}; set ENSEMBLE_CACHE to a folder of yours, or data.storage=memory"
        return replace(decoded, remarks=[*decoded.remarks, Remark(text, True)])


def _passed(listing: Listing, index: dict[str, Any]) -> bool:
    """True when a picture that could not be read can be read now."""
    for row in index["faults"]:
        try:
            listing.pictures.decode(int(row))
        except DataError:
            continue
        return True
    return False


def _key(listing: Listing, reader: PictureReader) -> str:
    """Of all that decides what the images are: names, sizes and times of the files, and how they are read and divided."""
    import PIL

    config = listing.config
    rule = [FORMAT, PIL.__version__, reader.told, config.value_range, config.ground]
    division = [[section.name, section.part, section.rows] for section in listing.sections]
    groups = None if listing.groups is None else list(listing.groups)
    known = [rule, division, listing.divided and config.test_fraction, groups]
    if config.duplicates == "leave_out":
        known.append("duplicates are left out")
    digest = hashlib.sha256(json.dumps(known).encode())
    digest.update(np.ascontiguousarray(listing.labels_N).data)
    # Divided by names that the pictures' digest does not tell, and otherwise where some are damaged.
    if listing.divided:
        digest.update("\0".join(listing.division_names).encode("utf-8", "surrogateescape"))
    for name, rows in listing.rows_without({}).items():
        digest.update(name.encode() + np.ascontiguousarray(rows).data)
    digest.update(listing.pictures.digest().encode())
    return digest.hexdigest()[:32]


def _prepare(folder: PreparedFolder, listing: Listing, reader: PictureReader) -> dict[str, Any]:
    """Decode all pictures into a folder; returns its index."""

    def choose(name: str, images: Sequence[ByteArray], source_N: IntArray, row_N: IntArray) -> ByteArray:
        path = folder.chosen(name, images, source_N, row_N)
        return np.memmap(path, np.uint8, "r", shape=(len(row_N), *reader.image_shape))

    decoded = _decode(listing, reader, folder.part, choose)
    with working("looking through the decoded pictures"):
        images = dict(decoded.images_NCHW)
        for part in images.values():
            if isinstance(part, np.memmap):  # but for parts without images
                part.flush()  # wide ones were filled in after the last note
        shapes = {name: part.shape for name, part in images.items()}
        on_the_way = folder.digest.sha256(shapes) if decoded.as_written else None
        index = {
            "sha256": on_the_way or pixels_sha256(*images.values()),
            "rule": replace(decoded.rule, margin=0).to_json(),  # the same pictures may be looked at with another margin
            "remarks": [[remark.text, remark.warning] for remark in decoded.remarks],
            "faults": {str(row): text for row, text in decoded.faults.items()},
            "duplicates": {part: rows.tolist() for part, rows in decoded.duplicates.items()},
            "parts": {name: {"file": file_of(part, name), "shape": part.shape} for name, part in images.items()},
        }
        folder.finish(index)
    return index


def _opened(folder: PreparedFolder, index: dict[str, Any], listing: Listing) -> _Decoded:
    images = folder.images(index, listing.config, listing.labelled)
    faults = {int(row): str(text) for row, text in index["faults"].items()}
    remarks = [Remark(str(text), bool(warning)) for text, warning in index["remarks"]]
    duplicates = {part: np.array(rows, np.int64) for part, rows in index.get("duplicates", {}).items()}
    rule = replace(PixelRule.from_json(index["rule"]), margin=listing.config.kept_margin)
    return _Decoded(images, faults, rule, remarks, duplicates)
