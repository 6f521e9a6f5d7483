"""Folders under an address (s3://bucket/runs and whatever else fsspec knows) as somebody sees them who only looks, or removes.

    runs = RemoteFolder("s3://bucket/runs")
    for name in runs.folders():
        content = runs.below(name).read("manifest.json")

`remote.Mirror` is how a run is written there, and fetched whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from ensemble.config.secrets import secret_in
from ensemble.errors import ConfigError
from ensemble.outside.object_storage import ObjectStorage
from ensemble.storage.journal import JOURNAL
from ensemble.storage.manifest import MANIFEST
from ensemble.storage.names import EVENTS
from ensemble.storage.remote import OWNER, events_at, position_at


class RemoteFolder:
    """One folder. Every call may raise StorageError where the storage does not answer, or refuses."""

    def __init__(self, address: str, what: str = "FOLDER") -> None:
        """what: where the address was given. Raises ConfigError for one that nobody can read, or that holds a password."""
        if remedy := secret_in(address):
            raise ConfigError(f"{what}: {remedy}")
        self.address = address.rstrip("/")
        self._storage = ObjectStorage(self.address, f"{what}: {address}")

    @property
    def name(self) -> str:
        """Its own name."""
        return self.address.rpartition("/")[2]

    def below(self, name: str) -> RemoteFolder:
        """A folder in it."""
        return RemoteFolder(f"{self.address}/{name}")

    def folders(self) -> list[str]:
        """The names of the folders in it. Raises StorageError also where there is no such folder."""
        return self._storage.folders()

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        return self._storage.read(name)

    def size(self, name: str) -> int | None:
        """How many bytes a file has now; None where there is none."""
        return self._storage.size(name)

    # A run: what its manifest lists and what its journal adds

    def state(self) -> str:
        """Another text whenever the copy of the run has changed. Two requests and a listing."""
        parts = sorted(self._storage.listing(JOURNAL.rstrip("/")))
        return f"{self._storage.size(MANIFEST)} {self._storage.size(EVENTS)} {parts[:1]} {len(parts)}"

    def now(self) -> tuple[bytes | None, bytes]:
        """The list of the run's files and its event log as they are now; None and nothing where there is no run.

        Raises StorageError for a damaged one. Reads the manifest, the log and the journal's parts, each once.
        """
        base = self.read(MANIFEST)
        if base is None:
            return None, b""
        there, parts = position_at(self._storage, base)
        return there.manifest() if parts else base, events_at(self._storage, parts)

    def own_files(self) -> list[str]:
        """What lies beside the listed files: the journal, and who writes there."""
        return [*sorted(self._storage.listing(JOURNAL.rstrip("/"))), OWNER]

    def remove(self, names: Iterable[str]) -> int:
        """Remove these files, in their order; returns how many bytes they had. Those that are not there are passed over."""
        names = list(names)
        freed = sum(self._storage.side_by_side(lambda name: self.size(name) or 0, names))
        for name in names:
            self._storage.remove([name])
        return freed

    def remove_empty_folders(self, names: Iterable[str]) -> None:
        """Remove folders that hold nothing any more. Object storage has none; a folder that holds more stays."""
        self._storage.remove_empty_folders(names)
