"""Test images that are training images too, pixel for pixel: what was learned by heart is judged as if it were known.

shared = same_images(train_images_NCHW, test_images_NCHW)      # {test row: training row}
for found in shared_images(train_images_NCHW, count, test_images_NCHW): ...      # of the test and of a given validation part
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ensemble.data.account import Remark
from ensemble.data.own_parts import Part, Parts
from ensemble.errors import DataError
from ensemble.types import ByteArray, IntArray

SAMPLED = 256  # bytes of an image by which it is looked for


def same_images(train_NCHW: ByteArray, test_NCHW: ByteArray) -> dict[int, int]:
    """For each test row that has the pixels of a training row, the first such row. Flat images of one level are not counted."""
    if not len(test_NCHW):
        return {}
    samples = dict[bytes, list[int]]()
    for row, sample in _samples(test_NCHW):
        samples.setdefault(sample, []).append(row)
    found: dict[int, int] = {}
    for row, sample in _samples(train_NCHW):
        for test_row in samples.get(sample, ()):
            if (
                test_row not in found
                and np.array_equal(train_NCHW[row], test_NCHW[test_row])
                and np.ptp(train_NCHW[row])
            ):
                found[test_row] = row
    return dict(sorted(found.items()))


def _samples(images_NCHW: ByteArray) -> Iterator[tuple[int, bytes]]:
    size = int(np.prod(images_NCHW.shape[1:]))
    step = max(1, size // SAMPLED) | 1  # odd, so that it falls into all columns
    for start in range(0, len(images_NCHW), 1024):
        some = images_NCHW[start : start + 1024]
        for place, sample in enumerate(np.ascontiguousarray(some.reshape(len(some), size)[:, ::step])):
            yield start + place, sample.tobytes()


@dataclass(frozen=True, eq=False)
class Shared:
    """Images of a part that members are trained on as well.

    rows: of the test array, or for validation of the training array, ascending. first: the training row that the first of them equals.
    of: how many images the part has.
    """

    part: str
    rows: IntArray
    first: int
    of: int

    def remark(self, names: tuple[str, str], leave_out: bool) -> Remark:
        """What to say of them. names: of the first of them, and of the training image that it equals."""
        done = (
            "they are left out"
            if leave_out
            else "their error says nothing; remove them from one of the parts, or set data.duplicates=leave_out"
        )
        text = (
            f"{len(self.rows):,} of {self.of:,} {self.part} images are training images too, pixel for pixel, such as {names[0]} and "
            f"{names[1]}: {done}"
        )
        return Remark(text, not leave_out)


def shared_images(train_NCHW: ByteArray, count: int, test_NCHW: ByteArray) -> Iterator[Shared]:
    """What the test part, and the validation part that follows the first `count` rows of the training array, share with these rows."""
    for part, first, own_NCHW in (("test", 0, test_NCHW), ("validation", count, train_NCHW[count:])):
        if found := same_images(train_NCHW[:count], own_NCHW):
            yield Shared(part, np.array(list(found), np.int64) + first, next(iter(found.values())), len(own_NCHW))


def looked_through(parts: Parts, leave_out: bool, where: str) -> Parts:
    """Parts in memory with a remark on the images they share, or without these. where: for messages.

    Raises DataError where nothing would be left of a part.
    """
    train, test, validation = parts.train, parts.test, parts.validation_rows
    count = len(train.labels_N) - (0 if validation is None else len(validation))
    remarks, duplicates = compared(train.images_NCHW, count, test.images_NCHW, leave_out, where)
    for part, rows in duplicates.items():
        if part == "test":
            test = _less(test, rows)
        else:
            assert validation is not None, "a validation part is given"
            train, validation = _less(train, rows), validation[: len(validation) - len(rows)]
    left_out = {part: len(rows) for part, rows in duplicates.items()}
    account = replace(parts.account, others=(*parts.account.others, *remarks), duplicates=left_out)
    return replace(parts, train=train, test=test, validation_rows=validation, account=account)


def compared(
    train_NCHW: ByteArray, count: int, test_NCHW: ByteArray, leave_out: bool, where: str
) -> tuple[list[Remark], dict[str, IntArray]]:
    """What to say of the images that parts share, as `shared_images` finds them, and by part the rows of its array to leave out.

    Raises DataError where nothing would be left of a part.
    """
    remarks, duplicates = list[Remark](), dict[str, IntArray]()
    for shared in shared_images(train_NCHW, count, test_NCHW):
        own = f"{'test' if shared.part == 'test' else 'training'} row {shared.rows[0]}"
        remarks.append(shared.remark((own, f"training row {shared.first}"), leave_out))
        if leave_out:
            require_some_left(shared, where)
            duplicates[shared.part] = shared.rows
    return remarks, duplicates


def require_some_left(shared: Shared, where: str) -> None:
    """Raises DataError where all images of a part are training images."""
    if len(shared.rows) == shared.of:
        raise DataError(
            f"{where}: all {shared.of:,} {shared.part} images are training images too, so that data.duplicates=leave_out would leave none; give other images for that part"
        )


def _less(part: Part, rows: IntArray) -> Part:
    kept_N = np.ones(len(part.labels_N), bool)
    kept_N[rows] = False
    files = tuple(file for file, kept in zip(part.files, kept_N.tolist(), strict=True) if kept) if part.files else ()
    return Part(part.images_NCHW[kept_N], part.labels_N[kept_N], files)
