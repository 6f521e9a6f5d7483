"""The manifest of a run folder: which files a run consists of, with SHA-256 and size, and checksums of the list itself.

`names_sha256` is over version and names: where it does not fit, a file may have been lost or added, and nothing in the
folder can be believed. `entries_sha256` is over digests and sizes as well: where only that does not fit, somebody
entered a file anew, or a digest was damaged; then every file is compared with its entry before any is believed, and a
damaged digest shows. Manifests of earlier versions have neither; their form is checked as far as it goes.
"""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ensemble.errors import StorageError
from ensemble.storage.atomic import json_bytes
from ensemble.storage.names import BESIDE, member_folder, member_of
from ensemble.storage.parsing import Stored, json_model
from ensemble.storage.remedies import unfit

MANIFEST = "manifest.json"
VERSION = 1
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MEMBER_FILES = ("weights.safetensors", "votes.npz", "history.csv", "member.json")


class Content(Stored):
    """What a file holds. bytes: its size."""

    sha256: Digest
    bytes: Annotated[int, Field(ge=0)]

    def matches(self, content: builtins.bytes) -> bool:
        return len(content) == self.bytes and hashlib.sha256(content).hexdigest() == self.sha256


class Entry(Content):
    """One file. replaced_by: what is about to take its place; until the next manifest the file may be either."""

    replaced_by: Content | None = None

    def to_json(self) -> dict[str, Any]:
        next_one = self.replaced_by
        known = {"sha256": self.sha256, "bytes": self.bytes}
        return (
            known
            if next_one is None
            else {**known, "replaced_by": {"sha256": next_one.sha256, "bytes": next_one.bytes}}
        )


class Change(Stored):
    """What a list of files becomes: files that are listed from then on, and those that no longer are."""

    listed: dict[str, Entry]
    removed: list[str]

    def apply_to(self, files: dict[str, Entry]) -> None:
        """Change a list so."""
        for name in self.removed:
            files.pop(name, None)
        files.update(self.listed)


class Manifest(Stored):
    """manifest.json. continued: what has changed since lies beside it, see `manifest_log`."""

    version: int
    files: dict[str, Entry]
    continued: bool = False
    names_sha256: Digest | None = None
    entries_sha256: Digest | None = None

    @property
    def certain(self) -> bool:
        """False where digests or sizes are not those that were written, so that each file must be compared first."""
        return self.entries_sha256 in (None, entries_digest(self.files))


def manifest_bytes(files: Mapping[str, Entry], continued: bool = False) -> bytes:
    """The content of manifest.json for these files."""
    entries = {name: entry.to_json() for name, entry in sorted(files.items())}
    checksums = {"names_sha256": names_digest(files), "entries_sha256": entries_digest(files)}
    more = {"continued": True} if continued else {}
    return json_bytes({"version": VERSION, **more, **checksums, "files": entries})


def parse_manifest(content: bytes, where: Path) -> Manifest:
    """A manifest that says of itself that it is whole. Raises StorageError naming it otherwise."""
    found = json_model(content, where, Manifest)
    if found.version != VERSION:
        raise StorageError(
            f"{where}: of another version (format {found.version}, this program reads {VERSION}); use the version of the program that wrote it, or a newer one"
        )
    if strange := [name for name in found.files if not _is_inside(name)]:
        raise unfit(where, f"lists {strange[0][:80]!r}, which is no file of this folder")
    if found.names_sha256 is None and found.entries_sha256 is not None:
        raise unfit(where, "names_sha256 is missing")
    if found.names_sha256 is not None and found.entries_sha256 is None:
        raise unfit(where, "entries_sha256 is missing")
    if unknown := sorted(found.model_extra or ()):
        raise unfit(where, f"unknown key {unknown[0][:80]!r}")
    if found.names_sha256 not in (None, names_digest(found.files)):
        raise unfit(where, "the files it lists are not those that were written (their names have another SHA-256)")
    require_whole_members(found.files, where)
    return found


def names_digest(files: Mapping[str, Any]) -> str:
    """SHA-256 of the format's version and the names of all files."""
    return hashlib.sha256(json.dumps([VERSION, *sorted(files)]).encode()).hexdigest()


def entries_digest(files: Mapping[str, Entry]) -> str:
    """SHA-256 of names, digests and sizes."""
    entries = [[name, entry.to_json()] for name, entry in sorted(files.items())]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def members_of(files: Mapping[str, Any]) -> set[int]:
    """The members that are listed."""
    return {index for name in files if (index := member_of(name)) is not None}


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return all(part not in ("", ".", "..") for part in parts) and "\0" not in name


def require_whole_members(files: Mapping[str, Any], where: Path) -> None:
    """A member's files are listed together or not at all; anything else under members/ has no meaning."""
    for name in files:
        if name.startswith("members/") and (member_of(name) is None or name.rpartition("/")[2] not in MEMBER_FILES):
            raise unfit(where, f"lists {name[:80]!r}, which no run has")
    for index in sorted(members_of(files)):
        folder = member_folder(index)
        if missing := [file for file in MEMBER_FILES if f"{folder}/{file}" not in files]:
            raise unfit(where, f"member {index} has files, but not {folder}/{missing[0]}")
    for place in BESIDE.values():
        whole = {f"{place}{file}" for file in MEMBER_FILES}
        listed = {name for name in files if name.startswith(place)}
        if listed not in (set(), whole):
            raise unfit(where, f"lists {sorted(listed)[0][:80]!r}, but not all of {', '.join(sorted(whole))}")
