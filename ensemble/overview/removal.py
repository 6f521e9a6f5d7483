"""Removing runs: whole folders of runs that nobody writes to, and nothing else.

    found = removable("quickstart")       # what would go
    freed = remove(found)

The manifest and the lock go last, so a removal that was interrupted leaves a run that can be removed again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ensemble.errors import StorageError
from ensemble.overview.rows import Row, read_row
from ensemble.overview.sizes import bytes_in
from ensemble.overview.sources import Source, find_source
from ensemble.storage.listed_folder import is_file, locked
from ensemble.storage.lock_state import LOCK
from ensemble.storage.manifest import MANIFEST, parse_manifest
from ensemble.storage.names import CONFIG, EVENTS
from ensemble.storage.remedies import unreadable
from ensemble.storage.remote import local_root
from ensemble.storage.remote_folder import RemoteFolder


@dataclass(frozen=True)
class Removable:
    """A run that may be removed. size: bytes that go. copy: of a run under an address, this machine's folder of it, if any."""

    source: Source
    row: Row
    size: int
    copy: Path | None = None


def removable(name: str) -> Removable:
    """A run by folder, name under runs/, or address. Raises StorageError where it is none, or is being written to."""
    source = find_source(name)
    row = read_row(source)
    if row.state == "running":
        sure = (
            "in use by a process that writes to it"
            if row.state_by == "lock"
            else "its event log grew within the last minutes"
        )
        raise StorageError(f"{source.place}: not removed: {sure}; stop it first, or wait for it")
    if source.remote:
        there = RemoteFolder(source.place)
        _listed(there)
        address, _, run = there.address.rpartition("/")
        copy = local_root(address) / run
        if not is_file(copy / MANIFEST):
            return Removable(source, row, row.size or 0)
        _require_run_folder(copy)
        return Removable(source, row, (row.size or 0) + bytes_in(copy), copy)
    path = Path(source.place)
    _require_run_folder(path)
    return Removable(source, row, bytes_in(path))


def remove(found: Removable) -> int:
    """Remove it; returns how many bytes that freed. Raises StorageError where a process has begun to write to it, or a file stays."""
    if not found.source.remote:
        return _remove_folder(Path(found.source.place))
    there = RemoteFolder(found.source.place)
    names = _listed(there)
    freed = (
        0 if found.copy is None else _remove_folder(found.copy)
    )  # first, or a start would bring the run back from it
    freed += there.remove([*(name for name in names if name != MANIFEST), MANIFEST])
    there.remove_empty_folders(
        {"", *(name.rpartition("/")[0] for name in names)} | {p for n in names for p in _parents(n)}
    )
    return freed


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _listed(there: RemoteFolder) -> list[str]:
    """All files of a run under an address: those of its manifest, and the event log. Nothing else is touched there."""
    content, _ = there.now()
    if content is None:
        raise StorageError(f"{there.address}: no run here (there is no {MANIFEST}); give the address of a run")
    listed = parse_manifest(content, Path(f"{there.address}/{MANIFEST}")).files
    return sorted({*listed, EVENTS, *there.own_files()})


def _require_run_folder(path: Path) -> None:
    """Raises StorageError for a link, a folder that only has a file of that name, and one that holds other runs."""
    if path.is_symlink():
        raise StorageError(
            f"{path}: not removed: it is a link to {path.readlink()}; remove the link itself, or name that folder"
        )
    if Path.cwd().is_relative_to(path.resolve()):
        raise StorageError(f"{path}: not removed: you are in it; go elsewhere first, and name it from there")
    if not _is_run(path):
        raise StorageError(
            f"{path}: not removed: its {MANIFEST} is not that of a run; check what it is, and remove it yourself"
        )
    for folder, _, files in os.walk(path):
        if Path(folder) != path and MANIFEST in files and _is_run(Path(folder)):
            raise StorageError(
                f"{path}: not removed: it holds another run, {folder}; remove that first, or move it away"
            )


def _is_run(path: Path) -> bool:
    """Whether the manifest is that of a run; a damaged one is known by what lies beside it."""
    try:
        return CONFIG in parse_manifest((path / MANIFEST).read_bytes(), path / MANIFEST).files
    except StorageError:
        return is_file(path / LOCK) and is_file(path / CONFIG)
    except OSError as error:
        raise unreadable(path / MANIFEST, error) from error


def _remove_folder(path: Path) -> int:
    try:
        with locked(path / LOCK):
            freed = bytes_in(path)
            with os.scandir(path) as entries:
                own = [entry for entry in entries if entry.name not in (MANIFEST, LOCK)]
            for entry in own:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)  # removes links, and does not follow them
                else:
                    Path(entry.path).unlink()
            (path / MANIFEST).unlink()
            (path / LOCK).unlink()
            path.rmdir()
    except OSError as error:
        raise StorageError(
            f"{error.filename or path}: cannot be removed: {error.strerror or error}; check permissions, then remove the run again"
        ) from error
    return freed
