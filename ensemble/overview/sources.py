"""Where runs lie: folders of this machine and addresses, and in each of them the run folders.

    for source in find_sources("runs"):          # or s3://bucket/runs
        with source.opened() as folder: ...      # a RunFolder to read

Of a run under an address only `READ` is fetched: the manifest, and what it takes to say how far the run is.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.errors import StorageError, first_line
from ensemble.outside.paths import given_path
from ensemble.storage import RunFolder
from ensemble.storage.listed_folder import is_file
from ensemble.storage.manifest import MANIFEST
from ensemble.storage.names import CONFIG, EVALUATION, EVENTS, PLAN
from ensemble.storage.no_run import ROOT, no_run
from ensemble.storage.remote import is_address
from ensemble.storage.remote_folder import RemoteFolder

READ = (MANIFEST, CONFIG, PLAN, EVALUATION, EVENTS)


@dataclass(frozen=True)
class Source:
    """One folder that may be a run. name: from the place that was asked for; place: a path or an address, to be typed.

    reason: why it is no run, where it is none.
    """

    name: str
    place: str
    reason: str = ""

    @property
    def remote(self) -> bool:
        return is_address(self.place)

    @contextlib.contextmanager
    def opened(self, more: Sequence[str] = ()) -> Iterator[RunFolder]:
        """The run, for reading. more: names of files that are looked at besides what a listing needs.

        Raises StorageError where there is none, or its manifest cannot be believed.
        """
        if not self.remote:
            yield RunFolder.read(Path(self.place))
            return
        there = RemoteFolder(self.place)
        with tempfile.TemporaryDirectory(prefix="ensemble-runs-") as folder:
            known = dict(zip((MANIFEST, EVENTS), there.now(), strict=True))
            for name in (*READ, *more):
                if content := known[name] if name in known else there.read(name):
                    (Path(folder) / name).write_bytes(content)
            try:
                yield RunFolder.read(Path(folder))
            except StorageError as error:
                raise StorageError(str(error).replace(folder, self.place)) from error


def find_sources(place: str) -> list[Source]:
    """The runs in a folder or under an address, by name; also folders in it that are none, and runs one folder deeper.

    A place that is a run itself is the only one. Raises StorageError where there is no such place.
    """
    if is_address(place):
        return _below_address(RemoteFolder(place))
    root = given_path(place, "FOLDER")
    if is_file(root / MANIFEST):
        return [Source(root.name or str(root), str(root))]
    try:
        return [source for name in _folders(root) for source in _of_folder(name, root / name)]
    except OSError as error:
        raise StorageError(
            f"{root}: cannot be looked through: {error.strerror or error}; give a folder that holds runs, or the address of one"
        ) from error


def _of_folder(name: str, folder: Path) -> list[Source]:
    """A folder as a run, the runs in it, or what it is instead."""
    try:
        if is_file(folder / MANIFEST):
            return [Source(name, str(folder))]
        deeper = [run for run in _folders(folder) if is_file(folder / run / MANIFEST)]
    except (OSError, StorageError) as error:  # a folder that may not be entered
        return [Source(name, str(folder), f"cannot be read: {first_line(error)}")]
    none = Source(name, str(folder), f"no run: it has no {MANIFEST}")
    return [Source(f"{name}/{run}", str(folder / run)) for run in deeper] or [none]


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """False also for a link that leads nowhere, or to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _below_address(there: RemoteFolder) -> list[Source]:
    if there.size(MANIFEST) is not None:
        return [Source(there.name, there.address)]
    found = []
    for name in there.folders():
        below = there.below(name)
        if below.size(MANIFEST) is not None:
            found.append(Source(name, below.address))
            continue
        deeper = [run for run in below.folders() if below.below(run).size(MANIFEST) is not None]
        found += [Source(f"{name}/{run}", below.below(run).address) for run in deeper]
        if not deeper:
            found.append(Source(name, below.address, f"no run: it has no {MANIFEST}"))
    return found


def find_source(name: str) -> Source:
    """One run by its folder, its name under runs/, or its address. Raises StorageError where there is none."""
    if is_address(name):
        there = RemoteFolder(name, "RUN")
        if there.size(MANIFEST) is None:
            raise StorageError(f"{there.address}: no run here (there is no {MANIFEST}); give the address of a run")
        return Source(there.name, there.address)
    here = given_path(name, "RUN")
    for path in (here, Path(ROOT) / name):
        if is_file(path / MANIFEST):
            return Source(path.name, str(path))
    raise no_run(here if here.is_dir() or "/" in name else Path(ROOT) / name)
