"""The pictures of a data set in the order of its rows, before any is decoded: what they are called, which class and part each is of.

    listing.rows_without({})         # which rows are for training, which for the test
    listing.pictures.decode(row)     # the picture of a row

A source of pictures (`image_folder`, `table`, `webdataset`) makes a `Listing`; `decoding` makes images of it.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from ensemble.config.data import DataConfig, OwnPictures
from ensemble.data.account import Account, PartAccount, Remark, used_by_class
from ensemble.data.bucket import FarFiles, address_of
from ensemble.data.own_parts import PartName, held_back
from ensemble.data.picture_tree import DAMAGED, LeftOut
from ensemble.data.pictures import Decoded, decode
from ensemble.data.regular_files import shown
from ensemble.errors import DataError
from ensemble.types import IntArray

SHOWN = 5
FRACTION = DataConfig.model_fields["validation_fraction"].default


class Pictures(Protocol):
    """The pictures of a listing, by row."""

    def __len__(self) -> int: ...

    def path(self, row: int) -> Path:
        """Where it lies: a file, or an archive and a name in it."""
        ...

    def decode(self, row: int) -> Decoded:
        """The picture. Raises DataError where it cannot be read."""
        ...

    def digest(self) -> str:
        """Of what the pictures are known by without reading them: names, sizes, times."""
        ...


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Pictures that are files of their own."""

    files: Sequence[Path]

    def __len__(self) -> int:
        return len(self.files)

    def path(self, row: int) -> Path:
        """See Pictures."""
        return self.files[row]

    def decode(self, row: int) -> Decoded:
        """See Pictures."""
        return decode(self.files[row])

    def digest(self) -> str:
        """See Pictures."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(state_of(file))
        return digest.hexdigest()


def state_of(file: Path) -> bytes:
    """A line that changes when the file does: its whole path, size, time and, for files that changed places, number."""
    try:
        facts = file.stat()
        known = b"%d %d %d" % (facts.st_size, facts.st_mtime_ns, facts.st_ino)
    except (OSError, ValueError):
        known = b"not there"
    return b"%s\0%s\n" % (os.fsencode(os.path.abspath(file)), known)  # noqa: PTH100  # links stay


@dataclass(frozen=True, eq=False)
class PicturesFarAway(FarFiles):
    """Pictures in object storage, each of which is read when it is decoded and not kept."""

    def __len__(self) -> int:
        return len(self.files)

    def path(self, row: int) -> Path:
        """See Pictures."""
        return self.files[row]

    def decode(self, row: int) -> Decoded:
        """See Pictures. Raises Unreachable where the storage does not answer, or refuses other pictures as well."""
        return decode(self.content(row), shown(self.files[row]))


@dataclass(frozen=True, eq=False)
class Section:
    """Rows that follow each other and are accounted for together.

    where: for messages. base: names are told relative to it. part: what they are for; None where it is still to be divided into
    training and test. left_out: by class what lies there and is not read, "" for what is beside the classes.
    """

    name: str
    where: str
    base: Path
    part: PartName | None
    rows: int
    left_out: Mapping[str, tuple[LeftOut, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Listing:
    """All pictures of a data set. groups: of each row, where the rows of a group stay together. labelled: False where all are of one
    class without a name.

    address: of the pictures, where they are in object storage; the paths below it are names then.
    """

    root: Path
    pictures: Pictures
    labels_N: IntArray
    sections: Sequence[Section]
    class_names: tuple[str, ...]
    config: OwnPictures
    groups: Sequence[str] | None = None
    remarks: Sequence[Remark] = ()
    address: str | None = None
    labelled: bool = True

    @property
    def origin(self) -> str:
        """Where the pictures lie, whole."""
        return self.address or os.path.abspath(self.root)  # noqa: PTH100  # links stay

    @property
    def where(self) -> str:
        """Where the training pictures lie, for messages."""
        return self.sections[0].where

    @property
    def divided(self) -> bool:
        """True where the test part is held back from what there is."""
        return not any(section.part == "test" for section in self.sections)

    def of_section(self) -> Iterator[tuple[Section, range]]:
        """Each section with its rows."""
        first = 0
        for section in self.sections:
            yield section, range(first, first + section.rows)
            first += section.rows

    def rows_of(self, *parts: PartName | None) -> IntArray:
        """The rows of these parts, ascending."""
        found = [np.arange(rows.start, rows.stop) for section, rows in self.of_section() if section.part in parts]
        return np.concatenate([np.empty(0, np.int64), *found])

    @cached_property
    def division_names(self) -> list[str]:
        """Of every row, the name by which it is chosen for the test part; letters with marks as one sign, which a copy may have changed."""
        return [
            unicodedata.normalize("NFC", below(self.pictures.path(row), section.base))
            for section, rows in self.of_section()
            for row in rows
        ]

    def rows_without(self, faults: Mapping[int, str]) -> dict[str, IntArray]:
        """The rows of the training array and of the test part when those of `faults` are left out.

        A validation part that is given stands at the end of the training array.
        """
        usable_N = np.ones(len(self.pictures), bool)
        usable_N[list(faults)] = False
        own, validation, test = (
            rows[usable_N[rows]]
            for rows in (self.rows_of("train", None), self.rows_of("validation"), self.rows_of("test"))
        )
        if self.divided:
            names = [self.division_names[row] for row in own.tolist()]
            groups = None if self.groups is None else [self.groups[row] for row in own.tolist()]
            test_N = held_back(self.labels_N[own], names, self.class_names, self.config, groups)
            own, test = own[~test_N], own[test_N]
        return {"train": np.concatenate([own, validation]), "test": test}

    def validation_rows(self, faults: Mapping[int, str]) -> IntArray | None:
        """Where in the training array the given validation part lies; None without one."""
        validation = [row for row in self.rows_of("validation").tolist() if row not in faults]
        if not any(section.part == "validation" for section in self.sections):
            return None
        count = len(self.rows_without(faults)["train"])
        return np.arange(count - len(validation), count)

    def names(self, rows: IntArray) -> tuple[str, ...]:
        """Below the data set's folder; bytes that are no text are written as \\xNN."""
        paths = [below(self.pictures.path(row), self.root) for row in rows.tolist()]
        return tuple(os.fsencode(path).decode(errors="backslashreplace") for path in paths)

    def check_damage(self, faults: Mapping[int, str]) -> None:
        """Raises DataError for pictures that cannot be read, unless data.on_bad_image says skip."""
        if not faults:
            return
        found = [faults[row] for row in sorted(faults)]
        if self.config.on_bad_image != "skip":
            some = "\n".join(f"  {fault}" for fault in found[:SHOWN])
            more = f"\n  ... and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise DataError(
                f"{self.where}: {len(found)} of {len(self.pictures)} pictures cannot be used\n{some}{more}\n"
                "Repair or remove them, or set data.on_bad_image=skip to go on without them"
            )
        for section, rows in self.of_section():
            if len(rows) and all(row in faults for row in rows):
                raise DataError(
                    f"{section.where}: none of its pictures can be read; repair or remove them. The first: {found[0]}"
                )

    def account(
        self, faults: Mapping[int, str], decoding: Sequence[Remark], test_rows: int, duplicates: Mapping[str, IntArray]
    ) -> Account:
        """What was read and what was not. decoding: what was found when the pictures were. duplicates: rows left out, by part."""
        accounts = tuple(self._account_of(section, rows, faults) for section, rows in self.of_section())
        lost_in_test = sum(row in faults for row in self.rows_of("test").tolist())
        remarks = [*self.remarks, *decoding]
        if len(self.rows_of("validation")) and self.config.validation_fraction != FRACTION:
            idle = "data.validation_fraction has no effect, since a validation part is given"
            remarks.append(Remark(idle, True))
        if self.divided:
            remarks.insert(0, Remark(f"{test_rows:,} of these are held back as the test part (data.test_fraction)"))
            if faults:
                lost = f"{len(faults):,} damaged pictures are in no part, so that nothing judges them"
                remarks.append(Remark(lost, True, of_division=True))
        elif lost_in_test:
            lost = f"{lost_in_test:,} damaged pictures of the test part are not judged: no error rate counts them"
            remarks.append(Remark(lost, True, of_division=True))
        return Account(accounts, tuple(remarks), {part: len(rows) for part, rows in duplicates.items() if len(rows)})

    def _account_of(self, section: Section, rows: range, faults: Mapping[int, str]) -> PartAccount:
        left_out = dict(section.left_out)
        for row in rows:
            if row in faults:
                owner = self.class_names[self.labels_N[row]]
                left_out[owner] = (*left_out.get(owner, ()), LeftOut(self.pictures.path(row), DAMAGED))
        used = used_by_class([int(self.labels_N[row]) for row in rows if row not in faults], self.class_names)
        return PartAccount(section.name, {k: count for k, count in used.items() if count or k in left_out}, left_out)


def below(path: Path, root: Path) -> str:
    """A path as seen from a folder, or whole where it lies elsewhere; the same however the two are written."""
    text, folder = os.fspath(path), f"{os.fspath(root)}/"
    if text.startswith(folder) and "/../" not in text:  # a tenth of pathlib's time, which is felt with 100,000 pictures
        return text[len(folder) :]
    if address := address_of(path):
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else address
    whole, base = _absolute(text), _absolute(os.fspath(root))
    if whole.startswith(f"{base}/"):
        return whole[len(base) + 1 :]
    # Where the folders really lie; a file that is itself a link stays one.
    above, _, name = whole.rpartition("/")
    real, base = f"{_real(above)}/{name}", _real(base)
    return real[len(base) + 1 :] if real.startswith(f"{base}/") else whole


def _absolute(path: str) -> str:
    """Without a slash at the end, and with a single one at the beginning, where Python keeps two. Links stay."""
    return f"/{os.path.abspath(path).strip('/')}".rstrip("/")  # noqa: PTH100


@lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder or "/").rstrip("/")
