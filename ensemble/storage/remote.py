"""Run folders on object storage: `output_dir: s3://bucket/runs`, or any other address that fsspec knows.

The run is written to a local folder, as always; what its manifest lists is copied to ADDRESS/NAME after every write: the files,
then word of them, the manifest or a part of the journal beside it (`journal`). So a copy that is cut off at any request is whole as
of an earlier moment. A start elsewhere begins by fetching what is there.

Two writers cannot lock each other out on object storage. Each leaves its name in the object run.owner and looks whether it is still
there before it writes; the earlier one of two notices, and stops.

Where the storage cannot be reached for a while the run goes on in the local folder and says so; the copy is tried again
after longer and longer waits, and a last time when the run ends. A bucket is never created.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ensemble.cache import cache_folder
from ensemble.errors import StorageError
from ensemble.outside.long_work import working
from ensemble.outside.object_storage import ObjectStorage, Unreachable, is_address
from ensemble.storage.atomic import write_bytes
from ensemble.storage.journal import JOURNAL, Position, joined_events, parse_part, part_content
from ensemble.storage.manifest import MANIFEST, Entry, manifest_bytes, parse_manifest
from ensemble.storage.manifest_log import drop_logs
from ensemble.storage.names import EVENTS
from ensemble.storage.remedies import unreadable

__all__ = ["LEFT", "OWNER", "Mirror", "address_of", "is_address", "local_root"]

log = logging.getLogger(__name__)

LEFT = "run.pushed"  # beside the local manifest: the states that this folder has brought the copy to, or was about to
OWNER = "run.owner"  # beside the copy: who writes to it
ADDRESS = ".address"  # in a local root: what it is the local side of


def local_root(address: str) -> Path:
    """The folder that holds the local side of everything under an address: below $ENSEMBLE_CACHE or ~/.cache/ensemble."""
    return cache_folder() / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


def address_of(folder: Path) -> str | None:
    """The address that a run folder is the local side of; None for a folder that stands for itself."""
    try:
        root = (folder.absolute().parent / ADDRESS).read_text()
    except (OSError, ValueError):
        return None
    return f"{root}/{folder.absolute().name}" if is_address(root) else None


class Mirror:
    """The copy of one run folder under an address."""

    def __init__(self, address: str, name: str, take_over: bool = True, for_good: bool = False) -> None:
        """take_over: go on where another process has written that did not end in order; else that is refused.
        for_good: what is fetched stands for itself from then on, and is no local side of the address.

        Raises ConfigError for a protocol nobody knows or whose package is missing.
        """
        self.address = f"{address.rstrip('/')}/{name}"
        self._root = address.rstrip("/")
        self._storage = ObjectStorage(self.address, f"output_dir: {self._root}", _AWAY)
        self._take_over, self._for_good = take_over, for_good
        self._there: Position | None = None  # what lies there; None where nothing does
        self._owner: bytes | None = None  # who had written there when it was fetched
        me = {"who": f"process {os.getpid()} on {platform.node()}", "token": secrets.token_hex(8)}
        self._mine = json.dumps({**me, "since": time.strftime("%Y-%m-%d %H:%M:%S")}).encode()
        self._claimed = self._copied = self._displaced = False
        self._behind_since: float | None = None  # unix seconds; None while the copy is whole
        self._next_try, self._wait_s = 0.0, _FIRST_WAIT_S

    def fetch(self, folder: Path) -> None:
        """Bring the local folder to what lies there, unless it went on from exactly that.

        Raises StorageError when the storage cannot be reached or a file there is not what its manifest says.
        """
        self._owner = self._storage.read(OWNER)
        base = self._storage.read(MANIFEST)
        if base is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unreadable(folder, error, "used for the local copy") from error
        with self._naming(), working(f"fetching the run from {self.address}"):
            there, parts = position_at(self._storage, base)
            if there.state not in _left(folder) or not (folder / MANIFEST).is_file():
                self._bring(folder, there)
                events = events_at(self._storage, parts)
                if events or EVENTS in there.files:
                    write_bytes(folder / EVENTS, events, folder)
                write_bytes(folder / MANIFEST, there.manifest() if parts else base, folder)
                drop_logs(folder)
                self._note(folder, there.state)
        self._there = there

    def push(self, folder: Path, files: Mapping[str, Entry]) -> None:
        """Copy what changed, say so there, then remove what is no longer listed.

        Where the storage cannot be reached, that is said, and later calls try again. Raises StorageError when there is no
        such bucket, when nothing may be written there, or when somebody else has written there since.
        """
        if self._behind_since is not None and time.monotonic() < self._next_try:
            return
        try:
            self._copy(folder, files)
        except Unreachable as error:
            if error.refused and not self._copied:  # a run that was never copied will not be
                raise
            self._fall_behind(folder, error)
            return
        if self._behind_since is not None:
            log.warning("%s: reached again; the copy is whole", self.address)
        self._behind_since, self._wait_s = None, _FIRST_WAIT_S

    def settle(self, folder: Path, files: Mapping[str, Entry]) -> None:
        """The run has ended in order: copy what could not be copied before, and leave there a folder like any other.

        Raises StorageError when that fails.
        """
        if self._displaced or (not self._claimed and self._behind_since is None):
            return  # which was said, or nothing was written
        self._copy(folder, files, whole=True)
        if self._behind_since is not None:
            log.warning("%s: reached again; the copy is whole", self.address)
        self._behind_since = None
        # Of a process that was killed parts may lie there that nobody else knows.
        left = set() if self._owner is None else set(self._storage.listing(JOURNAL.rstrip("/")))
        self._storage.remove([*sorted(left), OWNER])
        self._claimed, self._owner = False, None

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

    def _copy(self, folder: Path, files: Mapping[str, Entry], whole: bool = False) -> None:
        """whole: end with a new base, without parts."""
        with self._naming(), working(f"copying the run to {self.address}"):
            self._require_alone(folder)
            changed = {name: entry for name, entry in files.items() if self._listed(name) != entry}
            new = [name for name in changed if name != EVENTS]
            if replaced := {name: old for name in new if (old := self._listed(name)) is not None}:
                self._append(folder, {name: self._to_be(name, old, files[name]) for name, old in replaced.items()})
            self._storage.side_by_side(lambda name: self._storage.write(name, _local(folder / name)), new)
            removed = [] if self._there is None else sorted(self._there.files.keys() - files.keys())
            stale = [name for name in removed if name != EVENTS]
            lines = None if self._there is None or EVENTS in removed else _lines(folder / EVENTS, self._there.events)
            if whole or self._there is None or lines is None or self._there.is_long(len(lines)):
                stale += () if self._there is None else self._there.parts
                self._new_base(folder, files)
            elif changed or removed or lines:
                self._append(folder, changed, removed, lines)
            self._storage.remove(stale)
            self._copied = True

    def _listed(self, name: str) -> Entry | None:
        return None if self._there is None else self._there.files.get(name)

    def _to_be(self, name: str, old: Entry, new: Entry) -> Entry:
        """What is said of a file that is about to be replaced, so that either content is known."""
        if old.replaced_by is not None:  # by a copy that was cut off
            content = self._storage.read(name) or b""
            found = old.replaced_by if old.replaced_by.matches(content) else old
            old = Entry(sha256=found.sha256, bytes=found.bytes)
        return Entry(sha256=old.sha256, bytes=old.bytes, replaced_by=new)

    def _append(self, folder: Path, listed: Mapping[str, Entry], removed: Sequence[str] = (), events: bytes = b"") -> None:  # fmt: skip
        there = self._there
        assert there is not None, "a base comes before its parts"
        content = part_content(there, listed, removed, events)
        after = there.after(content, Path(there.next_part))
        self._note(folder, there.state, after.state)  # its arrival may go unconfirmed
        self._storage.write(there.next_part, content)
        self._there = after

    def _new_base(self, folder: Path, files: Mapping[str, Entry]) -> None:
        manifest, events = manifest_bytes(files), _lines(folder / EVENTS, 0) or b""
        after = Position.at_base(manifest, Path(MANIFEST), len(events))
        self._note(folder, *([] if self._there is None else [self._there.state]), after.state)
        if events:
            self._storage.write(EVENTS, events)
        self._storage.write(MANIFEST, manifest)
        self._there = after

    def _require_alone(self, folder: Path) -> None:
        """Raises StorageError when another process has written there since."""
        found = self._storage.read(OWNER)
        if self._claimed:
            if found != self._mine:
                raise self._conflict(found)
            return
        if found not in (self._owner, self._mine):
            raise self._conflict(found)
        if found is not None and found != self._mine:
            if not self._take_over:
                raise StorageError(
                    f"{self.address}: {_who(found)} writes to this run; wait for it, or, if it was killed, start the run's `ensemble train` again first"
                )
            log.warning(
                "%s: %s has written there and did not end in order; if it still runs, it will notice and stop",
                self.address,
                _who(found),
            )
        self._storage.write(OWNER, self._mine)
        there = self._storage.read(MANIFEST)
        if (None if there is None else hashlib.sha256(there).hexdigest()) not in (
            None if self._there is None else self._there.base, *_left(folder)
        ):  # fmt: skip
            raise self._conflict(found)
        self._claimed = True

    def _conflict(self, owner: bytes | None) -> StorageError:
        self._displaced = True
        who = "another process has" if owner in (None, self._mine) else f"another process has ({_who(owner)})"
        return StorageError(
            f"{self.address}: {who} written to this run, or removed it; stop one of them, or give one another name=..."
        )

    def _bring(self, folder: Path, there: Position) -> None:
        """All listed files that the folder does not have as they are there."""
        local = folder / MANIFEST
        here = parse_manifest(local.read_bytes(), local).files if local.is_file() else {}

        def bring(name: str) -> None:
            entry = there.files[name]
            content = self._storage.read(name)
            if content is None or not (
                entry.matches(content) or (entry.replaced_by is not None and entry.replaced_by.matches(content))
            ):
                raise StorageError(f"{self.address}/{name}: {'missing' if content is None else 'damaged'}; restore it")
            write_bytes(folder / name, content, folder)

        lacking = [
            name
            for name, entry in there.files.items()
            if name != EVENTS and (here.get(name) != entry or not (folder / name).is_file())
        ]
        self._storage.side_by_side(bring, lacking)

    def _note(self, folder: Path, *states: str) -> None:
        write_bytes(folder / LEFT, "\n".join(states).encode(), folder)
        marker = folder.parent / ADDRESS
        if not self._for_good and not marker.is_file():
            write_bytes(marker, self._root.encode())

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Errors name the address as it was given; a Path has one slash less."""
        try:
            yield
        except Unreachable:
            raise
        except StorageError as error:
            plain = str(Path(self.address))
            if plain not in str(error):
                raise
            raise StorageError(str(error).replace(plain, self.address)) from error


def position_at(storage: ObjectStorage, base: bytes) -> tuple[Position, list[bytes]]:
    """What a copy of a run is now, and the parts of its journal after this manifest. Raises StorageError for a damaged one."""

    def where(name: str) -> Path:
        return Path(f"{storage.address}/{name}")

    there = Position.at_base(base, where(MANIFEST), 0)
    parts: list[bytes] = []
    while (content := storage.read(there.next_part)) is not None:
        there = there.after(content, where(there.next_part))
        parts.append(content)
    return there, parts


def events_at(storage: ObjectStorage, parts: Sequence[bytes]) -> bytes:
    """The event log of a copy with these parts."""
    return joined_events(storage.read(EVENTS) or b"", [parse_part(part, Path(EVENTS)) for part in parts])


def _left(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return (folder / LEFT).read_text(errors="replace").split()
    return []


def _local(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _lines(path: Path, start: int) -> bytes | None:
    """The whole lines of an event log from a byte on; None where it is shorter, or what follows is no text."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < start:
                return None
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return b"" if start == 0 else None
    except OSError as error:
        raise unreadable(path, error) from error
    content = content[: content.rfind(b"\n") + 1]
    try:
        content.decode()
    except UnicodeDecodeError:
        return None if start else content
    return content


def _who(owner: bytes | None) -> str:
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        known = json.loads(owner or b"")
        return f"{known['who']}, since {known['since']}"
    return "another process"


_FIRST_WAIT_S, _LONGEST_WAIT_S = 15.0, 300.0
_AWAY = "what is finished is kept in the local folder; check the network and the address, then start the run again"
