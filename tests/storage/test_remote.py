"""Runs on object storage: the copy is whole, another machine goes on from it, and two writers are noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ensemble.errors import ConfigError, StorageError
from ensemble.outside import object_storage
from ensemble.results.judging import find_run
from ensemble.storage import RunFolder
from ensemble.storage.fetched_run import fetched_run
from ensemble.storage.listed_folder import ListedFolder
from ensemble.storage.names import EVENTS
from ensemble.storage.remote import LEFT, OWNER, Mirror, local_root
from tests import preloaded

CONFIG: dict[str, Any] = {"name": "run", "seed": 1}
PLAN = {"stack_sizes": {}}


class Bucket(MemoryFileSystem):
    """Object storage as s3fs shows it: a bucket must be there, making folders would make it, and it may be away."""

    protocol = "bucket"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    buckets: ClassVar[set[str]] = set()
    error: ClassVar[Exception | None] = None
    writes: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("bucket://").strip("/")

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.buckets.add(path.split("/")[1])

    def cat_file(self, path: str, *words: Any, **more: Any) -> bytes:
        if self.error is not None:
            raise self.error
        return super().cat_file(path, *words, **more)

    def pipe_file(self, path: str, value: bytes, *words: Any, **more: Any) -> None:
        type(self).writes += 1
        if self.error is not None:
            raise self.error
        if path.split("/")[1] not in self.buckets:
            raise FileNotFoundError("The specified bucket does not exist")
        super().pipe_file(path, value)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Bucket]:
    """A storage with one bucket, there, and a machine with an empty cache."""
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    monkeypatch.setattr(object_storage, "WAITS_S", (0.001, 0.001))
    Bucket.store, Bucket.pseudo_dirs, Bucket.buckets, Bucket.error, Bucket.writes = {}, [""], {"there"}, None, 0
    on_machine("one", tmp_path, monkeypatch)
    return Bucket


def test_a_bucket_is_never_made(bucket: type[Bucket]) -> None:
    with pytest.raises(StorageError, match="no such bucket"):
        RunFolder.open("bucket://mistyped/runs", "run", CONFIG, PLAN)
    assert bucket.buckets == {"there"}
    RunFolder.open("bucket://there/runs", "run", CONFIG, PLAN).close()
    assert "/there/runs/run/manifest.json" in bucket.store


def test_a_storage_that_is_away_does_not_stop_the_run(
    bucket: type[Bucket], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder.open("bucket://there/runs", "run", CONFIG, PLAN) as folder:
        bucket.error, bucket.writes = OSError("connection refused"), 0
        for number in range(20):
            folder.write(f"{number}.txt", b"x")
        assert len([record for record in caplog.records if "not mirrored since" in record.message]) == 1
        assert folder.read_bytes("19.txt") == b"x"
        bucket.error = None
    assert "reached again" in caplog.text
    assert bucket.store["/there/runs/run/19.txt"].getvalue() == b"x"


def test_a_storage_that_never_comes_back_is_said_at_the_end(
    bucket: type[Bucket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.open("bucket://there/runs", "run", CONFIG, PLAN)
    bucket.error = OSError("connection refused")
    folder.write("late.txt", b"x")
    with pytest.raises(StorageError, match=r"connection refused.*kept in the local folder"):
        folder.__exit__(None, None, None)
    bucket.error = None
    with RunFolder.open("bucket://there/runs", "run", CONFIG, PLAN) as again:  # what is here goes there now
        again.write("more.txt", b"y")
    assert bucket.store["/there/runs/run/late.txt"].getvalue() == b"x"


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), OSError("ExpiredToken: the token has expired")])
def test_refused_credentials_are_named(bucket: type[Bucket], error: Exception) -> None:
    bucket.error = error
    with pytest.raises(StorageError, match=r"credentials.*AWS_ACCESS_KEY_ID"):
        RunFolder.open("bucket://there/runs", "run", CONFIG, PLAN)


def test_a_manifest_confirmed_too_late_is_ones_own(bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage takes the manifest, but the answer is lost: the next try must not see a stranger in it."""
    whole = Bucket.pipe_file

    def lose_answer(self: Bucket, path: str, value: bytes, *words: Any, **more: Any) -> None:
        whole(self, path, value)
        if path.endswith("manifest.json"):
            raise OSError("timed out")

    with RunFolder.open("bucket://there/runs", "run", CONFIG, PLAN) as folder:
        monkeypatch.setattr(Bucket, "pipe_file", lose_answer)
        folder.write("a.txt", b"x")
        monkeypatch.setattr(Bucket, "pipe_file", whole)
    assert "/there/runs/run/a.txt" in bucket.store


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


def on_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, be another machine: one with another cache."""
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / name))


def test_the_copy_holds_what_the_manifest_lists_and_is_fetched_elsewhere(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine("one", tmp_path, monkeypatch)
    with RunFolder.open(address, "run", CONFIG, PLAN) as folder:
        folder.write("a.txt", b"first")
        folder.save_checkpoint("t", b"state 1")
        folder.save_checkpoint("t", b"state 2")
        folder.save_checkpoint("t", b"state 3")
        assert (tmp_path / "bucket" / "run" / OWNER).is_file()  # as long as it writes
    there = tmp_path / "bucket" / "run"
    listed = set(json.loads((there / "manifest.json").read_text())["files"])
    assert {str(p.relative_to(there)) for p in there.rglob("*") if p.is_file()} == listed | {"manifest.json"}
    assert len(listed) == 5  # configuration, plan, a.txt and two generations of the state
    on_machine("two", tmp_path, monkeypatch)
    with RunFolder.open(address, "run", CONFIG, {"stack_sizes": {"other": 1}}) as folder:
        assert folder.plan() == PLAN
        assert folder.load_checkpoint("t") == b"state 3"
        folder.write("b.txt", b"second")
    on_machine("one", tmp_path, monkeypatch)  # has an older state of its own
    assert RunFolder.read(find_run(f"{address}/run", Path("runs"))).read_bytes("b.txt") == b"second"


def test_what_was_written_here_and_not_copied_is_kept(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the local manifest and the copy: the next start here goes on from the local state."""
    on_machine("one", tmp_path, monkeypatch)
    with RunFolder.open(address, "run", CONFIG, PLAN) as folder:
        folder.write("a.txt", b"first")
        mirror, folder._mirror = folder._mirror, None
        folder.write("b.txt", b"not copied")
    assert mirror is not None
    assert not (tmp_path / "bucket" / "run" / "b.txt").exists()
    with RunFolder.open(address, "run", CONFIG, PLAN) as folder:
        assert folder.read_bytes("b.txt") == b"not copied"
        folder.write("c.txt", b"third")
    assert (tmp_path / "bucket" / "run" / "b.txt").read_bytes() == b"not copied"
    assert (local_root(address) / "run" / LEFT).is_file()


def test_a_second_writer_is_noticed(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine("one", tmp_path, monkeypatch)
    with RunFolder.open(address, "run", CONFIG, PLAN) as first:
        first.write("a.txt", b"first")
        on_machine("two", tmp_path, monkeypatch)
        with RunFolder.open(address, "run", CONFIG, PLAN) as second:
            second.write("a.txt", b"second")
        with pytest.raises(StorageError, match=r"bucket/run: another process has written to this run"):
            first.write("c.txt", b"late")


def test_damage_and_unknown_addresses_are_named(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine("one", tmp_path, monkeypatch)
    with RunFolder.open(address, "run", CONFIG, PLAN) as folder:
        folder.write("a.txt", b"first")
    (tmp_path / "bucket" / "run" / "a.txt").write_bytes(b"worst")
    on_machine("two", tmp_path, monkeypatch)
    with pytest.raises(StorageError, match=r"bucket/run/a\.txt: damaged; restore it"):
        RunFolder.open(address, "run", CONFIG, PLAN)
    with pytest.raises(ConfigError, match=r"output_dir: nosuch://bucket: .*expected a path, or an address"):
        RunFolder.open("nosuch://bucket", "run", CONFIG, PLAN)


def test_a_killed_run_is_finished_on_another_machine(tmp_path: Path) -> None:
    """The real command, killed in mid-member; the machine that takes over has only the address."""
    (tmp_path / "c.yaml").write_text(json.dumps({
        "name": "far", "seed": 2, "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
        "model": {"name": "mlp", "widths": [64]}, "training": {"epochs": 60},
        "compute": {"executor": "inline", "device": "cpu", "stack_size": 1, "checkpoint_every_s": 0.05},
        "tracking": {"wandb": {"mode": "disabled"}},
    }))  # fmt: skip

    def command(place: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "ensemble",
            "train",
            str(tmp_path / "c.yaml"),
            f"output_dir={place}",
            "-q",
        ]

    def machine(name: str) -> dict[str, str]:
        return {**os.environ, "ENSEMBLE_CACHE": str(tmp_path / name), "OMP_NUM_THREADS": "1"}

    bucket = tmp_path / "bucket"
    first = preloaded.Popen(command(f"file://{bucket}"), env=machine("one"), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(bucket.glob("far/checkpoints/*")) and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    done = preloaded.run(
        command(f"file://{bucket}"), env=machine("two"), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    calm = preloaded.run(
        command(str(tmp_path / "calm")), env=machine("three"), capture_output=True, timeout=240, check=False
    )
    assert calm.returncode == 0

    def digests(path: Path) -> dict[str, str]:
        files = json.loads((path / "manifest.json").read_text())["files"]
        return {k: v["sha256"] for k, v in files.items() if k.endswith((".safetensors", "votes.npz"))}

    assert digests(bucket / "far") == digests(tmp_path / "calm" / "far")
    assert len(digests(bucket / "far")) == 4
    shown = preloaded.run(
        [sys.executable, "-m", "ensemble", "evaluate", f"file://{bucket}/far"],
        env=machine("four"), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "soft vote *" in shown.stdout, shown.stderr


FILES = ("weights.safetensors", "votes.npz", "history.csv", "member.json")


def member(index: int, content: bytes = b"x") -> dict[str, bytes]:
    return {f"members/{index:04d}/{file}": content for file in FILES}


def write_events(folder: RunFolder, count: int) -> None:
    """What the event log gets in the meantime."""
    with (folder.path / EVENTS).open("ab") as log:
        for number in range(count):
            log.write(json.dumps({"time": 1.0, "event": "epoch_finished", "epoch": number}).encode() + b"\n")


def sent(members: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Requests that write, bytes they send besides the members' own, and bytes of manifest and log at the end, of a run."""
    sizes: dict[str, list[int]] = {}
    pipe_file = Bucket.pipe_file

    def noted(self: Bucket, path: str, value: bytes, *words: Any, **more: Any) -> None:
        sizes.setdefault(path, []).append(len(value))
        pipe_file(self, path, value, *words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "pipe_file", noted)
        with RunFolder.open("bucket://there/runs", f"run{members}", CONFIG, PLAN) as folder:
            for index in range(members):
                write_events(folder, 10)
                folder.write_all(member(index))
    at_the_end = sum(sizes[f"/there/runs/run{members}/{name}"][-1] for name in ("manifest.json", EVENTS))
    others = sum(sum(each) for path, each in sizes.items() if "/members/" not in path)
    return sum(map(len, sizes.values())), others, at_the_end


def test_what_is_sent_grows_with_the_members_and_not_with_their_square(
    bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemble.storage.journal.LEAST_BYTES", 1 << 12)  # so that several bases are written
    few, many = sent(10, monkeypatch), sent(80, monkeypatch)
    assert many[0] < 8 * few[0]
    for requests, others, at_the_end in (few, many):
        assert requests < 7 * 80
        assert (
            others < 4 * at_the_end
        )  # the parts once, and bases of which each is about twice as large as the one before


class Cut(BaseException):
    """The process ends here."""


def test_a_copy_that_is_cut_off_at_any_request_is_whole_as_of_an_earlier_moment(
    bucket: type[Bucket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemble.storage.journal.LEAST_BYTES", 1 << 11)
    left = [0]
    whole, whole_rm = Bucket.pipe_file, Bucket.rm

    def spend() -> None:
        if left[0] == 0:
            raise Cut
        left[0] -= 1

    def pipe_file(self: Bucket, path: str, value: bytes, *words: Any, **more: Any) -> None:
        spend()
        whole(self, path, value)

    def rm(self: Bucket, path: Any, *words: Any, **more: Any) -> None:
        spend()
        whole_rm(self, path, *words, **more)

    moments: list[dict[str, str]] = []

    def run(name: str) -> Iterator[int]:
        """A run; after each of its steps, how many moments there had been."""
        with RunFolder.open("bucket://there/runs", name, CONFIG, PLAN) as folder:
            yield len(moments)
            for number in range(3):
                write_events(folder, 5)
                folder.write_all(member(number, b"%d" % number))
                yield len(moments)
                folder.write("rounds.json", b"%d" % number)
                yield len(moments)
                folder.save_checkpoint("t", b"%d" % number)
                yield len(moments)
            folder.drop_member(0)
            yield len(moments)
            folder.record_events()
            yield len(moments)

    def push(self: Mirror, folder: Path, files: Any) -> None:
        moments.append({name: entry.sha256 for name, entry in files.items()})
        whole_push(self, folder, files)

    whole_push = Mirror.push
    monkeypatch.setattr(Mirror, "push", push)
    monkeypatch.setattr(
        object_storage.ObjectStorage, "side_by_side", lambda _self, function, items: list(map(function, items))
    )
    monkeypatch.setattr(Bucket, "pipe_file", pipe_file)
    monkeypatch.setattr(Bucket, "rm", rm)
    left[0] = -1  # endlessly
    list(run("calm"))
    calm = list(moments)
    for cut in range(200):
        name, left[0] = f"cut{cut}", cut
        moments.clear()
        on_machine("one", tmp_path, monkeypatch)
        steps = run(name)
        stored, ended = 0, False
        try:
            for stored in steps:  # noqa: B007  # what it had come to is asked for afterwards
                pass
            ended = True
        except Cut:
            steps.close()  # type: ignore[attr-defined]  # a generator
        left[0] = -1
        on_machine(f"other{cut}", tmp_path, monkeypatch)
        if f"/there/runs/{name}/manifest.json" in Bucket.store:
            other = RunFolder.read(fetched_run(f"bucket://there/runs/{name}"))
            assert not ListedFolder.damaged_files(other), f"cut at request {cut}"
            found = {name: other.digest(name) for name in other.files()}
            assert found in calm[max(stored - 1, 0) :], f"cut at request {cut}"  # what was said to be stored is there
        else:
            assert stored == 0, f"cut at request {cut}"
        if ended:
            break
    assert ended
    assert cut > 40


def test_a_kill_while_an_object_is_written_to_this_disk_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = object_storage.ObjectStorage(f"file://{tmp_path}/bucket", "output_dir")
    storage.write("run/manifest.json", b"before")

    def killed(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ensemble.outside.whole_file.os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        storage.write("run/manifest.json", b"after, and longer")
    assert storage.read("run/manifest.json") == b"before"
