"""One run, one folder: what is in it is what the manifest lists.

    with RunFolder.open(Path("runs"), "my-run", config, plan) as folder:     # creates or resumes; locks
        folder.save_members([result])
    folder = RunFolder.read(Path("runs/my-run"))                             # reads; no lock
    folder.load_member(0)

A file counts only once the manifest (written last, atomically) names it with its SHA-256, so a kill at any moment
leaves either the old state or the new one. Nothing in the folder is, or is read as, a pickle.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from ensemble.errors import ConfigError, StorageError
from ensemble.storage.atomic import TEMPORARY, json_bytes, npz_bytes, read_npz, write_bytes
from ensemble.storage.identity import differences
from ensemble.storage.remote import Mirror, is_address, local_root
from ensemble.types import EpochRecord, IntArray, MemberResult, Votes

MANIFEST, CONFIG, PLAN, LABELS, EVENTS = "manifest.json", "config.yaml", "plan.json", "labels.npz", "events.jsonl"
_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What votes are judged against. Row arrays are positions in the data set's training images, ascending."""

    train_rows: IntArray
    validation_rows: IntArray
    train_labels_N: IntArray
    test_labels_N: IntArray


class RunFolder:
    """The folder of one run, open for writing (locked) or for reading."""

    def __init__(self, path: Path, lock: IO[str] | None = None, mirror: Mirror | None = None) -> None:
        self.path = path
        self._lock = lock
        self._mirror = mirror
        self._files: dict[str, dict[str, Any]] = {}

    @classmethod
    def open(
        cls, root: Path | str, name: str, config: dict[str, Any], plan: dict[str, Any] | Callable[[], dict[str, Any]]
    ) -> RunFolder:
        """Create runs/name, or take up an unfinished one: its stored plan then replaces `plan`.

        plan: itself, or a function that makes it, called for a new folder only.
        root: a folder, or the address of one on object storage, see `storage.remote`. Raises ConfigError when the folder holds another configuration or would lie outside the root, StorageError
        when another process writes to it or its manifest is damaged.
        """
        mirror = Mirror(str(root), name) if is_address(str(root)) else None
        root = local_root(str(root)) if mirror else Path(root)
        path = root / name
        if root.resolve() not in path.resolve().parents:
            raise ConfigError(f"name {name!r}: the run folder {path} would lie outside {root}; choose another name")
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, _locked(path / "run.lock"), mirror)
        except OSError as error:
            raise StorageError(f"{path}: cannot be used as a run folder: {error.strerror or error}") from error
        try:
            if mirror:
                mirror.fetch(path)
            folder._take_up(config, plan)
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """A finished or unfinished run, for reading. Raises StorageError when there is none."""
        if not (path / MANIFEST).is_file():
            raise StorageError(
                f"{path}: no run here (there is no {MANIFEST}); give the folder of a run, such as runs/NAME"
            )
        folder = cls(path)
        folder._load_manifest()
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_up(self, config: dict[str, Any], plan: dict[str, Any] | Callable[[], dict[str, Any]]) -> None:
        for leftover in self.path.rglob(f"*{TEMPORARY}"):
            leftover.unlink()
        if (self.path / MANIFEST).is_file():
            self._load_manifest()
            changed = differences(self.config(), config, self.plan().get("device"))
            if changed:
                listed = "\n".join(f"  {line}" for line in changed)
                raise ConfigError(
                    f"{self.path} holds a run with another configuration:\n{listed}\nGive this one another name=..., or remove that folder"
                )
            if self.config() != _plain(config):  # what may differ between starts: keep what holds now
                self.write(CONFIG, _yaml(config))
            return
        self.write(PLAN, json_bytes(plan() if callable(plan) else plan))
        self.write(CONFIG, _yaml(config))

    # Files

    def write(self, name: str, content: bytes) -> None:
        """Write one file of the run and list it in the manifest."""
        self.write_all({name: content})

    def write_all(self, contents: dict[str, bytes]) -> None:
        """Write several files, then list them together: readers see all of them or none."""
        assert self._lock is not None, "the run folder is open for reading only"
        for name, content in contents.items():
            digest = write_bytes(self.path / name, content)
            self._files[name] = {"sha256": digest, "bytes": len(content)}
        self._write_manifest()

    def record(self, name: str) -> None:
        """List a file that somebody else wrote (the event log, figures) as it is now."""
        content = (self.path / name).read_bytes()
        self._files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        self._write_manifest()

    def read_bytes(self, name: str) -> bytes:
        """A file's content. Raises StorageError when it is missing or not what the manifest says."""
        path = self.path / name
        if name not in self._files:
            raise StorageError(f"{path}: not in this run (its {MANIFEST} does not list it)")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StorageError(f"{path}: listed in {MANIFEST} but not readable: {error.strerror or error}") from error
        found, expected = hashlib.sha256(content).hexdigest(), self._files[name]["sha256"]
        if found != expected:
            raise StorageError(
                f"{path}: damaged: SHA-256 {found[:16]}... found, {expected[:16]}... expected; restore the file, or remove it and start the run again"
            )
        return content

    def has(self, name: str) -> bool:
        """True when the manifest lists the file."""
        return name in self._files

    def files(self) -> list[str]:
        """All files the manifest lists."""
        return sorted(self._files)

    def _write_manifest(self) -> None:
        write_bytes(self.path / MANIFEST, json_bytes({"version": _VERSION, "files": dict(sorted(self._files.items()))}))
        if self._mirror:
            self._mirror.push(self.path, self._files)

    def _load_manifest(self) -> None:
        path = self.path / MANIFEST
        try:
            manifest = json.loads(path.read_bytes())
            version, self._files = manifest["version"], dict(manifest["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path}: damaged: {error}") from error
        if version != _VERSION:
            raise StorageError(f"{path}: written by another version (format {version}, this program reads {_VERSION})")

    # What a run is made of

    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run, as plain values."""
        values: dict[str, Any] = yaml.safe_load(self.read_bytes(CONFIG))
        return values

    def plan(self) -> dict[str, Any]:
        """The stored plan."""
        values: dict[str, Any] = json.loads(self.read_bytes(PLAN))
        return values

    def save_labels(self, labels: Labels) -> None:
        """Store split and labels. Raises StorageError when the folder holds others: the data changed underneath."""
        content = npz_bytes({name: getattr(labels, name) for name in Labels.__slots__})
        if self.has(LABELS):
            if self.read_bytes(LABELS) != content:
                raise StorageError(
                    f"{self.path}: the data set's labels or split are not those this run began with; give the run another name=..."
                )
            return
        self.write(LABELS, content)

    def load_labels(self) -> Labels:
        """Split and labels of the run."""
        return Labels(**read_npz(self.read_bytes(LABELS), self.path / LABELS))

    def save_members(self, results: Sequence[MemberResult]) -> None:
        """Store all that finished members left; from then on all of them count as finished."""
        self.write_all({name: content for result in results for name, content in self._member_files(result).items()})

    def _member_files(self, result: MemberResult) -> dict[str, bytes]:
        facts = {
            "index": result.index, "recipe": result.recipe, "num_parameters": result.num_parameters,
            "train_seconds": result.train_seconds, "kept_epoch": result.kept_epoch, "stack_size": result.stack_size,
            "facts": dict(result.facts), "device": result.device,
        }  # fmt: skip
        votes = {name: getattr(result.votes, name) for name in Votes.__slots__}
        prefix = _member_folder(result.index)
        weights = {name: np.ascontiguousarray(array) for name, array in result.weights.items()}
        return {
            f"{prefix}/weights.safetensors": save_safetensors(weights),
            f"{prefix}/votes.npz": npz_bytes(votes),
            f"{prefix}/history.csv": _history_bytes(result.history),
            f"{prefix}/member.json": json_bytes(facts),
        }

    # Checkpoints of unfinished tasks, two generations each: a damaged one costs one interval more, not the task

    def save_checkpoint(self, task: str, content: bytes) -> None:
        """Keep the state of a task in mid-training, and the one before it."""
        older = self._checkpoints(task)
        number = int(older[-1].split(".")[-2]) + 1 if older else 0
        self.write(f"checkpoints/{task}.{number:06d}.safetensors", content)
        self._remove(older[:-1])

    def load_checkpoint(self, task: str) -> bytes | None:
        """The newest undamaged state of a task; None when there is none."""
        for name in reversed(self._checkpoints(task)):
            with contextlib.suppress(StorageError):
                return self.read_bytes(name)
        return None

    def drop_checkpoints(self, task: str) -> None:
        """Remove the states of a finished task."""
        self._remove(self._checkpoints(task))

    def _checkpoints(self, task: str) -> list[str]:
        pattern = re.compile(rf"checkpoints/{re.escape(task)}\.\d+\.safetensors")
        return sorted(name for name in self._files if pattern.fullmatch(name))

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            del self._files[name]
        if names:
            self._write_manifest()  # first the list, so that no listed file is ever missing
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def finished(self) -> set[int]:
        """Indices of the members that are stored whole."""
        return {int(Path(name).parent.name) for name in self._files if name.endswith("/member.json")}

    def load_member(self, index: int, weights: bool = False) -> MemberResult:
        """A stored member; its weights only on request. Raises StorageError when damaged."""
        prefix = _member_folder(index)
        facts = json.loads(self.read_bytes(f"{prefix}/member.json"))
        votes = Votes(**read_npz(self.read_bytes(f"{prefix}/votes.npz"), self.path / prefix / "votes.npz"))
        history = _history(self.read_bytes(f"{prefix}/history.csv"))
        tensors = self.load_weights(index) if weights else {}
        return MemberResult(votes=votes, weights=tensors, history=history, **facts)

    def load_weights(self, index: int) -> dict[str, Any]:
        """A member's tensors as numpy arrays, named as in its network's state_dict."""
        name = f"{_member_folder(index)}/weights.safetensors"
        try:
            tensors: dict[str, Any] = load_safetensors(self.read_bytes(name))
        except SafetensorError as error:
            raise StorageError(f"{self.path / name}: not a safetensors file: {error}") from error
        return tensors


def _member_folder(index: int) -> str:
    return f"members/{index:04d}"


def _locked(path: Path) -> IO[str]:
    """An exclusive lock that the kernel drops when this process ends, however it ends."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise StorageError(
            f"{path.parent}: in use by {holder}; wait for it, stop it, or give this run another name=..."
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    return file


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _yaml(config: dict[str, Any]) -> bytes:
    return yaml.safe_dump(_plain(config), sort_keys=False).encode()


def _history_bytes(history: tuple[EpochRecord, ...]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(EpochRecord.__slots__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in history)
    return text.getvalue().encode()


def _history(content: bytes) -> tuple[EpochRecord, ...]:
    rows = csv.DictReader(io.StringIO(content.decode()))
    return tuple(
        EpochRecord(int(row.pop("epoch")), **{key: float(value) for key, value in row.items() if value}) for row in rows
    )
