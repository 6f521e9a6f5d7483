"""Data in object storage: one listing, seen as folders, and objects that are read when they are asked for.

    tree = tree_at("s3://bucket/photos", "data.root")
    tree.entries(tree.root)                      # as of a folder: names, and which of them are folders
    tree.read(tree.root / "rose" / "1.jpg")

`regular_files` and `picture_tree` look into a tree where a path lies below its root, so classes, parts and what is left out are found
by the same rules as in a folder of this machine. The paths of a tree are no files: only names.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ensemble.errors import DataError, StorageError
from ensemble.outside.long_work import working
from ensemble.outside.object_storage import ObjectFacts, ObjectStorage, Unreachable, is_address
from ensemble.outside.paths import given_path

AWAY = "check the network and the address (for s3: also AWS_ENDPOINT_URL), then start again: pictures that were decoded are kept"


@dataclass(frozen=True, slots=True)
class FarEntry:
    """A name in a folder of a tree."""

    name: str
    folder: bool

    def is_dir(self) -> bool:
        """As of an os.DirEntry."""
        return self.folder


@dataclass(frozen=True, eq=False)
class Tree:
    """The objects below an address when they were listed. root: the address as a path, which has one slash less."""

    address: str
    root: Path
    storage: ObjectStorage
    objects: dict[str, ObjectFacts]
    _folders: dict[str, dict[str, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.objects:
            parts = name.split("/")
            for depth, part in enumerate(parts):
                is_folder = depth < len(parts) - 1
                self._folders.setdefault("/".join(parts[:depth]), {})[part] = is_folder

    def name(self, path: Path) -> str:
        """A path below the root as the name of an object; empty for the root."""
        name = path.relative_to(self.root).as_posix()
        return "" if name == "." else name

    def shown(self, path: Path) -> str:
        """A path as the address it stands for."""
        return f"{self.address}/{self.name(path)}".rstrip("/")

    def is_folder(self, path: Path) -> bool:
        """True where anything lies below."""
        return self.name(path) in self._folders

    def entries(self, path: Path) -> list[FarEntry]:
        """What lies in a folder, by name. Raises DataError where nothing does."""
        found = self._folders.get(self.name(path))
        if found is None:
            raise DataError(f"{self.shown(path)}: cannot be listed: no objects below it; expected a folder")
        return [FarEntry(name, folder) for name, folder in sorted(found.items())]

    def files_below(self, path: Path) -> list[Path]:
        """Every object below a folder, at any depth; of an object the object itself."""
        found: list[Path] = []
        left = [self.name(path)]
        while left:
            name = left.pop()
            inside = self._folders.get(name)
            if inside is None:
                found.append(self.root / name)
            else:
                left += [f"{name}/{inner}" if name else inner for inner in inside]
        return found

    def read(self, path: Path) -> bytes:
        """An object. Raises DataError where it is gone, Unreachable where the storage does not answer or refuses."""
        content = self.storage.read(self.name(path))
        if content is None:
            raise DataError(f"{self.shown(path)}: no such object; expected a picture there")
        return content


_trees: list[Tree] = []


def tree_at(address: str, key: str) -> Tree:
    """The objects below an address, listed now. key: where it was given, for messages.

    Raises ConfigError where the package of its protocol is missing, StorageError where it cannot be listed or there is no such
    bucket, DataError where there is nothing.
    """
    address = address.rstrip("/")
    storage = ObjectStorage(address, f"{key}: {address}", AWAY)
    try:
        with working(f"listing {address}"):
            objects = storage.listing()
    except Unreachable:
        raise
    except StorageError as error:
        raise DataError(f"{key}: {error}") from error
    if not objects:
        raise DataError(
            f"{key}: {address}: found no objects below it, or no such bucket; expected pictures, under names such as {address}/CLASS/1.jpg"
        )
    tree = Tree(address, Path(address), storage, objects)
    _trees[:] = [*(other for other in _trees if other.root != tree.root), tree]
    return tree


def tree_of(path: Path) -> Tree | None:
    """The tree that a path lies in; None for a path of this machine."""
    if not _trees or path.is_absolute():
        return None
    inside = [tree for tree in _trees if path == tree.root or tree.root in path.parents]
    return max(inside, key=lambda tree: len(tree.address)) if inside else None


_named: dict[Path, str] = {}  # single objects that were named, such as tables


def given_place(text: str, key: str) -> Path:
    """The path that a person means, here (`given_path`), or as a name for an object in storage. Raises ConfigError."""
    if not is_address(text):
        return given_path(text, key)
    _named[Path(text)] = text.rstrip("/")
    return Path(text)


def address_of(path: Path) -> str | None:
    """The address that a path stands for; None for a path of this machine."""
    if path in _named:
        return _named[path]
    if (tree := tree_of(path)) is not None:
        return tree.shown(path)
    return None


def named_object(path: Path) -> bytes | None:
    """The content of what `given_place` named; None for a path of this machine.

    Raises FileNotFoundError where there is no such object, ConfigError and StorageError as `tree_at`.
    """
    if (place := _place_of(path)) is None:
        return None
    storage, _, name = place
    content = storage.read(name)
    if content is None:
        raise FileNotFoundError(_named[path])
    return content


def tree_of_one(path: Path) -> Tree | None:
    """What `given_place` named as a tree with nothing else in it, by one request; None for a path of this machine.

    Raises FileNotFoundError where there is no such object, ConfigError and StorageError as `tree_at`.
    """
    if (place := _place_of(path)) is None:
        return None
    storage, folder, name = place
    facts = storage.facts(name)
    if facts is None:
        raise FileNotFoundError(_named[path])
    return Tree(folder, Path(folder), storage, {name: facts})


def _place_of(path: Path) -> tuple[ObjectStorage, str, str] | None:
    """Where an object lies that `given_place` named: its storage, the address of its folder, and its name there."""
    address = _named.get(path)
    if address is None:
        return None
    folder, _, name = address.rpartition("/")
    return ObjectStorage(folder, address, AWAY), folder, name


def trees_of(addresses: Sequence[str], key: str) -> None:
    """List what lies around these addresses of objects: of each bucket the folder that all of them are in."""
    folders: dict[str, list[str]] = {}
    for address in addresses:
        scheme, _, place = address.partition("://")
        folders.setdefault(f"{scheme}://{place.partition('/')[0]}", []).append(place.rpartition("/")[0])
    for bucket, places in folders.items():
        tree_at(f"{bucket.partition('://')[0]}://{os.path.commonpath(places)}", key)


@dataclass(frozen=True, eq=False)
class FarFiles:
    """Files of trees as `listing.Pictures` wants them, but for decoding. Reading is safe from several threads."""

    files: Sequence[Path]
    _read: set[Path] = field(default_factory=set)  # some that could be
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def content(self, row: int) -> bytes:
        """Raises DataError where this object is gone or refused, Unreachable where the storage is, or refuses others as well."""
        path = self.files[row]
        tree = tree_of(path)
        assert tree is not None, f"{path}: of no tree that is listed"
        try:
            content = tree.read(path)
        except Unreachable as error:
            if not error.refused or not self._another_is_given(path):
                raise
            raise DataError(f"{error}") from error
        if not self._read:
            with self._lock:
                self._read.add(path)
        return content

    def _another_is_given(self, path: Path) -> bool:
        """Whether the credentials still hold, so that a refusal is about one object."""
        known = next(iter(self._read), None)
        other = known or (self.files[-1] if path != self.files[-1] else self.files[0])
        tree = tree_of(other)
        if tree is None or other == path:
            return False
        try:
            return tree.storage.read(tree.name(other)) is not None
        except Unreachable:
            return False

    def digest(self) -> str:
        """Of addresses, sizes and what the storage tells contents apart by."""
        digest = hashlib.sha256()
        for path in self.files:
            tree = tree_of(path)
            facts = None if tree is None else tree.objects.get(tree.name(path))
            digest.update(
                f"{path}\0{facts and facts.size} {facts and facts.identity}\n".encode("utf-8", "surrogateescape")
            )
        return digest.hexdigest()
