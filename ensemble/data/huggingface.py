"""`data.name: huggingface`: pictures and classes of a data set that the package datasets reads (pip install "ensemble-trainer[huggingface]").

    data: {name: huggingface, path: saved/flowers, image_size: 64}                      # what save_to_disk wrote, or Parquet files
    data: {name: huggingface, path: owner/flowers, image_size: 64, label_column: kind}  # of the hub

Pictures stay in the data set's own files and are decoded as those of a folder are (`decoding`): to image_size, in memory or mapped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.config.data import OwnPictures, register_data
from ensemble.data.class_folders import part_of
from ensemble.data.dataset import Dataset, dataset_of_parts
from ensemble.data.decoding import decoded_parts
from ensemble.data.listing import Listing, Section, state_of
from ensemble.data.own_parts import PartName
from ensemble.data.picture_tree import few
from ensemble.data.pictures import Decoded, decode
from ensemble.data.regular_files import shown
from ensemble.errors import DataError
from ensemble.outside.long_work import working
from ensemble.outside.paths import given_path
from ensemble.types import IntArray

PARTS: tuple[PartName, ...] = ("train", "validation", "test")
SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves in the folder, of several splits and of one


@register_data
class HuggingFace(OwnPictures):
    """Pictures of a data set of the package datasets, in a folder of this machine or on the Hugging Face hub."""

    in_short: ClassVar[str] = (
        "a data set of Hugging Face's: a folder of save_to_disk, Parquet files, or a name on the hub"
    )
    needed: ClassVar[str] = (
        "path, a folder that save_to_disk wrote or that holds Parquet files, or a name on the hub, and image_size"
    )
    name: Literal["huggingface"]
    path: str = Field(
        min_length=1,
        description="huggingface: a folder that save_to_disk wrote or that holds Parquet files, one such file, or else a name on the hub such as owner/flowers",
    )
    subset: str | None = Field(
        None,
        min_length=1,
        description="huggingface: which configuration of a data set on the hub, where it has several",
    )
    revision: str | None = Field(
        None, min_length=1, description="huggingface: branch, tag or commit of a data set on the hub"
    )
    split_map: dict[PartName, str] | None = Field(
        None,
        min_length=1,
        description="huggingface: which split is which part, such as {train: train, test: validation}; without it by the names of the splits",
    )
    image_column: str = Field("image", min_length=1, description="huggingface: the column with the pictures")
    label_column: str = Field("label", min_length=1, description="huggingface: the column with the classes")

    @classmethod
    def places(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """See DataConfig: a name on the hub is no place."""
        path = values.get("path")
        there = isinstance(path, str) and (os.path.isabs(path) or os.path.exists(os.path.expanduser(path)))  # noqa: PTH110, PTH111, PTH117
        return ("path",) if there else ()

    def build(self) -> Dataset:
        """The data set. Raises DataError naming the split, the column or the rows at fault."""
        name = os.path.basename(os.path.abspath(self._place))  # noqa: PTH100, PTH119  # also of "."
        return dataset_of_parts(f"{shown(name)} ({self.name})", decoded_parts(self.listed()))

    @property
    def _place(self) -> str:
        """The path, in which ~ is the home folder; or the name on the hub."""
        return os.fspath(given_path(self.path, "data.path")) if self.path.startswith("~") else self.path

    def listed(self) -> Listing:
        """The pictures in the order of their rows."""
        splits = self._parts(self._splits())
        labels, class_names = self._classes(splits)
        root = Path(self._place)
        pictures = SplitPictures(
            root, tuple(self._pictures(name, split) for name, _, split in splits), self.image_column
        )
        sections = [
            Section(part or name, f"{shown(self.path)}: split {name}", root / name, part, len(split))
            for name, part, split in splits
        ]
        return Listing(root, pictures, labels, sections, class_names, self)

    def _splits(self) -> Mapping[str, Any]:
        """Every split by its name."""
        try:
            import datasets
        except ImportError as error:
            raise DataError(
                'data set huggingface is read by the package datasets: pip install "ensemble-trainer[huggingface]"'
            ) from error
        try:
            with quiet(datasets), working(f"opening {shown(self.path)}"):
                path = self._place
                if any(Path(path, name).is_file() for name in SAVED):
                    found = datasets.load_from_disk(path)
                elif Path(path).is_file():
                    found = datasets.load_dataset("parquet", data_files={"train": path})
                else:
                    # Whole, since a folder may be called as one of the package's own readers is.
                    place = os.path.abspath(path) if self.places({"path": path}) else path  # noqa: PTH100
                    found = datasets.load_dataset(
                        place, self.subset, revision=self.revision,
                        download_config=datasets.DownloadConfig(local_files_only=not self.download),
                    )  # fmt: skip
        except Exception as error:  # of files, the network and the package itself
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"data.path: {shown(self.path)} cannot be opened as a data set: {reason}; expected a folder that save_to_disk wrote or that holds Parquet files, or the name of a data set on the hub"
                + ("" if self.download else " that has been fetched before (data.download is false)")
            ) from error
        return dict(found) if isinstance(found, dict) else {"train": found}

    def _parts(self, splits: Mapping[str, Any]) -> list[tuple[str, PartName | None, Any]]:
        """Name, use and rows of the splits that are used, training first; a single one is divided."""
        chosen: dict[PartName, str] = dict(self.split_map or {})
        if self.split_map is None:
            for name in splits:
                part = part_of(name)
                if part is None or part in chosen:
                    raise DataError(
                        f"{shown(self.path)}: found the splits {few(list(splits))}; say which are used by data.split_map, such as {{train: {name}}}"
                    )
                chosen[part] = name
        if wrong := [name for name in chosen.values() if name not in splits]:
            raise DataError(f"data.split_map: found {few(wrong)}; expected splits of the set: {few(list(splits))}")
        if "train" not in chosen:
            raise DataError(
                f"data.split_map: no split is the part train; give it one of {few(list(splits))}, such as {{train: {next(iter(splits))}}}"
            )
        if empty := [name for name in chosen.values() if not len(splits[name])]:
            raise DataError(f"{shown(self.path)}: no rows in the split {few(empty)}; leave it out of data.split_map")
        if "test" in chosen and self.test_fraction is not None:
            raise DataError(
                f"data.test_fraction: found {self.test_fraction}, but the split {chosen['test']} is the test part; remove one"
            )
        whole = "test" not in chosen
        return [
            (chosen[part], None if whole and part == "train" else part, splits[chosen[part]])
            for part in PARTS
            if part in chosen
        ]

    def _classes(self, splits: Sequence[tuple[str, PartName | None, Any]]) -> tuple[IntArray, tuple[str, ...]]:
        """The class number of every row, and the names of the classes: those of the column's type, else the training values."""
        found: list[Any] = []
        for name, _, split in splits:
            if self.label_column not in split.features:
                raise DataError(
                    f"{shown(self.path)}: split {name}: no column {self.label_column!r} (data.label_column); found {few(list(split.features))}"
                )
            found += list(split[self.label_column])
        kind = splits[0][2].features[self.label_column]
        if odd := [n for n, value in enumerate(found) if not isinstance(value, int | str) or value in ("", -1)]:
            raise DataError(
                f"{shown(self.path)}: column {self.label_column}: found {found[odd[0]]!r} in {len(odd):,} rows ({few([f'row {n}' for n in odd], 3)}); expected the class of every picture (data.label_column)"
            )
        names: Sequence[str] | None = getattr(kind, "names", None)
        if names is not None and all(isinstance(value, int) for value in found):
            return np.array(found, np.int64), tuple(names)
        training = found[: len(splits[0][2])]
        values = sorted(set(training), key=lambda value: (isinstance(value, str), value))
        number = {value: k for k, value in enumerate(values)}
        if strange := sorted({str(value) for value in found if value not in number}):
            raise DataError(
                f"{shown(self.path)}: column {self.label_column}: found {few(strange)}, which no row of the training split has; expected classes of the training split"
            )
        return np.array([number[value] for value in found], np.int64), tuple(map(str, values))

    def _pictures(self, name: str, split: Any) -> tuple[str, Any]:
        """The split with its pictures as they are stored, not decoded."""
        import datasets

        if self.image_column not in split.features:
            raise DataError(
                f"{shown(self.path)}: split {name}: no column {self.image_column!r} (data.image_column); found {few(list(split.features))}"
            )
        try:
            return name, split.select_columns([self.image_column]).cast_column(
                self.image_column, datasets.Image(decode=False)
            )
        except Exception as error:  # pyarrow raises several kinds
            raise DataError(
                f"{shown(self.path)}: column {self.image_column}: found {split.features[self.image_column]}; expected pictures (data.image_column)"
            ) from error


@dataclass(frozen=True, eq=False)
class SplitPictures:
    """The pictures of several splits, one after the other. splits: each with its name."""

    root: Path
    splits: tuple[tuple[str, Any], ...]
    column: str

    def __len__(self) -> int:
        return sum(len(split) for _, split in self.splits)

    def _at(self, row: int) -> tuple[str, Any, int]:
        for name, split in self.splits:
            if row < len(split):
                return name, split, row
            row -= len(split)
        raise IndexError(row)

    def path(self, row: int) -> Path:
        """See Pictures: the split and the number of the row in it."""
        name, _, number = self._at(row)
        return self.root / name / f"{number:08d}"

    def decode(self, row: int) -> Decoded:
        """See Pictures."""
        name, split, number = self._at(row)
        stored, where = split[number][self.column] or {}, f"{shown(self.root)}: split {name}, row {number}"
        if stored.get("bytes"):
            return decode(stored["bytes"], where)
        if stored.get("path"):
            return decode(Path(stored["path"]), f"{where}, {shown(stored['path'])}")
        raise DataError(f"{where}: there is no picture (column {self.column}); expected one in every row")

    def digest(self) -> str:
        """See Pictures: names, sizes and times of the data set's own files, and of those that its rows name instead of holding them."""
        digest = hashlib.sha256(self.column.encode())
        for name, split in self.splits:
            digest.update(f"{name}\0{len(split)}\0".encode())
            for file in split.cache_files:
                digest.update(state_of(Path(file["filename"])))
            for path in _paths(split, self.column):
                digest.update(state_of(Path(path)))
        return digest.hexdigest()


def _paths(split: Any, column: str) -> Iterator[str]:
    """The files that stand for pictures in a split's table, in rows that the split leaves out too."""
    import pyarrow.compute as pc

    for stored in split.data.column(column).chunks:  # {bytes, path}, of which the bytes are not read here
        empty = pc.equal(pc.fill_null(pc.binary_length(stored.field("bytes")), 0), 0)
        named = pc.and_(empty, pc.is_valid(stored.field("path")))
        yield from pc.filter(stored.field("path"), named).to_pylist()


@contextmanager
def quiet(datasets: Any) -> Iterator[None]:
    """Inside, the package draws no progress bars: long work is told in one way here."""
    were = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were:
            datasets.enable_progress_bars()
