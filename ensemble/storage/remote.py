"""Run folders on object storage: `output_dir: s3://bucket/runs`, or any other address that fsspec knows.

The run is written to a local folder, as always; what its manifest lists is copied to ADDRESS/NAME after every write, the
manifest last, so the copy is as whole as the original. A start elsewhere begins by fetching what is there. Two writers
cannot lock each other out on object storage: the later one notices that the copy is not what it left, and stops.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ensemble.cache import cache_folder
from ensemble.errors import ConfigError, StorageError
from ensemble.storage.atomic import write_bytes

MANIFEST, EVENTS, LEFT = "manifest.json", "events.jsonl", "run.pushed"


def is_address(place: str) -> bool:
    """True for an address such as s3://bucket/runs, False for a path."""
    return "://" in place


def local_root(address: str) -> Path:
    """The folder that holds the local side of everything under an address: below $ENSEMBLE_CACHE or ~/.cache/ensemble."""
    return cache_folder() / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


class Mirror:
    """The copy of one run folder under an address."""

    def __init__(self, address: str, name: str) -> None:
        """Raises ConfigError for a protocol nobody knows or whose package is missing."""
        import fsspec

        self.address = f"{address.rstrip('/')}/{name}"
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except (ValueError, ImportError) as error:
            raise ConfigError(
                f"output_dir: {address}: {error}; expected a path, or an address whose fsspec package is installed, such as s3fs for s3://"
            ) from error
        self._pushed: dict[str, str] = {}  # what lies there, by name
        self._manifest = b""

    def fetch(self, folder: Path) -> None:
        """Bring the local folder to what lies there, unless it went on from exactly that.

        Raises StorageError when the storage cannot be reached or a file there is not what its manifest says.
        """
        there = self._read(MANIFEST)
        if there is None:
            return
        self._manifest, self._pushed = there, _digests(there)
        local = folder / MANIFEST
        left = folder / LEFT
        if local.is_file() and left.is_file() and left.read_text() == hashlib.sha256(there).hexdigest():
            return
        here = _digests(local.read_bytes()) if local.is_file() else {}
        for name, digest in self._pushed.items():
            if here.get(name) == digest and (folder / name).is_file():
                continue
            content = self._read(name)
            if content is None or (hashlib.sha256(content).hexdigest() != digest and name != EVENTS):
                raise StorageError(f"{self.address}/{name}: {'missing' if content is None else 'damaged'}; restore it")
            write_bytes(folder / name, content)
        if EVENTS not in self._pushed and (events := self._read(EVENTS)) is not None:
            write_bytes(folder / EVENTS, events)
        write_bytes(local, there)
        self._note(folder)

    def push(self, folder: Path, files: Mapping[str, str]) -> None:
        """Copy what changed, then the manifest, then remove what is no longer listed. files: SHA-256 by name.

        Raises StorageError when the storage refuses, or when somebody else has written there since.
        """
        if (self._read(MANIFEST) or b"") != self._manifest:
            raise StorageError(
                f"{self.address}: another process has written to this run; stop one of them, or give one another name=..."
            )
        wanted = dict(files)
        for name, digest in wanted.items():
            if self._pushed.get(name) != digest:
                self._write(name, (folder / name).read_bytes())
        if (folder / EVENTS).is_file():
            self._write(EVENTS, (folder / EVENTS).read_bytes())
        content = (folder / MANIFEST).read_bytes()
        self._write(MANIFEST, content)
        for name in self._pushed.keys() - wanted.keys():
            self._remove(name)
        self._manifest, self._pushed = content, wanted
        self._note(folder)

    def _note(self, folder: Path) -> None:
        write_bytes(folder / LEFT, hashlib.sha256(self._manifest).hexdigest().encode())

    def _read(self, name: str) -> bytes | None:
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
            return content
        except FileNotFoundError:
            return None
        except Exception as error:  # every storage has errors of its own
            raise StorageError(f"{self.address}/{name}: cannot be read: {type(error).__name__}: {error}") from error

    def _write(self, name: str, content: bytes) -> None:
        place = f"{self._root}/{name}"
        try:
            self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(place, content)
        except Exception as error:  # every storage has errors of its own
            raise StorageError(
                f"{self.address}/{name}: cannot be written: {type(error).__name__}: {error}; what is finished is kept in the local folder, start the run again"
            ) from error

    def _remove(self, name: str) -> None:
        try:
            self._files.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return
        except Exception as error:  # every storage has errors of its own
            raise StorageError(f"{self.address}/{name}: cannot be removed: {type(error).__name__}: {error}") from error


def _digests(manifest: bytes) -> dict[str, str]:
    return {name: str(facts["sha256"]) for name, facts in json.loads(manifest)["files"].items()}
