"""What has changed in a run since the manifest that lies in object storage: numbered parts beside it.

    manifest.json  events.jsonl            as of some moment: the base
    journal/BASE-000001.json ...           what came after, in order; BASE is the beginning of the base's SHA-256

A part says which files are listed from then on and which no longer, and has the lines that the event log got. So what is sent for a
stored member does not grow with the run. Once the parts are as large as the base, a new base is written; parts of an earlier one have
another name, and count no more from the moment the new manifest is there. A finished run has no parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ensemble.errors import StorageError
from ensemble.storage.manifest import Change, Digest, Entry, manifest_bytes, parse_manifest
from ensemble.storage.parsing import json_model

JOURNAL = "journal/"
FORMAT = 1
LEAST_BYTES = 1 << 16  # of parts, before a new base is worth while


class JournalPart(Change):
    """One part. previous: the state it follows. events_from: the byte of the event log at which `events` begins."""

    format: int
    previous: Digest
    events_from: Annotated[int, Field(ge=0)]
    events: str


@dataclass(frozen=True)
class Position:
    """What lies in the storage. state: SHA-256 over the base and all parts after it.

    files: what is listed there. events: bytes of the event log that are there. part_bytes, base_bytes: of the parts, and of the
    base they follow, for `is_long`.
    """

    base: str
    state: str
    files: Mapping[str, Entry]
    events: int
    base_bytes: int
    parts: tuple[str, ...] = ()
    part_bytes: int = 0

    @classmethod
    def at_base(cls, manifest: bytes, where: Path, events: int) -> Position:
        """Right after a manifest was written. Raises StorageError for one that is damaged."""
        digest = hashlib.sha256(manifest).hexdigest()
        files = dict(parse_manifest(manifest, where).files)
        return cls(digest, digest, files, events, len(manifest) + events)

    @property
    def next_part(self) -> str:
        """The name of the part that follows."""
        return f"{JOURNAL}{self.base[:16]}-{len(self.parts) + 1:06d}.json"

    def is_long(self, more: int) -> bool:
        """True when parts, with so many bytes more, are as large as a new base would be: so all bases together cost as much again."""
        return self.part_bytes + more > max(LEAST_BYTES, self.base_bytes)

    def after(self, content: bytes, where: Path) -> Position:
        """What lies there once a part was added. Raises StorageError for a part that is damaged or follows another state."""
        part = parse_part(content, where)
        if part.previous != self.state:
            raise StorageError(
                f"{where}: does not follow what lies before it: two processes have written to this run; see that one alone goes on, and remove this file to go on from before it"
            )
        files = dict(self.files)
        part.apply_to(files)
        state = hashlib.sha256(f"{self.state} {hashlib.sha256(content).hexdigest()}".encode()).hexdigest()
        return replace(
            self,
            state=state,
            files=files,
            events=part.events_from + len(part.events.encode()) if part.events else self.events,
            parts=(*self.parts, self.next_part),
            part_bytes=self.part_bytes + len(content),
        )

    def manifest(self) -> bytes:
        """The manifest of what is listed there."""
        return manifest_bytes(self.files)


def part_content(
    position: Position, listed: Mapping[str, Entry], removed: Sequence[str] = (), events: bytes = b""
) -> bytes:
    """The part that follows. events: whole lines that the log got since."""
    values = {
        "format": FORMAT,
        "previous": position.state,
        "listed": {name: entry.to_json() for name, entry in sorted(listed.items())},
        "removed": sorted(removed),
        "events_from": position.events,
        "events": events.decode(),
    }
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def parse_part(content: bytes, where: Path) -> JournalPart:
    """A part. Raises StorageError naming it where it is none, or of another version."""
    part = json_model(content, where, JournalPart)
    if part.format != FORMAT:
        raise StorageError(
            f"{where}: of another version (format {part.format}, this program reads {FORMAT}); use the version of the program that wrote it, or a newer one"
        )
    return part


def joined_events(base: bytes, parts: Sequence[JournalPart]) -> bytes:
    """The event log: what lies beside the base, and what the parts have of it."""
    found = base
    for part in parts:
        if part.events:
            found = found[: part.events_from] + part.events.encode()
    # The log of the next base may lie there already, with its manifest still to come.
    return base if base.startswith(found) else found
