"""`data.name: table`: pictures and their classes by the rows of a CSV, TSV or Parquet file.

    file,class,part,patient
    images/1.jpg,benign,train,p17
    images/2.jpg,malignant,test,p03

data.image_column and data.label_column name the columns. With data.split_column the parts are given (train, val and test, as
`class_folders` reads such words); with data.group_column the rows of a group stay together where a part is divided. Files are looked
for from data.root on, else from the folder of the table. Both may be addresses, s3://bucket/labels.csv, and so may be the names.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.config.data import OwnPictures, register_data
from ensemble.data.account import Remark
from ensemble.data.bucket import address_of, given_place, tree_at, trees_of
from ensemble.data.class_folders import part_of
from ensemble.data.dataset import Dataset, dataset_from
from ensemble.data.decoding import decoded_parts
from ensemble.data.listing import Listing, PictureFiles, PicturesFarAway, Section, below
from ensemble.data.own_parts import PartName
from ensemble.data.picture_tree import few
from ensemble.data.regular_files import open_regular, shown
from ensemble.errors import DataError
from ensemble.outside.object_storage import is_address
from ensemble.types import IntArray

EXPECTED = "a table (.csv, .tsv or .parquet) with a row for each picture"
PARTS: tuple[PartName, ...] = ("train", "validation", "test")


@register_data
class Table(OwnPictures):
    """Picture files and their classes by the rows of a table."""

    in_short: ClassVar[str] = "your pictures by the rows of a .csv, .tsv or .parquet file"
    needed: ClassVar[str] = (
        "path, a .csv, .tsv or .parquet file, image_column and label_column, the names of its columns, and image_size"
    )
    name: Literal["table"]
    path: str = Field(description="table: the .csv, .tsv or .parquet file; or the address of one")
    image_column: str = Field(
        min_length=1, description="table: the column with the picture files, seen from root or the table's folder"
    )
    label_column: str = Field(min_length=1, description="table: the column with the classes")
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
    root: str | None = Field(
        None,
        description="table: the folder of its files, or an address, s3://bucket/photos; without it the table's own",
    )

    def build(self) -> Dataset:
        """See DataConfig."""
        return dataset_from(self.path, self.name, decoded_parts(list_table(self)))


def list_table(config: Table) -> Listing:
    """The pictures of a table. Raises DataError naming the column, the rows and the values at fault."""
    path = given_place(config.path, "data.path")
    beside = config.path.rpartition("/")[0] if is_address(config.path) else None
    root = (
        path.parent if config.root is None and beside is None else given_place(config.root or beside or "", "data.root")
    )
    wanted = {
        key: column
        for key in ("image_column", "label_column", "split_column", "group_column")
        if (column := getattr(config, key)) is not None
    }
    columns = _read(path, wanted)
    for key, column in wanted.items():
        if empty := [n for n, value in enumerate(columns[key]) if not value]:
            raise DataError(
                f"{shown(path)}: column {column}: found nothing in {len(empty):,} rows ({_rows(empty)}); expected a value in every row (data.{key})"
            )
    if nul := [n for n, name in enumerate(columns["image_column"]) if "\0" in name]:
        raise DataError(
            f"{shown(path)}: column {wanted['image_column']}: found a NUL character in {len(nul):,} rows ({_rows(nul)}); expected names of files"
        )
    count = len(columns["label_column"])
    parts_N = _parts(path, wanted.get("split_column", ""), columns.get("split_column")) or [None] * count
    order: list[int] = [n for part in (*PARTS, None) for n, found in enumerate(parts_N) if found == part]
    class_names = _classes(path, wanted["label_column"], columns["label_column"], parts_N)
    number = {name: k for k, name in enumerate(class_names)}
    labels_N: IntArray = np.array([number[columns["label_column"][n]] for n in order], np.int64)
    files, address = _places([columns["image_column"][n] for n in order], root, path, wanted["image_column"])
    groups = [columns["group_column"][n] for n in order] if "group_column" in columns else _by_file(files, root)
    counts = Counter(parts_N)
    sections = [
        Section(part or shown(path.name), shown(path), root, part, counts[part])
        for part in (*PARTS, None)
        if counts[part]
    ]
    if config.test_fraction is not None and counts["test"]:
        raise DataError(
            f"data.test_fraction: found {config.test_fraction}, but column {wanted['split_column']} of {shown(path)} gives the test part; remove one"
        )
    pictures = PictureFiles(files) if address is None else PicturesFarAway(files)
    listing = Listing(root, pictures, labels_N, sections, class_names, config, groups, address=address)
    return replace(listing, remarks=_remarks(files, labels_N, listing, config.group_column is not None))


def _places(names: Sequence[str], root: Path, path: Path, column: str) -> tuple[list[Path], str | None]:
    """Where the pictures lie, and, if that is object storage, an address they lie under. Names may be addresses themselves."""
    addresses = [name for name in names if is_address(name)]
    others = len(names) - len(addresses)
    far = address_of(root)
    if far is not None and others:
        tree_at(far, "data.root")
    if addresses:
        if far is None and others:
            raise DataError(
                f"{shown(path)}: column {column}: found {len(addresses):,} addresses, such as {addresses[0]}, and {others:,} names of files here; expected one kind (or data.root as an address, under which the names are looked for)"
            )
        trees_of(addresses, "data.image_column")
    files = [Path(name) if is_address(name) else root / name for name in names]
    return files, (far or addresses[0].rpartition("/")[0]) if far or addresses else None


def _read(path: Path, wanted: dict[str, str]) -> dict[str, list[str]]:
    """The wanted columns by their keys, as texts."""
    suffix = path.suffix.lower()
    try:
        with open_regular(path, EXPECTED) as file:
            content = file.read()
    except FileNotFoundError as error:
        raise DataError(f"data.path: no file {shown(path)}; expected {EXPECTED}") from error
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise DataError(f"{shown(path)}: found the ending {suffix or 'none'!r}; expected {EXPECTED}")
    names, rows = (
        _parquet(path, content) if suffix == ".parquet" else _text(path, content, "\t" if suffix == ".tsv" else ",")
    )
    if twice := [name for name, count in Counter(names).items() if count > 1 and name in wanted.values()]:
        raise DataError(f"{shown(path)}: found two columns {few(twice)}; expected each name once")
    for key, column in wanted.items():
        if column not in names:
            apart = next((mark for mark in ",;\t|" if len(names) == 1 and mark in names[0]), None)
            hint = (
                f"the columns seem to be separated by {apart!r}: save it with commas as .csv, or with tabs as .tsv"
                if apart
                else f"set data.{key} to one of them, or write the names of the columns into the first line"
            )
            raise DataError(
                f"{shown(path)}: no column {column!r} (data.{key}); found {few([repr(name) for name in names], 12)}; {hint}"
            )
    if not rows:
        raise DataError(f"{shown(path)}: found no rows; expected {EXPECTED}")
    found = {key: [row[names.index(column)] for row in rows] for key, column in wanted.items()}
    for key, column in wanted.items():
        if odd := next((value for value in found[key] if isinstance(value, dict | list | bytes)), None):
            inside = (
                "; pictures that lie in the table itself must be written into files" if key == "image_column" else ""
            )
            kind = {"dict": "nested", "list": "list"}.get(type(odd).__name__, "bytes")
            raise DataError(
                f"{shown(path)}: column {column}: found {kind} values; expected texts or numbers (data.{key}){inside}"
            )
    return {key: [_as_text(value) for value in values] for key, values in found.items()}


def _text(path: Path, content: bytes, delimiter: str) -> tuple[list[str], list[Sequence[Any]]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown(path)}: found bytes that are no UTF-8 ({error.reason} at byte {error.start:,}); save it as UTF-8"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[Sequence[Any]] = []
    ended = 0  # the line that the last row ends in
    try:
        for line in reader:
            lines.append(line)
            ended = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"{shown(path)}: cannot be read as a table from line {ended + 1:,} on: {_odd_row(error)}; correct that line"
        ) from error
    if not lines:
        raise DataError(f"{shown(path)}: found an empty file; expected {EXPECTED}")
    names, rows = [str(name).strip() for name in lines[0]], [line for line in lines[1:] if line]
    if wrong := [n for n, row in enumerate(rows) if len(row) != len(names)]:
        raise DataError(
            f"{shown(path)}: found {len(rows[wrong[0]])} values in {_rows(wrong[:1])}, but {len(names)} columns; expected as many in each of "
            f"{len(wrong):,} such rows (values with a {'comma' if delimiter == ',' else 'tab'} belong in quotes)"
        )
    return names, rows


def _odd_row(error: csv.Error) -> str:
    """Why a row cannot be read, in words."""
    text = str(error)
    if "unexpected end" in text:
        return "a quote is opened and never closed"
    if "field limit" in text:
        return f"a value is longer than {csv.field_size_limit():,} characters, or a quote is opened and not closed"
    return text


def _parquet(path: Path, content: bytes) -> tuple[list[str], list[Sequence[Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{shown(path)}: Parquet is read by pyarrow: pip install pyarrow, or save the table as .csv"
        ) from error
    try:
        names = list(parquet.read_schema(pyarrow.BufferReader(content)).names)
        if twice := [name for name, count in Counter(names).items() if count > 1]:  # of which it would read none
            raise DataError(f"{shown(path)}: found two columns {few(twice)}; expected each name once")
        table = parquet.read_table(pyarrow.BufferReader(content))
        columns = [column.to_pylist() for column in table.columns]  # texts are decoded only here
    except DataError:
        raise
    except Exception as error:  # damaged files make pyarrow raise several kinds
        reason = " ".join(str(error).split())
        raise DataError(f"{shown(path)}: cannot be read as Parquet: {reason}; write it again") from error
    return names, list(zip(*columns, strict=True))


def _as_text(value: object) -> str:
    """A value as the name of a class, a file or a group; empty for none. 3.0 is 3: a column with gaps turns into floats."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _parts(path: Path, column: str, values: Sequence[str] | None) -> list[PartName | None]:
    """What each row is for; None of a table that does not say."""
    if values is None:
        return []
    read: dict[str, PartName | None] = {value: part_of(value) for value in dict.fromkeys(values)}
    if unknown := [value for value, part in read.items() if part is None]:
        raise DataError(
            f"{shown(path)}: column {column}: found {few([repr(value) for value in unknown])}; expected train, val or test (data.split_column)"
        )
    parts = [read[value] for value in values]
    if "train" not in parts:
        raise DataError(
            f"{shown(path)}: column {column}: found no row of train; expected some to train on (data.split_column)"
        )
    return parts if "test" in parts else [None if part == "train" else part for part in parts]


def _classes(path: Path, column: str, values: Sequence[str], parts_N: Sequence[PartName | None]) -> tuple[str, ...]:
    """The classes of the training rows: numbers in their order, else names in theirs."""
    trained = {value for n, value in enumerate(values) if parts_N[n] in ("train", None)}
    if others := sorted(set(values) - trained):
        raise DataError(
            f"{shown(path)}: column {column}: found {few(others)} in rows for validation or test that no training row has; expected only "
            f"{few(sorted(trained))} (data.label_column)"
        )
    if len(trained) < 2:
        raise DataError(
            f"{shown(path)}: column {column}: found only {few(sorted(trained))}; expected at least two classes (data.label_column)"
        )
    numbers = all(len(value) < 19 and value.isascii() and value.removeprefix("-").isdigit() for value in trained)
    return tuple(sorted(trained, key=int) if numbers else sorted(trained))


def _by_file(files: Sequence[Path], root: Path) -> list[str] | None:
    """Where a file stands in several rows, however it is written, they stay together; None where none does."""
    places = [_place(file, root) for file in files]
    return places if len(set(places)) < len(places) else None


def _place(file: Path, root: Path) -> str:
    """One name of a file, however the table and the configuration write it."""
    return os.path.normpath(below(file, root)) if address_of(file) else below(Path(os.path.abspath(file)), root)  # noqa: PTH100  # links stay


def _remarks(files: Sequence[Path], labels_N: IntArray, listing: Listing, grouped: bool) -> list[Remark]:
    """What is odd about the table: files that stand in several rows, and groups in several parts."""
    said = []
    places: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        places.setdefault(_place(file, listing.root), []).append(row)
    twice = {os.path.normpath(files[rows[0]]): rows for rows in places.values() if len(rows) > 1}
    if twice:
        unlike = [file for file, rows in twice.items() if len(set(labels_N[rows].tolist())) > 1]
        also = f", {len(unlike):,} of them with several classes, such as {shown(unlike[0])}" if unlike else ""
        kept = "" if grouped else "; the rows of a file stay together where a part is split off"
        said.append(Remark(f"{len(twice):,} files stand in several rows{also}{kept}", True))
    part_of_row = {row: section.part for section, rows in listing.of_section() for row in rows}
    if shared := [file for file, rows in twice.items() if len({part_of_row[row] for row in rows}) > 1]:
        said.append(
            Remark(
                f"{len(shared):,} files stand in several parts, such as {shown(shared[0])}: what is trained on is judged on",
                True,
            )
        )
    if listing.groups is not None and grouped:
        parts: dict[str, set[PartName | None]] = {}
        for row, group in enumerate(listing.groups):
            parts.setdefault(group, set()).add(part_of_row[row])
        if spread := sorted(group for group, found in parts.items() if len(found) > 1):
            said.append(
                Remark(f"{len(spread):,} groups are in several of the given parts, such as {few(spread[:3])}", True)
            )
    return said


def _rows(numbers: Sequence[int]) -> str:
    """Rows as a person counts them, below the line of names."""
    return few([f"row {n + 1}" for n in numbers], 3)
