"""Run folders on object storage: `output_dir: s3://bucket/runs`, or any other address that fsspec knows.

The run is written to a local folder, as always; what its manifest lists is copied to ADDRESS/NAME after every write, the
manifest last, so the copy is as whole as the original. A start elsewhere begins by fetching what is there. Two writers
cannot lock each other out on object storage: the later one notices that the copy is not what it left, and stops.

Where the storage cannot be reached for a while the run goes on in the local folder and says so; the copy is tried again
after longer and longer waits, and a last time when the run ends. A bucket is never created.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble.cache import cache_folder
from ensemble.errors import ConfigError, StorageError
from ensemble.storage.atomic import write_bytes
from ensemble.storage.manifest import MANIFEST, parse_manifest
from ensemble.storage.names import EVENTS

log = logging.getLogger(__name__)

LEFT = "run.pushed"


def is_address(place: str) -> bool:
    """True for an address such as s3://bucket/runs, False for a path."""
    return "://" in place


def local_root(address: str) -> Path:
    """The folder that holds the local side of everything under an address: below $ENSEMBLE_CACHE or ~/.cache/ensemble."""
    return cache_folder() / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


def file_system(address: str, what: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    what: what was given and where, for messages. Raises ConfigError for a protocol nobody knows or whose package is missing.
    """
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(address, **_OPTIONS.get(address.partition("://")[0], {}))
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"{what}: {error}; expected a path, or an address whose fsspec package is installed, such as s3fs for s3://"
        ) from error
    return files, root


def is_refusal(error: Exception) -> bool:
    """Whether a storage said that these credentials may not do that."""
    words = f"{type(error).__name__}: {error}"
    return isinstance(error, PermissionError) or any(sign in words for sign in _REFUSALS)


class Mirror:
    """The copy of one run folder under an address."""

    def __init__(self, address: str, name: str) -> None:
        """Raises ConfigError for a protocol nobody knows or whose package is missing."""
        self.address = f"{address.rstrip('/')}/{name}"
        self._files, self._root = file_system(self.address, f"output_dir: {address}")
        self._has_folders = address.partition("://")[0] in _WITH_FOLDERS
        self._pushed: dict[str, str] = {}  # what lies there, by name
        self._manifest, self._sent = b"", b""  # that which lies there, and that which was sent last
        self._behind_since: float | None = None  # unix seconds; None while the copy is whole
        self._next_try, self._wait_s = 0.0, _FIRST_WAIT_S

    def fetch(self, folder: Path) -> None:
        """Bring the local folder to what lies there, unless it went on from exactly that.

        Raises StorageError when the storage cannot be reached or a file there is not what its manifest says.
        """
        there = self._read(MANIFEST)
        if there is None:
            return
        self._manifest, self._pushed = there, self._digests(there)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be used for the local copy: {error.strerror or error}") from error
        local = folder / MANIFEST
        left = folder / LEFT
        if local.is_file() and left.is_file() and left.read_bytes() == hashlib.sha256(there).hexdigest().encode():
            return
        here = self._digests(local.read_bytes(), local) if local.is_file() else {}
        for name, digest in self._pushed.items():
            if here.get(name) == digest and (folder / name).is_file():
                continue
            content = self._read(name)
            if content is None or (hashlib.sha256(content).hexdigest() != digest and name != EVENTS):
                raise StorageError(f"{self.address}/{name}: {'missing' if content is None else 'damaged'}; restore it")
            write_bytes(folder / name, content, folder)
        if EVENTS not in self._pushed and (events := self._read(EVENTS)) is not None:
            write_bytes(folder / EVENTS, events, folder)
        write_bytes(local, there, folder)
        self._note(folder)

    def push(self, folder: Path, files: Mapping[str, str]) -> None:
        """Copy what changed, then the manifest, then remove what is no longer listed. files: SHA-256 by name.

        Where the storage cannot be reached, that is said, and later calls try again. Raises StorageError when there is no
        such bucket, or when somebody else has written there since.
        """
        if self._behind_since is not None and time.monotonic() < self._next_try:
            return
        try:
            self._copy(folder, files)
        except Unreachable as error:
            self._fall_behind(folder, error)
            return
        if self._behind_since is not None:
            log.warning("%s: reached again; the copy is whole", self.address)
        self._behind_since, self._wait_s = None, _FIRST_WAIT_S

    def settle(self, folder: Path, files: Mapping[str, str]) -> None:
        """Copy what could not be copied before. Raises StorageError when that still fails."""
        if self._behind_since is None:
            return
        self._copy(folder, files)
        log.warning("%s: reached again; the copy is whole", self.address)
        self._behind_since = None

    def _fall_behind(self, folder: Path, error: StorageError) -> None:
        if self._behind_since is None:
            self._behind_since = time.time()
        self._next_try = time.monotonic() + self._wait_s
        since = time.strftime("%H:%M:%S", time.localtime(self._behind_since))
        log.warning(
            "%s\nthe run goes on in %s, not mirrored since %s; tried again in %.0f s",
            error,
            folder,
            since,
            self._wait_s,
        )
        self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)

    def _copy(self, folder: Path, files: Mapping[str, str]) -> None:
        if (self._read(MANIFEST) or b"") not in (self._manifest, self._sent):
            raise StorageError(
                f"{self.address}: another process has written to this run; stop one of them, or give one another name=..."
            )
        wanted = dict(files)
        for name, digest in wanted.items():
            if self._pushed.get(name) != digest:
                self._write(name, _local(folder / name))
        if (folder / EVENTS).is_file():
            self._write(EVENTS, _local(folder / EVENTS))
        content = _local(folder / MANIFEST)
        self._sent = content  # whose arrival may go unconfirmed
        self._write(MANIFEST, content)
        for name in self._pushed.keys() - wanted.keys():
            self._remove(name)
        self._manifest, self._pushed = content, wanted
        self._note(folder)

    def _note(self, folder: Path) -> None:
        write_bytes(folder / LEFT, hashlib.sha256(self._manifest).hexdigest().encode(), folder)

    def _read(self, name: str) -> bytes | None:
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
            return content
        except FileNotFoundError:
            return None
        except Exception as error:  # every storage has errors of its own
            raise self._unreachable(name, "read", error) from error

    def _write(self, name: str, content: bytes) -> None:
        place = f"{self._root}/{name}"
        try:
            if self._has_folders:
                self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(place, content)
        except FileNotFoundError as error:
            raise StorageError(
                f"{self.address}: there is no such bucket ({error}); correct the address, or create the bucket: that is not done here"
            ) from error
        except Exception as error:  # every storage has errors of its own
            raise self._unreachable(name, "written", error) from error

    def _remove(self, name: str) -> None:
        try:
            self._files.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return
        except Exception as error:  # every storage has errors of its own
            raise self._unreachable(name, "removed", error) from error

    def _unreachable(self, name: str, what: str, error: Exception) -> Unreachable:
        words = f"{type(error).__name__}: {error}"
        advice = (
            "the storage refuses these credentials: they are missing, expired, or may not do that; renew them (for s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE), then start the run again"
            if is_refusal(error)
            else "what is finished is kept in the local folder; start the run again"
        )
        return Unreachable(f"{self.address}/{name}: cannot be {what}: {words}; {advice}")

    def _digests(self, manifest: bytes, local: Path | None = None) -> dict[str, str]:
        found = parse_manifest(manifest, local or Path(f"{self.address}/{MANIFEST}"))
        return {name: entry.sha256 for name, entry in found.files.items()}


class Unreachable(StorageError):
    """The storage does not answer, or refuses; another time it may not."""


def _local(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error


_FIRST_WAIT_S, _LONGEST_WAIT_S = 15.0, 300.0
# Protocols whose folders must be made before a file can lie in them; others have buckets, which are not made.
_WITH_FOLDERS = frozenset({"file", "local", "memory", "sftp", "ssh", "smb", "ftp", "hdfs", "webhdfs", "arrow_hdfs"})
# Without these a storage that is away holds the run up for minutes at every file.
_QUICK = {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 2}}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": _QUICK}, "s3a": {"config_kwargs": _QUICK}}
_REFUSALS = (
    "403",
    "AccessDenied",
    "Forbidden",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "NoCredentials",
    "SignatureDoesNotMatch",
)
