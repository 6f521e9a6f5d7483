"""`data.name: webdataset`: pictures in tar archives, as the library WebDataset writes them, here or in object storage.

    data: {name: webdataset, root: s3://bucket/photos, urls: "train-{000..123}.tar", test_urls: "test-{00..09}.tar", image_size: 64}

Files of one archive whose names are alike up to the first dot are a sample: KEY.jpg and KEY.cls, or KEY.json with the class under a name
(data.label_from). Pictures become images as those of a folder do (`decoding`): once, into this machine's cache, where they are many or far away.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ensemble.config.data import OwnPictures, register_data
from ensemble.data.account import Remark
from ensemble.data.bucket import Tree, given_place, tree_at
from ensemble.data.dataset import Dataset, dataset_from
from ensemble.data.decoding import decoded_parts
from ensemble.data.listing import SHOWN, Listing, Section
from ensemble.data.own_parts import PartName
from ensemble.data.picture_tree import LeftOut, few
from ensemble.data.pictures import Decoded, decode
from ensemble.data.regular_files import list_folder, open_regular, shown
from ensemble.data.shard_index import PICKLES, Fault, Sample, ShardIndex, indexed
from ensemble.data.shard_names import named
from ensemble.data.shards import Blocks, FarShard, FileShard, Shard
from ensemble.errors import DataError
from ensemble.outside.long_work import working
from ensemble.outside.object_storage import AT_ONCE, is_address
from ensemble.outside.paths import given_path
from ensemble.types import IntArray

IN_SHARD = "!"  # between an archive and the name of a picture in it


@register_data
class WebDataset(OwnPictures):
    """Pictures and their classes in tar archives."""

    in_short: ClassVar[str] = "your pictures in .tar shards, as the library WebDataset writes them"
    needed: ClassVar[str] = (
        "root, the folder of the shards or its address, urls, their names below it such as train-{000..123}.tar, and image_size"
    )
    name: Literal["webdataset"]
    root: str = Field(description="webdataset: the folder of the shards, or its address, s3://bucket/photos")
    urls: str = Field(
        min_length=1,
        description="webdataset: the training shards below root, by braces or *: train-{000..123}.tar, train-*.tar",
    )
    validation_urls: str | None = Field(
        None, min_length=1, description="webdataset: shards of a validation part; without them one is split off"
    )
    test_urls: str | None = Field(
        None, min_length=1, description="webdataset: shards of a test part; without them one is split off"
    )
    label_from: str = Field(
        "cls",
        pattern=r"^[A-Za-z0-9_-]+(\.[^\n]+)?$",
        description="webdataset: the ending of the files with the class, a number or a name: cls, txt, label; json.NAME for the value NAME in a .json",
    )
    class_names: tuple[str, ...] | str | None = Field(
        None,
        description="webdataset: names of the classes 0, 1, 2 ..., or a text file with one a line; without it the classes are called as their labels",
    )

    @model_validator(mode="after")
    def _label_can_be_read(self) -> Self:
        ending, _, value = self.label_from.partition(".")
        if ending.lower() in PICKLES:
            raise ValueError(
                f"label_from is {self.label_from}: such files are pickles, which execute what is in them when they are read, and are never opened; write the labels as .cls or .json"
            )
        if (ending == "json") != bool(value):
            raise ValueError(
                f"label_from is {self.label_from}; expected cls, txt or another ending, or json.NAME for the value NAME in a .json"
            )
        return self

    @classmethod
    def places(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """See DataConfig; names of classes may be in a file too."""
        return ("root", "class_names") if isinstance(values.get("class_names"), str) else ("root",)

    @property
    def pictures_from(self) -> str:
        """See DataConfig."""
        return self.root

    def build(self) -> Dataset:
        """See DataConfig."""
        return dataset_from(self.root, self.name, decoded_parts(list_shards(self)))


@dataclass(frozen=True, eq=False)
class PicturesInShards:
    """Pictures in archives. shard_N: which of the shards each is in."""

    root: Path
    shards: Sequence[Shard]
    shard_N: IntArray
    samples: Sequence[Sample]

    def __len__(self) -> int:
        return len(self.samples)

    def path(self, row: int) -> Path:
        """See listing.Pictures."""
        return _path(self.root, self.shards[self.shard_N[row]], self.samples[row].member)

    def decode(self, row: int) -> Decoded:
        """See listing.Pictures. Raises Unreachable where the storage of the shards does not answer."""
        sample, name = self.samples[row], shown(self.path(row))
        content = self.shards[self.shard_N[row]].read(sample.start, sample.size)
        if len(content) < sample.size:
            raise DataError(
                f"{name}: found {len(content):,} of {sample.size:,} bytes; expected a picture in a whole archive"
            )
        return decode(content, name)

    def digest(self) -> str:
        """Of the shards' names, sizes and times, or what their storage tells contents apart by."""
        digest = hashlib.sha256()
        for shard in self.shards:
            digest.update(f"{shard.where}\0{shard.size} {shard.identity}\n".encode("utf-8", "surrogateescape"))
        for number, sample in zip(self.shard_N.tolist(), self.samples, strict=True):
            digest.update(f"{number} {sample.start} {sample.size}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class _Part:
    """The shards of a part, with what is in them. key: where they were named."""

    part: PartName | None
    key: str
    pattern: str
    shards: list[Shard]
    indices: list[ShardIndex]


def list_shards(config: WebDataset) -> Listing:
    """The samples of all shards. Raises DataError naming the shards, the samples and the labels at fault."""
    address = config.root if is_address(config.root) else None
    tree = tree_at(address, "data.root") if address else None
    root = tree.root if tree else given_path(config.root, "data.root")
    if tree is None:
        list_folder(root)
    if config.test_urls is not None and config.test_fraction is not None:
        raise DataError(
            f"data.test_fraction: found {config.test_fraction}, but data.test_urls gives the test part; remove one"
        )
    parts = _parts(config, root, tree)
    given = _names_given(config)
    faults = [
        (shard, fault)
        for part in parts
        for shard, index in _pairs(part)
        for fault in (*index.faults, *_unnamed(index, given))
    ]
    _check(config, parts, [(_path(root, shard, fault.member), fault) for shard, fault in faults])
    wrong = {(shard.name, fault.member) for shard, fault in faults}
    kept = [
        [
            (shard, [one for one in index.samples if (shard.name, one.member) not in wrong])
            for shard, index in _pairs(part)
        ]
        for part in parts
    ]
    class_names = given or _classes(
        [[_plain(one.label) for _, samples in own for one in samples] for own in kept], parts
    )
    number = {name: k for k, name in enumerate(class_names)}
    shards: list[Shard] = []
    shard_N: list[int] = []
    samples: list[Sample] = []
    labels: list[int] = []
    sections: list[Section] = []
    for part, own in zip(parts, kept, strict=True):
        rows = 0
        for shard, found in own:
            shard_N += [len(shards)] * len(found)
            shards.append(shard)
            samples += found
            labels += [_number_of(one.label, number, given) for one in found]
            rows += len(found)
        if not rows:
            raise DataError(
                f"{part.key}: {shown(part.pattern)}: no sample can be used; expected pictures with a .{config.label_from.partition('.')[0]} each"
            )
        name = part.part or ("train" if len(parts) > 1 else shown(root.name))
        sections.append(
            Section(
                name,
                f"{shown(root)}/{shown(part.pattern)}",
                root,
                part.part,
                rows,
                {"": tuple(_left_out(root, part, wrong))},
            )
        )
    pictures = PicturesInShards(root, shards, np.array(shard_N, np.int64), samples)
    remarks = _remarks(parts)
    return Listing(
        root, pictures, np.array(labels, np.int64), sections, class_names, config, remarks=remarks, address=address
    )


def _parts(config: WebDataset, root: Path, tree: Tree | None) -> list[_Part]:
    """The parts that are given, training first, with the headers of all their shards read."""
    blocks, parts = Blocks(), []
    patterns: list[tuple[PartName | None, str, str | None]] = [
        ("train" if config.test_urls else None, "urls", config.urls),
        ("validation", "validation_urls", config.validation_urls),
        ("test", "test_urls", config.test_urls),
    ]
    owners: dict[str, str] = {}
    for part, key, pattern in patterns:
        if pattern is None:
            continue
        found = named(root, tree, pattern, f"data.{key}")
        for name in found:
            if (other := owners.setdefault(name, key)) != key:
                raise DataError(f"data.{key}: {shown(name)} is among data.{other} too; expected each shard in one part")
        shards: list[Shard] = [FarShard(tree, name, blocks) if tree else FileShard.at(root, name) for name in found]
        with (
            working(f"reading the names in {len(shards):,} shards", len(shards)) as done,
            ThreadPoolExecutor(AT_ONCE if tree else 1, "shards") as threads,
        ):
            indices = []
            for index in threads.map(lambda shard: indexed(shard, config.label_from), shards):
                indices.append(index)
                done()
        parts.append(_Part(part, f"data.{key}", pattern, shards, indices))
    return parts


def _names_given(config: WebDataset) -> tuple[str, ...]:
    """data.class_names; empty without. Raises DataError for a file that cannot be read, and for names that stand twice."""
    names = config.class_names
    if names is None:
        return ()
    where = "data.class_names"
    if isinstance(names, str):
        path = given_place(names, where)
        where = shown(path)
        try:
            with open_regular(path, "a text file with the name of a class in each line") as file:
                names = tuple(line.strip() for line in file.read().decode("utf-8-sig").splitlines() if line.strip())
        except FileNotFoundError as error:
            raise DataError(
                f"data.class_names: no file {where}; expected a text file with the name of a class in each line, or a list of names"
            ) from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: found bytes that are no UTF-8; expected a text file with the name of a class in each line"
            ) from error
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where}: found {few(twice, 3)} more than once; expected each class once")
    if len(names) < 2:
        raise DataError(f"{where}: found {len(names)} names; expected at least two classes")
    return names


def _is_number(label: str) -> bool:
    return len(label) < 19 and label.isascii() and label.removeprefix("-").isdigit()


def _plain(label: str) -> str:
    """007 and 7 are one class."""
    return str(int(label)) if _is_number(label) else label


def _number_of(label: str, number: dict[str, int], given: Sequence[str]) -> int:
    return int(label) if given and label not in number else number[label if given else _plain(label)]


def _unnamed(index: ShardIndex, given: Sequence[str]) -> list[Fault]:
    """Samples whose label is neither one of the names that are given nor the number of one."""
    if not given:
        return []
    most = len(given) - 1
    return [
        Fault(one.member, "with a label out of range", f"its label is {shown(one.label)}; expected 0 to {most}, or one of the names of data.class_names")
        for one in index.samples
        if one.label not in given and not (_is_number(one.label) and 0 <= int(one.label) <= most)
    ]  # fmt: skip


def _classes(labels: Sequence[Sequence[str]], parts: Sequence[_Part]) -> tuple[str, ...]:
    """The classes of the training samples: numbers in their order, else names in theirs."""
    trained = set(labels[0])
    for part, own in zip(parts[1:], labels[1:], strict=True):
        if others := sorted(set(own) - trained):
            raise DataError(
                f"{part.key}: found the labels {few(others)}, which no training sample has; expected only {few(sorted(trained))}"
            )
    if len(trained) < 2:
        raise DataError(
            f"{parts[0].key}: found {f'only the label {few(sorted(trained))}' if trained else 'no labels'}; expected at least two classes"
        )
    return tuple(sorted(trained, key=int) if all(map(_is_number, trained)) else sorted(trained))


def _check(config: WebDataset, parts: Sequence[_Part], faults: Sequence[tuple[Path, Fault]]) -> None:
    """Raises DataError for damaged archives and samples that cannot be used, unless data.on_bad_image says skip."""
    if config.on_bad_image == "skip":
        return
    if damaged := [
        f"  {shard.where} {index.trouble}" for part in parts for shard, index in _pairs(part) if index.trouble
    ]:
        raise DataError(
            f"{len(damaged)} shards are damaged\n{_first(damaged)}\nBring them anew, or set data.on_bad_image=skip to go on with the samples before the damage"
        )
    if faults:
        told = [f"  {shown(path)}: {fault.what}" for path, fault in faults]
        # A sample with a label out of range is among the samples.
        total = sum(len(index.samples) + len(index.faults) for part in parts for index in part.indices)
        raise DataError(
            f"{parts[0].key}: {len(faults)} of {total} samples cannot be used\n{_first(told)}\nRepair or remove them, or set data.on_bad_image=skip to go on without them"
        )


def _first(lines: Sequence[str]) -> str:
    more = f"\n  ... and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "\n".join(lines[:SHOWN]) + more


def _left_out(root: Path, part: _Part, wrong: set[tuple[str, str]]) -> list[LeftOut]:
    """What is in the shards of a part and belongs to no sample that is used."""
    found = []
    for shard, index in _pairs(part):
        found += [LeftOut(_path(root, shard, name), reason) for name, reason in index.left_out]
        known = {fault.member for fault in index.faults}
        found += [LeftOut(_path(root, shard, fault.member), fault.reason) for fault in index.faults]
        found += [
            LeftOut(_path(root, shard, one.member), "with a label out of range")
            for one in index.samples
            if (shard.name, one.member) in wrong and one.member not in known
        ]
    return found


def _remarks(parts: Sequence[_Part]) -> list[Remark]:
    """What is odd about the shards, and what of the samples is not read."""
    said, pairs = [], [pair for part in parts for pair in _pairs(part)]
    others = sum((Counter(index.others) for _, index in pairs), Counter[str]())
    if others:
        told = ", ".join(f"{count:,} {shown(ending)}" for ending, count in others.most_common(6))
        pickles = "; pickles are never opened" if any(ending.removeprefix(".") in PICKLES for ending in others) else ""
        said.append(Remark(f"other files of the samples are not read: {told}{pickles}"))
    if outside := [f"{shard.name}{IN_SHARD}{name}" for shard, index in pairs for name in index.outside]:
        said.append(
            Remark(
                f"{len(outside):,} names lead out of a folder, such as {shown(outside[0])}; they are names and no more, since nothing is extracted",
                True,
            )
        )
    if unended := [shard for shard, index in pairs if index.unended]:
        said.append(
            Remark(
                f"{len(unended):,} shards end without the mark of an archive's end, such as {unended[0].where}: they may have been cut",
                True,
            )
        )
    if damaged := [f"{shard.where} {index.trouble}" for shard, index in pairs if index.trouble]:
        said.append(
            Remark(
                f"{len(damaged):,} shards are damaged, and samples are missing that nobody can count: {few(damaged, 3)}",
                True,
            )
        )
    return said


def _pairs(part: _Part) -> list[tuple[Shard, ShardIndex]]:
    return list(zip(part.shards, part.indices, strict=True))


def _path(root: Path, shard: Shard, member: str) -> Path:
    """How a picture is called: shard.tar!KEY.jpg."""
    return root / f"{shard.name}{IN_SHARD}{member}"
