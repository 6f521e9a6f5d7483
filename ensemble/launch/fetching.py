"""Brings the run folder of a job from its cluster to this machine, without a shared folder.

    path = fetch(cluster, job, Path("results"), tell)    # results/NAME, whole, every file with the SHA-256 of its manifest

From the head it comes through a small job per part (`hand_over`), whose log is read as it grows; so no message is large, and
only the dashboard needs to be reached. Files gather in a hidden folder, which gets its name when all are there: half a run is
never seen. The same command goes on where a broken one was. From a bucket (`output_dir` is an address) this machine reads itself.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ensemble.config.groups import NAME_PATTERN
from ensemble.errors import ComputeError, ConfigError, StorageError
from ensemble.launch import hand_over
from ensemble.launch.dashboard import LOST, Cluster, short
from ensemble.launch.following import command
from ensemble.storage.listed_folder import locked
from ensemble.storage.manifest import MANIFEST, Entry, Manifest, parse_manifest
from ensemble.storage.remedies import unreadable
from ensemble.storage.remote import LEFT, Mirror, is_address

NAME_KEY, PLACE_KEY, RUNS_KEY = "ensemble", "ensemble_output_dir", "ensemble_runs"  # of a job's metadata
PART_BYTES = 256 * 2**20  # of one job, whose log on the head is a third longer
TRIES = 3  # of a part whose line breaks
QUIET_S = 20.0  # without a word, after which the head is asked whether it is there
LOG_BYTES = 2**20  # what a job may leave in its log on the head
_LOCK = "lock"
_OF_A_DISK = ("file://", "local://")
Tell = Callable[[str], None]


def fetch(cluster: Cluster, job: str, folder: Path, tell: Tell, part_bytes: int = PART_BYTES) -> list[Path]:
    """Bring the runs of a job that has ended into `folder`, one but with repeats; returns their folders there.

    Raises ConfigError for a job that is none of ours or still runs, StorageError for a run that is not there or arrives
    damaged, ComputeError where the cluster does not answer; what has come is kept for the next call.
    """
    info = cluster.info(job)
    known = info.metadata or {}
    name, place = known.get(NAME_KEY), known.get(PLACE_KEY)
    if not name or not place:
        raise ConfigError(
            f"the job {job} was not submitted by `ensemble submit`, so where its run lies is not known here; copy the folder that its log names"
        )
    if not info.status.is_terminal():
        raise ConfigError(
            f"the job {job} still runs; first wait for its end: {command('--follow', job, '--address', cluster.address, '--fetch', str(folder))}"
        )
    runs = [PurePosixPath(run) for run in json.loads(known.get(RUNS_KEY, json.dumps([name])))]
    for run in runs:
        if not 0 < len(run.parts) < 3 or not all(re.match(NAME_PATTERN, part) for part in run.parts):
            raise ConfigError(
                f"the job {job} says that its run lies at {str(run)!r}, and nothing of that name is written here; expected NAME, or NAME/NAME_seed0 with repeats"
            )
    return [_fetched(cluster, place.rstrip("/"), run, folder, tell, part_bytes) for run in runs]


def _fetched(cluster: Cluster, place: str, run: PurePosixPath, folder: Path, tell: Tell, part_bytes: int) -> Path:
    """A run that lies at `run` below the place, to the same below the folder."""
    target = folder / run
    if is_address(place) and not place.startswith(_OF_A_DISK):
        return _from_bucket(f"{place}/{run.parent}" if run.parent.name else place, run.name, target)
    for beginning in _OF_A_DISK:
        place = place.removeprefix(beginning)
    return _from_head(cluster, f"{place}/{run}", target, tell, part_bytes)


def _from_bucket(address: str, name: str, target: Path) -> Path:
    _require_free(target)
    partial = target.with_name(f".{name}.fetching")
    Mirror(address, name, for_good=True).fetch(partial)
    if not (partial / MANIFEST).is_file():
        raise StorageError(f"{address.rstrip('/')}/{name}: there is no run; check the address and the job's log")
    (partial / LEFT).unlink(missing_ok=True)
    _put(partial, target)
    return target


def _from_head(cluster: Cluster, place: str, target: Path, tell: Tell, part_bytes: int) -> Path:
    jobs = _Jobs(cluster)
    content = jobs.bytes_of("list", place)
    manifest = parse_manifest(content, Path(place, MANIFEST))
    digest, total = hashlib.sha256(content).hexdigest(), sum(entry.bytes for entry in manifest.files.values())
    if (target / MANIFEST).is_file() and (target / MANIFEST).read_bytes() == content:
        tell(f"{target}: is this very run already; nothing was fetched")
        return target
    _require_free(target)
    partial = target.with_name(f".{target.name}.fetching-{digest[:16]}")
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unreadable(partial.parent, error, "written") from error
    with contextlib.closing(locked(partial / _LOCK)):
        incoming = _Incoming(partial, manifest, place)
        tell(f"fetching {len(manifest.files)} files, {total / 2**20:,.1f} MiB" + incoming.resumed())
        failures = 0
        while (start := incoming.position) < total:
            try:
                jobs.send("send", place, digest, str(start), str(part_bytes), into=incoming.take)
                failures = 0
            except ComputeError:
                failures = failures + 1 if incoming.position == start else 0
                if failures >= TRIES:
                    raise
                time.sleep(2.0 * failures)
            tell(f"{incoming.position / 2**20:,.1f} of {total / 2**20:,.1f} MiB")
        incoming.finish()
        jobs.clean()
        (partial / MANIFEST).write_bytes(content)
        (partial / _LOCK).unlink()
    _put(partial, target)
    return target


def _note_of(target: Path) -> Path:
    """Beside a fetched run: the digest of the manifest that came, by which it is known whether it was left as it was."""
    return target.with_name(f".{target.name}.fetched")


def _require_free(target: Path) -> None:
    """Raises StorageError where something is in the place of the run that is not what an earlier fetch left."""
    if not (target.exists() or target.is_symlink()):
        return
    manifest, note = target / MANIFEST, _note_of(target)
    if not target.is_symlink() and manifest.is_file() and note.is_file() and note.read_text() == _sha256(manifest):
        return
    raise StorageError(
        f"{target}: is there already, and is no earlier state of this run that was fetched and left as it was; remove it or rename it, or give another folder: --fetch FOLDER"
    )


def _put(partial: Path, target: Path) -> None:
    """Give a whole run its name; what was made beside an earlier state of it, such as a report, stays."""
    if target.exists():
        listed = parse_manifest((target / MANIFEST).read_bytes(), target / MANIFEST).files
        for path in [path for path in target.rglob("*") if path.is_file()]:
            name = path.relative_to(target)
            if name.as_posix() not in {*listed, MANIFEST} and not (partial / name).exists():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                path.rename(partial / name)
        old = target.with_name(f".{target.name}.old")
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old)
    else:
        partial.rename(target)
    _note_of(target).write_text(_sha256(target / MANIFEST))


class _Incoming:
    """Files in the making: bytes are taken in the order in which the other side has them, and each file is checked as it is whole."""

    def __init__(self, folder: Path, manifest: Manifest, place: str) -> None:
        self.position = 0  # of all files one after the other, bytes
        self._folder, self._place = folder, place
        self._files: Mapping[str, Entry] = manifest.files
        self._names = sorted(manifest.files)
        self._index, self._had = 0, 0
        self._keep_what_is_here()

    def resumed(self) -> str:
        """What is said of bytes that an earlier fetch has left."""
        return f", of which {self._had / 2**20:,.1f} MiB are here" if self._had else ""

    def _keep_what_is_here(self) -> None:
        while self._index < len(self._names):
            entry, path = self._files[self._names[self._index]], self._path()
            size = path.stat().st_size if path.is_file() else -1
            if size != entry.bytes or _sha256(path) != entry.sha256:
                if 0 <= size < entry.bytes:
                    self.position += size
                else:
                    path.unlink(missing_ok=True)
                break
            self.position += size
            self._index += 1
        self._had = self.position

    def _path(self) -> Path:
        return self._folder / self._names[self._index]

    def take(self, content: bytes) -> None:
        """The next bytes. Raises StorageError for a file that is not what the manifest says."""
        while content:
            path, entry = self._path(), self._files[self._names[self._index]]
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    here = content[: entry.bytes - file.tell()]
                    file.write(here)
                    whole = file.tell() == entry.bytes
            except OSError as error:
                raise StorageError(
                    f"{path}: cannot be written: {error.strerror or error}; free space or check permissions, then fetch again, which goes on from there"
                ) from error
            content = content[len(here) :]
            self.position += len(here)
            if whole:
                self._check(path, entry)
                self._index += 1
                self._make_empty_files()

    def _make_empty_files(self) -> None:
        while self._index < len(self._names) and self._files[self._names[self._index]].bytes == 0:
            self._path().parent.mkdir(parents=True, exist_ok=True)
            self._path().touch()
            self._index += 1

    def _check(self, path: Path, entry: Entry) -> None:
        if _sha256(path) != entry.sha256:
            path.unlink()
            raise StorageError(
                f"{self._place}/{self._names[self._index]}: arrived with another SHA-256 than its manifest says: it is damaged there, or was written to meanwhile; submit the same job again, which mends it, then fetch again"
            )

    def finish(self) -> None:
        """All bytes are here. Raises StorageError where a file is missing all the same."""
        self._make_empty_files()
        if self._index < len(self._names):
            raise StorageError(f"{self._place}/{self._names[self._index]}: did not arrive; fetch again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class _Jobs:
    """Small jobs on the head, each of which prints bytes. done: those that are over, with how many bytes they printed."""

    cluster: Cluster
    done: dict[str, int] = field(default_factory=dict)

    def bytes_of(self, *words: str) -> bytes:
        """All that one job prints."""
        parts: list[bytes] = []
        self.send(*words, into=parts.append)
        return b"".join(parts)

    def send(self, *words: str, into: Callable[[bytes], None]) -> None:
        """Have one job print bytes, and pass them on as they come. Raises StorageError for what it says, ComputeError else."""
        self.clean()
        job, received = self._submit(*words), _Received()
        try:
            asyncio.run(self._read(job, received, into))
        except BaseException as error:
            with contextlib.suppress(*LOST):
                self.cluster.answer(lambda: self.cluster.client.stop_job(job))
            if isinstance(error, StorageError) or not isinstance(error, Exception):
                raise
            raise ComputeError(
                f"the line to {self.cluster.address} broke while fetching ({short(error)}); the same command goes on where it was"
            ) from error
        finally:
            self.done[job] = received.bytes
        if not received.ended:
            info = self.cluster.info(job)
            raise ComputeError(
                f"the small job {job} that reads the run on the head ended without an answer ({info.status}: {short(Exception(info.message or received.other))}); try again"
            )

    def _submit(self, *words: str) -> str:
        with tempfile.TemporaryDirectory(prefix="ensemble-fetch-") as folder:
            shutil.copyfile(hand_over.__file__, Path(folder, "hand_over.py"))
            return self.cluster.take(
                entrypoint=shlex.join(["python", "hand_over.py", *words]),
                runtime_env={"working_dir": folder},
                metadata={"ensemble_fetch": words[0]},
            )

    async def _read(self, job: str, received: _Received, into: Callable[[bytes], None]) -> None:
        texts = aiter(self.cluster.client.tail_job_logs(job))
        while True:
            coming = asyncio.ensure_future(anext(texts, None))
            over = False
            while not (await asyncio.wait({coming}, timeout=QUIET_S))[0]:
                if over:
                    raise TimeoutError(f"nothing came for {QUIET_S:g} s")
                info = await asyncio.to_thread(self.cluster.info, job)  # raises where nobody answers
                over = info.status.is_terminal()
            text = coming.result()
            if text is None:
                return
            for content in received.lines(text):
                into(content)

    def clean(self) -> None:
        """Empty large logs of jobs that are over, and take the jobs off the head's list; where that fails nobody is harmed."""
        jobs, self.done = self.done, {}
        for job, count in jobs.items():
            with contextlib.suppress(*LOST, ComputeError):
                self._remove(job)
                if count > LOG_BYTES:
                    self._remove(self._submit("forget", job))

    def _remove(self, job: str) -> None:
        while not self.cluster.info(job).status.is_terminal():
            time.sleep(0.5)
        self.cluster.answer(lambda: self.cluster.client.delete_job(job))


class _Received:
    """Reads what `hand_over` prints, in pieces that end anywhere."""

    def __init__(self) -> None:
        self.ended = False
        self.other = ""  # the last line that is none of ours
        self.bytes = 0
        self._rest, self._number, self._digest = "", 0, hashlib.sha256()

    def lines(self, text: str) -> Iterator[bytes]:
        """The bytes in the lines that a piece completes. Raises StorageError for what the other side could not do."""
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            word, _, rest = line.partition(" ")
            if word == hand_over.DATA:
                yield self._data(rest)
            elif word == hand_over.PROBLEM:
                raise StorageError(f"the head says: {json.loads(rest)}; mend that there, then fetch again")
            elif word == hand_over.END:
                found = json.loads(rest)
                if (found["bytes"], found["sha256"]) != (self.bytes, self._digest.hexdigest()):
                    raise ValueError("the part is not what was sent")
                self.ended = True
            elif line.strip():
                self.other = line.strip()

    def _data(self, rest: str) -> bytes:
        number, _, text = rest.partition(" ")
        if number != str(self._number):
            raise ValueError(f"line {self._number} is missing")
        try:
            content = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"line {number} is damaged: {error}") from error
        self._number += 1
        self.bytes += len(content)
        self._digest.update(content)
        return content
