"""How the manifest reaches the disk: whole while it is short, and as lines of what has changed once it is long.

A run of thousands of members has a manifest of megabytes. Written anew for each stored task it would be most of what such a
run writes, and grow with the square of its members. So a long manifest is `continued` in manifest.BASE.log, where BASE is
the beginning of the manifest's SHA-256: a line for every change since. When the lines are half as long as the manifest, it is
written anew, and so it is when a run ends; a finished run has no log.

A line is the SHA-256 over that of the line before and its own text, then the text. The first follows the manifest's and
changes nothing: a log without it was lost. A last line without its end is a write that was cut short, and is passed over; any
other that does not fit is damage, and so is a log that is not there. Readers refuse then; a start of the run goes on from what
comes before, and trains the rest again. A log of another BASE was left by a kill, and says nothing that the manifest does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ensemble.errors import StorageError
from ensemble.storage.atomic import found_in, remove, write_bytes
from ensemble.storage.manifest import (
    MANIFEST,
    Change,
    Entry,
    Manifest,
    manifest_bytes,
    parse_manifest,
    require_whole_members,
)
from ensemble.storage.parsing import json_model
from ensemble.storage.remedies import unreadable, what_to_do

log = logging.getLogger(__name__)

LONG_BYTES = 1 << 18  # a manifest up to this size, of some 470 members, is always written whole
LOG_SHARE = 0.5  # of the manifest, that its log may be long
_TRIES = 5  # of a reader, whose manifest may be replaced between its two files


class ManifestLog:
    """Writes the manifest of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None  # of the log beside the manifest as it is now; None before there is a manifest
        self._last = ""  # the SHA-256 that the next line follows
        self._base_bytes = self._bytes = 0

    @property
    def is_behind(self) -> bool:
        """True when the manifest alone is not the whole list."""
        return self._bytes > 0

    def write(self, files: Mapping[str, Entry], listed: Mapping[str, Entry], removed: Sequence[str] = ()) -> None:
        """Make the list on the disk `files`. listed, removed: what that changes. Raises StorageError naming the file."""
        line = self._line(listed, removed)
        if self._path is not None and self._bytes and self._bytes + len(line) <= LOG_SHARE * self._base_bytes:
            self._append(self._path, line)
            return
        content = manifest_bytes(files, continued=True)
        if len(content) <= LONG_BYTES:
            self.write_whole(files)
            return
        begin = self._beginning(content)
        write_bytes(self._log_of(content), begin, self._folder)  # before the manifest, which says that it is there
        write_bytes(self._folder / MANIFEST, content, self._folder)
        self._follow(content)
        self._last, self._bytes = begin[:64].decode(), len(begin)
        self._remove_others()

    def write_whole(self, files: Mapping[str, Entry]) -> None:
        """The same in the manifest alone."""
        content = manifest_bytes(files)
        write_bytes(self._folder / MANIFEST, content, self._folder)
        had_log = self._bytes > 0
        self._follow(content)
        if had_log:
            self._remove_others()

    def _remove_others(self) -> None:
        """Logs of earlier manifests say nothing any more; a kill may have left one of a manifest that never came."""
        for path in found_in(self._folder, "manifest.*.log"):
            if path != self._path or not self._bytes:
                remove(path)

    def read(self, go_on: bool = False) -> tuple[Manifest, dict[str, Entry]]:
        """The manifest, and all that is listed. Raises StorageError where either is damaged or cannot be read.

        go_on: of a damaged log what comes before the damage counts, which is said.
        """
        for _ in range(_TRIES):
            content = self._manifest_bytes()
            manifest = parse_manifest(content, self._folder / MANIFEST)
            path = self._log_of(content)
            try:
                lines = path.read_bytes() if manifest.continued else b""
            except FileNotFoundError:
                lines = b""
                if self._manifest_bytes() != content:
                    continue  # written anew meanwhile
            except OSError as error:
                raise unreadable(path, error) from error
            break
        files = dict(manifest.files)
        if manifest.continued:
            try:
                for change in _changes(lines, hashlib.sha256(content).hexdigest(), path):
                    change.apply_to(files)
                require_whole_members(files, path)
            except StorageError as error:
                if not go_on:
                    raise
                log.warning("%s\nthe run goes on from what was listed before", error)
        self._follow(content)
        if manifest.continued:
            self._base_bytes, self._bytes = 0, max(1, len(lines))  # so that the next write is of the whole
        return manifest, files

    def _follow(self, manifest: bytes) -> None:
        self._path, self._last = self._log_of(manifest), hashlib.sha256(manifest).hexdigest()
        self._base_bytes, self._bytes = len(manifest), 0

    def _log_of(self, manifest: bytes) -> Path:
        return self._folder / f"manifest.{hashlib.sha256(manifest).hexdigest()[:16]}.log"

    def _manifest_bytes(self) -> bytes:
        path = self._folder / MANIFEST
        try:
            return path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from error

    def _beginning(self, manifest: bytes) -> bytes:
        """The first line of the log of a manifest."""
        text = json.dumps({"listed": {}, "removed": []})
        return f"{_chained(hashlib.sha256(manifest).hexdigest(), text)} {text}\n".encode()

    def _line(self, listed: Mapping[str, Entry], removed: Sequence[str]) -> bytes:
        entries = {name: entry.to_json() for name, entry in listed.items()}
        text = json.dumps({"listed": entries, "removed": list(removed)}, ensure_ascii=False)
        return f"{_chained(self._last, text)} {text}\n".encode()

    def _append(self, path: Path, line: bytes) -> None:
        """Add the whole line, or leave the log as it was."""
        try:
            with path.open("ab") as file:
                try:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(self._bytes)
                    raise
        except OSError as error:
            # What lies there is not known: the next write is of the whole.
            self._base_bytes, self._bytes = 0, self._bytes + len(line)
            raise StorageError(
                f"{path}: could not be written: {error.strerror or error}; free space or check permissions, then start again"
            ) from error
        self._last, self._bytes = line[:64].decode(), self._bytes + len(line)


def drop_logs(folder: Path) -> None:
    """The manifest of this folder was brought from elsewhere and is whole: what lies beside it says nothing of it."""
    for path in found_in(folder, "manifest.*.log"):
        remove(path)


def _chained(last: str, text: str) -> str:
    return hashlib.sha256(f"{last} {text}".encode()).hexdigest()


def _changes(content: bytes, last: str, path: Path) -> Iterator[Change]:
    """The changes of a log in their order. last: the SHA-256 that the first line follows."""
    lines = content.split(b"\n")[:-1]
    if not lines:
        raise StorageError(f"{path}: missing or empty, though {MANIFEST} is continued there; {what_to_do(path.name)}")
    for number, line in enumerate(lines, 1):
        digest, _, text = line.decode("utf-8", "replace").partition(" ")
        if digest != _chained(last, text):
            raise StorageError(
                f"{path}: damaged: line {number} is not the one that was written; {what_to_do(path.name)}"
            )
        yield json_model(text.encode(), path, Change)
        last = digest
