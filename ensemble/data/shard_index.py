"""What lies in a tar shard of samples: files whose names are alike up to the first dot belong together, KEY.jpg and KEY.cls.

    index = indexed(shard, "cls")
    index.samples                  # member, place and size of the picture, text of the label

Headers and labels are read by Python's tarfile; pictures are not read, and nothing is ever extracted, so that a name such as /etc/passwd or ../x is
a name and no more. No pickle is opened. The index of a shard is kept in the cache under its name, size and time, or its ETag.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ensemble.cache import is_own, keep_json, own_folder
from ensemble.data.picture_tree import HIDDEN
from ensemble.data.pictures import SUFFIXES
from ensemble.data.shards import Shard, ShardFile
from ensemble.errors import DataError
from ensemble.outside import names

FORMAT = 2  # of the kept index
ROOM = "shards"  # in the cache
PICKLES = frozenset({"pyd", "pkl", "pickle", "pth", "pt"})
MOST_LABEL_BYTES = 1 << 20
HEADERS_AT_ONCE = 1 << 16  # bytes
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and its label. member: the name in the archive. start, size: of its bytes. label: as the file has it."""

    member: str
    start: int
    size: int
    label: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A sample that cannot be used. member: by which it is told. reason: in a word or two. what: in a sentence."""

    member: str
    reason: str
    what: str


@dataclass(frozen=True)
class ShardIndex:
    """The samples of a shard in their order, and whatever else is in it.

    left_out: names and reasons of what belongs to no sample. others: files of samples that are not read, by ending. outside: names that
    lead out of a folder. trouble: what is wrong with the archive as a whole; unended: it has no mark of its end.
    """

    samples: list[Sample] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    trouble: str = ""
    unended: bool = False


@dataclass
class _Parts:
    """The files of one key so far."""

    pictures: list[tuple[str, int, int]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    first: str = ""
    fault: Fault | None = None


def indexed(shard: Shard, label_from: str) -> ShardIndex:
    """The index that an earlier start has kept, or made now. Raises DataError for a compressed archive."""
    known = [FORMAT, shard.where, shard.size, shard.identity, label_from]
    digest = hashlib.sha256(json.dumps(known).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    with suppress(OSError, RuntimeError, ValueError, KeyError, TypeError):
        path = own_folder(ROOM) / f"{digest}.json"
        if is_own(path):
            return _from_json(json.loads(path.read_bytes()))
    index = _Indexing(shard, label_from).index()
    with suppress(OSError, RuntimeError):  # then it is made anew at the next start
        keep_json(own_folder(ROOM) / f"{digest}.json", asdict(index))
    return index


@dataclass(frozen=True)
class KeptIndices:
    """How many indices of shards this machine's cache has, and their bytes. Each is made again by a read of the shard's headers."""

    count: int
    bytes_used: int


def kept_indices() -> KeptIndices:
    """Raises DataError where the cache cannot be looked at."""
    sizes = [path.stat().st_size for path in _index_files()]
    return KeptIndices(len(sizes), sum(sizes))


def remove_indices() -> int:
    """Remove all of them; returns how many there were. Raises DataError where the cache cannot be looked at."""
    files = _index_files()
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def _index_files() -> list[Path]:
    try:
        return [path for path in own_folder(ROOM).glob("*.json") if is_own(path)]
    except (OSError, RuntimeError) as error:
        raise DataError(f"the indices of shards cannot be looked at: {error}; set ENSEMBLE_CACHE") from error


def _from_json(values: dict[str, Any]) -> ShardIndex:
    samples, faults = [Sample(**one) for one in values.pop("samples")], [Fault(**one) for one in values.pop("faults")]
    left_out = [(str(name), str(reason)) for name, reason in values.pop("left_out")]
    return ShardIndex(samples=samples, faults=faults, left_out=left_out, **values)


class _Indexing:
    """One pass over the headers of a shard."""

    def __init__(self, shard: Shard, label_from: str) -> None:
        self._shard = shard
        self._label, _, self._field = label_from.partition(".")
        self._parts: dict[str, _Parts] = {}
        self._others: Counter[str] = Counter()
        self._left_out: list[tuple[str, str]] = []
        self._outside: list[str] = []

    def index(self) -> ShardIndex:
        """See `indexed`."""
        start = self._shard.read(0, 512)
        for mark, what in COMPRESSED.items():
            if start.startswith(mark):
                raise DataError(
                    f"{self._shard.where}: found an archive packed by {what}, which can only be read from its beginning on; expected a plain .tar: unpack it first"
                )
        trouble, unended = self._walk()
        found = [self._sample(parts) for parts in self._parts.values()]
        samples = [one for one in found if isinstance(one, Sample)]
        faults = [one for one in found if isinstance(one, Fault)]
        return ShardIndex(samples, faults, self._left_out, dict(self._others), self._outside, trouble, unended)

    def _walk(self) -> tuple[str, bool]:
        """Look at every header; returns what is wrong with the archive, and whether the mark of its end is missing."""
        size = self._shard.size
        try:
            with (
                io.BufferedReader(ShardFile(self._shard), HEADERS_AT_ONCE) as file,
                tarfile.open(fileobj=file, mode="r:") as archive,
            ):
                while (member := archive.next()) is not None:
                    if member.offset_data + member.size > size and member.isreg():
                        return f"is cut off in the middle of {names.shown(member.name)}", False
                    self._take(member, archive)
                    archive.members = []  # type: ignore[attr-defined]  # or all of them would be kept
                file.seek(archive.offset)
                end = file.read(512)
                behind = _behind(file)
        except tarfile.TarError as error:
            return f"cannot be read as a tar archive: {error}", False
        except (ValueError, EOFError, OverflowError) as error:  # headers that mean nothing
            return f"cannot be read as a tar archive: {type(error).__name__}: {error}", False
        if end.strip(b"\0"):
            return f"is damaged at byte {archive.offset:,}, where a header should be", False
        if behind is not None:
            return (
                f"goes on at byte {behind:,}, behind its end, where no program reads on: archives are joined by "
                "`tar --concatenate`, not by `cat`"
            ), False
        return "", len(end) < 512

    def _take(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Note one file."""
        name = member.name
        if member.isdir():
            return
        if not member.isreg() or member.issparse():
            kind = (
                "link"
                if member.issym() or member.islnk()
                else "sparse file"
                if member.issparse()
                else "no regular file"
            )
            self._left_out.append((name, kind))
            return
        folder, slash, last = name.rpartition("/")
        base, dot, endings = last.partition(".")
        if not base:
            self._left_out.append((name, HIDDEN))
            return
        if not dot:
            self._left_out.append((name, "without an ending"))
            return
        if name.startswith("/") or ".." in folder.split("/"):
            self._outside.append(name)
        endings = endings.lower()
        kind = endings.rpartition(".")[2]
        parts = self._parts.setdefault(folder + slash + base, _Parts(first=name))
        if endings == self._label:
            self._take_label(member, archive, parts)
        elif f".{kind}" in SUFFIXES:
            parts.pictures.append((name, member.offset_data, member.size))
        else:
            self._others[f".{kind}"] += 1

    def _take_label(self, member: tarfile.TarInfo, archive: tarfile.TarFile, parts: _Parts) -> None:
        what = ""
        try:
            if member.size > MOST_LABEL_BYTES:
                raise ValueError(f"{member.size:,} bytes; expected a class")
            file = archive.extractfile(member)
            assert file is not None, "a regular file"
            content = file.read()
            if len(content) == member.size:
                parts.labels.append(self._label_of(content))
                return
            what = "it is cut off"
        except (ValueError, RecursionError) as error:
            what = str(error)
        parts.fault = Fault(member.name, "without a usable label", f"no label can be read: {what}")

    def _label_of(self, content: bytes) -> str:
        """The text of a label. Raises ValueError, in words."""
        try:
            text = content.decode().strip()
        except UnicodeDecodeError as error:
            raise ValueError("its bytes are no UTF-8") from error
        if self._field:
            try:
                value = json.loads(text)
            except ValueError as error:
                raise ValueError(f"it is no JSON ({error})") from error
            if not isinstance(value, dict) or self._field not in value:
                raise ValueError(f"it has no {self._field!r} (data.label_from)")
            value = value[self._field]
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise ValueError(f"its {self._field!r} is {names.shown(str(value), 60)}; expected a number or a name")
            text = str(value).strip()
        if not text:
            raise ValueError("it is empty")
        if "\n" in text or len(text) > 200:
            raise ValueError("it is longer than a line; expected a number or a name")
        return text

    def _sample(self, parts: _Parts) -> Sample | Fault:
        if parts.fault is not None:
            return parts.fault
        shown, wanted = names.shown(parts.first), f".{self._label}"
        if len(parts.labels) > 1 or len({name for name, *_ in parts.pictures}) < len(parts.pictures):
            return Fault(
                parts.first,
                "key that stands twice",
                f"its key stands twice, so nobody can say which {wanted} belongs to which picture",
            )
        if not parts.pictures:
            return Fault(
                parts.first,
                "without a picture",
                f"no picture belongs to it{self._instead(parts.first)}; expected one of {', '.join(sorted(SUFFIXES))} beside {shown}",
            )
        if not parts.labels:
            return Fault(parts.first, f"without {wanted}", f"no {wanted} belongs to it (data.label_from)")
        if len(parts.pictures) > 1:
            found = ", ".join(names.shown(name) for name, *_ in parts.pictures[:3])
            return Fault(
                parts.first,
                "with several pictures",
                f"{len(parts.pictures)} pictures belong to one key, {found}; expected one",
            )
        return Sample(*parts.pictures[0], parts.labels[0])

    def _instead(self, member: str) -> str:
        """What is there of the same key and is not read, such as a link, which has no content of its own."""
        key = _key(member)
        found = next(((name, reason) for name, reason in self._left_out if _key(name) == key), None)
        return "" if found is None else f", since {names.shown(found[0])} is left out ({found[1]})"


def _key(member: str) -> str:
    folder, slash, last = member.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _behind(file: BinaryIO) -> int | None:
    """Where something other than zeros begins in the rest of a file; None where nothing does."""
    while content := file.read(HEADERS_AT_ONCE):
        if rest := content.lstrip(b"\0"):
            return file.tell() - len(rest)
    return None
