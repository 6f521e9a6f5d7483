"""Images of an .npz file as bytes in files of this machine (data.storage mapped): read in blocks, so that they may be larger than memory.

    parts = prepared_parts(stored, config)        # the parts that `parts_of_arrays` makes in memory, with the same bits

Where training images are whole numbers of more than 8 bits, their largest value decides how all are scaled, and they are read twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.config.data import OwnArrays
from ensemble.data.account import Remark
from ensemble.data.arrays import BLOCK_VALUES, Arrays, Outline, is_images, parts_of_arrays, scaled
from ensemble.data.decoding import not_kept
from ensemble.data.duplicates import compared
from ensemble.data.own_parts import Parts
from ensemble.data.picture_reading import levels_of
from ensemble.data.pixel_rule import Extremes, PixelRule
from ensemble.data.pixels_digest import pixels_sha256
from ensemble.data.prepared import Part, PreparedFolder, prepared
from ensemble.data.regular_files import shown
from ensemble.data.stored_arrays import StoredArrays
from ensemble.errors import DataError
from ensemble.outside.long_work import working
from ensemble.outside.memory import available_memory
from ensemble.types import ByteArray, IntArray

FORMAT = 1  # of prepared folders; a new number where the same arrays would become other bytes


def parts_in_memory(stored: StoredArrays, outlines: Arrays, config: OwnArrays) -> Parts:
    """The parts of a file that is read at this start. Raises DataError where it has no room in memory."""
    wants, free = sum(array.size * array.itemsize for array in outlines.values()), available_memory()
    if free is not None and wants > free:
        raise DataError(
            f"{shown(stored.path)}: its arrays need {wants / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free; set "
            "data.storage=mapped with room for one byte per value in the cache folder ($ENSEMBLE_CACHE)"
        )
    arrays = {name: stored.whole(name) if is_images(name) else array for name, array in outlines.items()}
    return parts_of_arrays(arrays, stored.path, config)


def prepared_parts(stored: StoredArrays, outlines: Arrays, config: OwnArrays, required: bool) -> Parts:
    """The parts of a file as an earlier start has prepared them on this machine, or prepared now; in memory where they cannot be kept.

    required: they must be kept. Raises DataError where they cannot then.
    """
    outline = Outline.of(outlines, stored.path, config)
    try:
        with prepared(_key(stored, config), stored.origin) as folder:
            index = folder.finished() or _prepare(folder, stored, outline)
            folder.touch()
            images = folder.images(index, config)
    except (OSError, RuntimeError) as error:
        if required:
            raise not_kept("images", error, sum(map(_bytes_of, _shapes(outline).values()))) from error
        parts = parts_in_memory(stored, outlines, config)
        text = f"the images cannot be kept for later starts: {error}; set ENSEMBLE_CACHE to a folder of yours, or data.storage=memory"
        others = (*parts.account.others, Remark(text, True))
        return replace(parts, account=replace(parts.account, others=others))
    remarks = [Remark(str(text), bool(warning)) for text, warning in index["remarks"]]
    duplicates = {part: np.array(rows, np.int64) for part, rows in index["duplicates"].items()}
    return outline.parts(images["train"], images["test"], PixelRule.from_json(index["rule"]), remarks, duplicates)


def _key(stored: StoredArrays, config: OwnArrays) -> str:
    """Of all that decides what the images are: name, size and time of the file, and how it is read and divided."""
    known = [FORMAT, "arrays", stored.digest(), astuple(config.array_rule)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]


def _shapes(outline: Outline) -> dict[str, tuple[int, int, int, int]]:
    train, validation, test = outline.counts
    return {"train": (train + validation, *outline.image_shape), "test": (test, *outline.image_shape)}


def _bytes_of(shape: Sequence[int]) -> int:
    return int(np.prod(shape))


def _prepare(folder: PreparedFolder, stored: StoredArrays, outline: Outline) -> dict[str, Any]:
    """Read all images into a folder; returns its index."""
    given = outline.config.array_rule
    try:
        rows = max(1, BLOCK_VALUES // _bytes_of(outline.image_shape))
        rooms = {part: folder.part(part, shape, rows, in_order=False) for part, shape in _shapes(outline).items()}
        try:
            found, rule = _fill(rooms, stored, outline, rows)
        finally:
            for room in rooms.values():
                room.close()
        images = {part: room.images_NCHW for part, room in rooms.items()}
        with working("looking through the images"):
            count = outline.counts[0]
            remarks = outline.remarks(found, rule, levels_of(images["train"][:count]))
            where, wanted = shown(stored.path), given.duplicates == "leave_out"
            shared, duplicates = compared(images["train"], count, images["test"], wanted, where)
            files = {part: room.path for part, room in rooms.items()}
            for part, left_out in duplicates.items():
                array = "test" if part == "test" else "train"
                files[array], images[array] = _without(folder, array, images[array], left_out)
            index: dict[str, Any] = {
                "sha256": pixels_sha256(images["train"], images["test"]),
                "rule": rule.to_json(),
                "remarks": [[remark.text, remark.warning] for remark in (*remarks, *shared)],
                "duplicates": {part: rows.tolist() for part, rows in duplicates.items()},
                "parts": {part: {"file": files[part].name, "shape": images[part].shape} for part in images},
            }
    except (DataError, OSError):
        folder.discard()  # rows of a file that turns out to be damaged are of no use
        raise
    folder.finish(index)
    return index


def _fill(
    rooms: Mapping[str, Part], stored: StoredArrays, outline: Outline, rows: int
) -> tuple[dict[str, Extremes], PixelRule]:
    """Read every array, so many rows at a time, and write what an earlier start has not written; returns the values' range and the rule.

    Everything is read to its end also where rows are there already, or where values are refused: a checksum is of a whole array.
    """
    written = {part: _Sequel(room) for part, room in rooms.items()}
    found = dict[str, Extremes]()
    rule = outline.rule or outline.rule_for(_training_extremes(stored, outline, rows))
    with working(f"reading {shown(stored.path.name)}", sum(map(len, outline.labels_N.values()))) as done:
        for name in outline.types:
            seen, refused, first = _Extremes(), False, 0
            for block in stored.blocks(name, rows):
                values = outline.channels_first(name, block)
                extremes = Extremes.of(values)
                seen.add(extremes)
                refused = refused or _is_refused(outline, name, extremes, rule)
                if not refused:
                    pixels = scaled(values, rule)
                    test_n = None if outline.test_N is None else outline.test_N[first : first + len(block)]
                    if name == "train_images" and test_n is not None:
                        written["train"].add(pixels[~test_n])
                        written["test"].add(pixels[test_n])
                    else:
                        written["test" if name == "test_images" else "train"].add(pixels)
                first += len(block)
                for _ in range(len(block)):
                    done()
            found[name] = seen.all
            outline.check(name, found[name], rule)
    return found, rule


def _training_extremes(stored: StoredArrays, outline: Outline, rows: int) -> Extremes:
    """Of the training images that are not held back."""
    seen, first = _Extremes(), 0
    with working(f"looking for the largest value of {shown(stored.path.name)}"):
        for block in stored.blocks("train_images", rows):
            own_N = slice(None) if outline.test_N is None else ~outline.test_N[first : first + len(block)]
            if (own := block[own_N]).size:
                seen.add(Extremes.of(own))
            first += len(block)
    return seen.all


def _is_refused(outline: Outline, name: str, found: Extremes, rule: PixelRule) -> bool:
    """True for values after which nothing needs to be written. What is said of them waits until all are known."""
    try:
        outline.check(name, found, rule)
    except DataError:
        return True
    return False


class _Extremes:
    """Of blocks, one after the other; a value that is no number is kept."""

    def __init__(self) -> None:
        self._low, self._high, self._floats = np.inf, -np.inf, False

    def add(self, found: Extremes) -> None:
        """Those of one more block."""
        self._low, self._high = float(np.minimum(self._low, found.low)), float(np.maximum(self._high, found.high))
        self._floats = found.floats

    @property
    def all(self) -> Extremes:
        """Of all blocks."""
        return Extremes(self._low, self._high, self._floats)


class _Sequel:
    """Rows that are written behind those that a killed start has left."""

    def __init__(self, room: Part) -> None:
        self._room, self._known = room, len(room.facts)

    def add(self, pixels: ByteArray) -> None:
        """The next rows, which may be there already."""
        skipped = min(self._known, len(pixels))
        self._known -= skipped
        if count := len(pixels) - skipped:
            self._room.shard(count)[...] = pixels[skipped:]
            self._room.add([1] * count)


def _without(folder: PreparedFolder, part: str, images: ByteArray, rows: IntArray) -> tuple[Path, ByteArray]:
    """The images of a part but for these rows, in a file of their own."""
    kept_n = np.delete(np.arange(len(images)), rows)
    path = folder.chosen(part, [images], np.zeros(len(kept_n), np.int64), kept_n)
    return path, np.memmap(path, np.uint8, "r", shape=(len(kept_n), *images.shape[1:]))
