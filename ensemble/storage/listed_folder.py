"""A folder in which only what its manifest lists counts.

Files are written whole, then listed with their SHA-256 (the manifest, or a line beside it, is written last, atomically), so a
kill at any moment leaves either the old state or the new one; a file is compared with its entry whenever it is read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ensemble.errors import StorageError
from ensemble.storage.atomic import remove, write_bytes
from ensemble.storage.damage import Damaged
from ensemble.storage.manifest import MANIFEST, Content, Entry
from ensemble.storage.manifest_log import ManifestLog
from ensemble.storage.names import EVENTS
from ensemble.storage.remedies import unreadable, what_to_do
from ensemble.storage.remote import Mirror


class InUse(StorageError):
    """Another process has the folder open for writing."""


class ListedFolder:
    """A folder open for writing (locked) or for reading."""

    def __init__(self, path: Path, lock: IO[str] | None = None, mirror: Mirror | None = None) -> None:
        self.path = path
        self._lock = lock
        self._mirror = mirror
        self._files: dict[str, Entry] = {}
        self._list = ManifestLog(path)
        self._place = path.stat() if lock else None  # where it was when it was opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _t: type[BaseException] | None, error: BaseException | None, _tb: TracebackType | None) -> None:
        try:
            if error is None and self._lock is not None:
                self._write_whole_list()
                if self._mirror is not None:
                    self._mirror.settle(self.path, self._files)
        finally:
            self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            try:
                with contextlib.suppress(StorageError):  # else the next start reads the log beside the manifest
                    self._write_whole_list()
            finally:
                with contextlib.suppress(OSError):  # what was to be said has been said
                    self._lock.close()
                self._lock = None

    def write(self, name: str, content: bytes) -> None:
        """Write one file of the run and list it in the manifest."""
        self.write_all({name: content})

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """Write several files, then list them together: readers see all of them or none.

        Where listed files are replaced, what is to come is listed before: a kill in between leaves no file that nobody knows.
        """
        assert self._lock is not None, "the run folder is open for reading only"
        self._require_here()
        new = {
            name: Entry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
            for name, content in contents.items()
        }
        replaced = {name: old for name, old in self._files.items() if name in new and old.sha256 != new[name].sha256}
        if replaced:
            announced = {
                name: Entry(sha256=old.sha256, bytes=old.bytes, replaced_by=new[name]) for name, old in replaced.items()
            }
            self._files.update(announced)
            self._list.write(self._files, announced)
        for name, content in contents.items():
            write_bytes(self.path / name, content, self.path)
        self._files.update(new)
        self._note(new, ())
        self._record(new)

    def record_events(self) -> None:
        """List the event log as it is now, up to its last whole line."""
        self._require_here()
        path = self.path / EVENTS
        try:
            content = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from error
        whole = content[: content.rfind(b"\n") + 1]
        self._files[EVENTS] = Entry(sha256=hashlib.sha256(whole).hexdigest(), bytes=len(whole))
        self._record({EVENTS: self._files[EVENTS]})

    def read_bytes(self, name: str) -> bytes:
        """A file's content. Raises StorageError when it is missing or not what the manifest says.

        The event log, which is written to between two manifests, must begin with what the manifest lists.
        """
        path = self.path / name
        if name not in self._files:
            raise StorageError(
                f"{path}: not in this run (its {MANIFEST} does not list it); start its `ensemble train` again, which finishes it, or restore {MANIFEST} from a copy"
            )
        entry = self._files[name]
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise Damaged(
                name, f"{path}: listed in {MANIFEST} but not readable: it is not there; {what_to_do(name)}"
            ) from error
        except OSError as error:
            raise unreadable(path, error) from error
        listed = content[: entry.bytes] if name == EVENTS else content
        if not entry.matches(listed) and not (entry.replaced_by and entry.replaced_by.matches(content)):
            found = hashlib.sha256(listed).hexdigest()
            raise Damaged(
                name,
                f"{path}: damaged: SHA-256 {found[:16]}... of {len(listed):,} bytes found, {entry.sha256[:16]}... of {entry.bytes:,} expected; {what_to_do(name)}",
            )
        return content

    def has(self, name: str) -> bool:
        """True when the manifest lists the file."""
        return name in self._files

    def digest(self, name: str) -> str:
        """SHA-256 of a listed file, as the manifest has it."""
        return self._files[name].sha256

    def listed_sizes(self, name: str) -> tuple[int, ...]:
        """How many bytes a listed file has, and where it is about to be replaced, how many it may have instead."""
        entry = self._files[name]
        return (entry.bytes,) if entry.replaced_by is None else (entry.bytes, entry.replaced_by.bytes)

    def files(self) -> list[str]:
        """All files the manifest lists."""
        return sorted(self._files)

    def damaged_files(self) -> list[Damaged]:
        """All listed files that are missing or not what the manifest says."""
        found = []
        for name in self.files():
            try:
                self.read_bytes(name)
            except Damaged as error:
                found.append(error)
        return found

    def forget(self, names: Sequence[str]) -> None:
        """Take files off the list, then remove them; a member's go together."""
        names = [name for name in names if name in self._files]
        if not names:
            return
        for name in names:
            del self._files[name]
        self._note({}, names)
        self._require_here()
        self._record({}, names)  # first the list, so that no listed file is ever missing
        for name in names:
            remove(self.path / name)

    def _settle_replacements(self) -> None:
        """Decide for files that a killed start was replacing which of the two they are."""
        for name, entry in self._files.items():
            if entry.replaced_by is not None:
                kept: Content = entry
                with contextlib.suppress(Damaged):  # what reads it will say so
                    kept = entry.replaced_by if entry.replaced_by.matches(self.read_bytes(name)) else entry
                self._files[name] = Entry(sha256=kept.sha256, bytes=kept.bytes)

    def _require_here(self) -> None:
        """Raises StorageError when the folder is no longer where it was opened: nothing is made anew in its place."""
        try:
            now = self.path.stat()
        except OSError:
            now = None
        if self._place is None or now is None or not os.path.samestat(now, self._place):
            raise StorageError(
                f"{self.path}: the run folder is gone: it was moved, removed or unmounted while the run went on; put it back and start the run again"
            )

    def _note(self, listed: Mapping[str, Entry], removed: Sequence[str]) -> None:
        """Told of every change of the list, for what is worked out from it."""

    def _record(self, listed: Mapping[str, Entry], removed: Sequence[str] = ()) -> None:
        """Bring the list to the disk, and the files to where the run is mirrored."""
        self._list.write(self._files, listed, removed)
        if self._mirror:
            self._mirror.push(self.path, dict(self._files))

    def _write_whole_list(self) -> None:
        if self._list.is_behind:
            self._require_here()
            self._list.write_whole(self._files)

    def _load_manifest(self, go_on: bool = False) -> None:
        """go_on: for a start that looks at every file afterwards, and makes again what does not fit (`mending`); where lines beside
        a long manifest are damaged, with what was listed before them."""
        manifest, self._files = self._list.read(go_on)
        self._forget_notes()
        if not (manifest.certain or go_on) and (damaged := ListedFolder.damaged_files(self)):
            raise StorageError(
                f"{self.path / MANIFEST}: damaged, or a file it lists is: digests were changed after it was written, and these do not fit:\n"
                + "\n".join(f"  {error}" for error in damaged[:5])
                + f"\nRestore {MANIFEST}, or those files, from a copy, or start the run's `ensemble train` again, which makes anew what can be"
            )

    def _forget_notes(self) -> None:
        """The list is another one altogether."""


def is_file(path: Path) -> bool:
    """Whether there is a file. Raises StorageError where that cannot be seen."""
    try:
        return path.is_file()
    except (OSError, ValueError) as error:  # a folder that may not be entered, a name that is too long, a zero byte
        raise unreadable(path, error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))) from error


def has_entries(path: Path) -> bool:
    """Whether there is a folder with anything in it. Raises StorageError where that cannot be seen."""
    try:
        return path.is_dir() and any(path.iterdir())
    except OSError as error:
        raise unreadable(path, error) from error


def _take(file: IO[str]) -> None:
    """Lock exclusively. Whoever asks whether a run is written to (`lock_state`) holds the lock for a moment, which is waited for."""
    until = time.monotonic() + _ASKING_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise
        time.sleep(_ASKING_S / 10)


_ASKING_S = 0.2


def locked(path: Path) -> IO[str]:
    """An exclusive lock that the kernel drops when this process ends, however it ends."""
    file = path.open("a+")
    try:
        _take(file)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise InUse(
            f"{path.parent}: in use by {holder}; wait for it, stop it, or give this run another name=..."
        ) from error
    except OSError:
        file.close()
        raise
    with contextlib.suppress(OSError):  # who holds it is said for people; the lock holds without
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
    return file
