"""The list of files of a large run: lines of what changed beside the manifest, and the whole when they become long."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.errors import StorageError
from ensemble.storage import RunFolder, manifest_log
from ensemble.storage.manifest_log import ManifestLog, drop_logs
from tests.storage.test_run_folder import member, opened


@pytest.fixture
def always_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_log, "LONG_BYTES", -1)
    monkeypatch.setattr(manifest_log, "LOG_SHARE", 1e9)


def logs(folder: Path) -> list[Path]:
    return list(folder.glob("manifest.*.log"))


@pytest.mark.usefixtures("always_lines")
def test_readers_see_every_change_and_a_run_that_ended_has_no_log(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        manifest = (tmp_path / "run" / "manifest.json").read_bytes()
        for index in range(3):
            folder.save_members([member(index)])
            folder.save_checkpoint("task-0", f"state {index}".encode())
            stored = RunFolder.read(tmp_path / "run")
            assert stored.finished() == set(range(index + 1)) == folder.finished()
            assert stored.load_checkpoint("task-0") == f"state {index}".encode()
            assert stored.files() == folder.files()
        folder.drop_member(1)
        folder.drop_checkpoints("task-0")
        stored = RunFolder.read(tmp_path / "run")
        assert stored.finished() == {0, 2} == folder.finished()
        assert stored.load_checkpoint("task-0") is None
        assert (tmp_path / "run" / "manifest.json").read_bytes() == manifest
        assert len(logs(tmp_path / "run")) == 1
        expected = stored.files()
    assert logs(tmp_path / "run") == []
    assert sorted(json.loads((tmp_path / "run" / "manifest.json").read_text())["files"]) == expected


@pytest.mark.usefixtures("always_lines")
def test_a_folder_that_cannot_be_looked_through_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a run's end, when the logs of earlier lists are looked for: an error of storage, after which a start goes on."""
    with opened(tmp_path) as folder:
        folder.save_members([member(0)])
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", failing(errno.EDQUOT))
            for look in (folder._write_whole_list, lambda: drop_logs(tmp_path / "run")):
                with pytest.raises(StorageError, match=f"{tmp_path / 'run'}: cannot be looked through: Disk quota"):
                    look()
    with opened(tmp_path) as folder:
        assert folder.finished() == {0}
        folder.save_members([member(1)])
    assert logs(tmp_path / "run") == []


def failing(error: int) -> Callable[[Any], Any]:
    def fail(path: Any) -> Any:
        raise OSError(error, os.strerror(error), str(path))

    return fail


@pytest.mark.usefixtures("always_lines")
def test_the_manifest_is_the_same_with_and_without_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "lines") as folder:
        folder.save_members([member(0), member(1)])
        folder.write("failures/0003.txt", b"why")
        folder.write("failures/0003.txt", b"why again")
    monkeypatch.undo()
    with opened(tmp_path / "whole") as folder:
        folder.save_members([member(0), member(1)])
        folder.write("failures/0003.txt", b"why again")
    one, other = ((tmp_path / root / "run" / "manifest.json").read_bytes() for root in ("lines", "whole"))
    assert one == other


@pytest.mark.usefixtures("always_lines")
def test_after_a_kill_a_start_goes_on_from_the_lines(tmp_path: Path) -> None:
    killed = opened(tmp_path)
    killed.save_members([member(0)])
    killed._lock.close()  # type: ignore[union-attr] - as the kernel does for a process that is gone
    with opened(tmp_path) as folder:
        assert folder.finished() == {0}
        folder.save_members([member(1)])
    assert RunFolder.read(tmp_path / "run").finished() == {0, 1}
    assert logs(tmp_path / "run") == []


@pytest.mark.usefixtures("always_lines")
def test_a_log_that_a_kill_left_after_the_manifest_was_written_says_nothing(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.save_members([member(0)])
    (log,) = logs(tmp_path / "run")
    content = log.read_bytes()
    folder.close()
    log.write_bytes(content)  # as if its removal had not come
    assert RunFolder.read(tmp_path / "run").finished() == {0}


@pytest.mark.usefixtures("always_lines")
def test_every_cut_is_an_earlier_state_and_every_other_damage_is_named(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    states = [set(RunFolder.read(tmp_path / "run").files())]
    for index in range(2):
        folder.save_members([member(index)])
        states.append(set(folder.files()))
    (log,) = logs(tmp_path / "run")
    whole = log.read_bytes()
    for end in range(0, len(whole), 7):
        log.write_bytes(whole[:end])
        if lines := whole[:end].count(b"\n"):
            assert set(RunFolder.read(tmp_path / "run").files()) == states[lines - 1]
        else:
            with pytest.raises(StorageError, match=r"missing or empty, though manifest\.json is continued there"):
                RunFolder.read(tmp_path / "run")
    for at in range(0, len(whole) - 1, 11):
        for changed in (whole[at] ^ 1, ord("\n")):
            if changed == whole[at]:
                continue
            log.write_bytes(whole[:at] + bytes([changed]) + whole[at + 1 :])
            with pytest.raises(StorageError, match=r"manifest\.[0-9a-f]{16}\.log: damaged"):
                RunFolder.read(tmp_path / "run")
    log.write_bytes(whole)
    folder.close()


@pytest.mark.usefixtures("always_lines")
@pytest.mark.parametrize("damage", ["gone", "emptied", "a line changed"])
def test_without_its_log_a_long_manifest_is_refused_and_a_start_goes_on(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    killed = opened(tmp_path)
    killed.save_members([member(0)])
    killed.save_members([member(1)])
    killed._lock.close()  # type: ignore[union-attr] - as the kernel does for a process that is gone
    (log,) = logs(tmp_path / "run")
    lines = log.read_bytes().splitlines(keepends=True)
    if damage == "gone":
        log.unlink()
    else:
        log.write_bytes(b"" if damage == "emptied" else b"".join([*lines[:2], lines[2].replace(b"votes", b"vetos")]))
    with pytest.raises(StorageError, match="start the run's `ensemble train` again"):
        RunFolder.read(tmp_path / "run")
    with opened(tmp_path) as folder:
        assert folder.finished() == ({0} if damage == "a line changed" else set())
        assert "the run goes on from what was listed before" in caplog.text
        folder.save_members([member(0), member(1)])
    assert RunFolder.read(tmp_path / "run").finished() == {0, 1}
    assert logs(tmp_path / "run") == []


def test_a_short_list_has_no_log(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        for index in range(5):
            folder.save_members([member(index)])
            assert logs(tmp_path / "run") == []
            assert len(json.loads((tmp_path / "run" / "manifest.json").read_text())["files"]) == 2 + 4 * (index + 1)


NAMES = st.sampled_from(["plan.json", "config.yaml", "failures/0001.txt", 'a "name"\n.txt', "members/0001/votes.npz"])


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.tuples(NAMES, st.booleans(), st.integers(0, 9)), max_size=25), share=st.sampled_from([0.5, 1e9])
)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, bool, int]], share: float
) -> None:
    from ensemble.storage.manifest import Entry

    folder = tmp_path_factory.mktemp("list")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_log, "LONG_BYTES", 600)
        patch.setattr(manifest_log, "LOG_SHARE", share)
        patch.setattr(manifest_log, "require_whole_members", lambda *_: None)
        patch.setattr("ensemble.storage.manifest.require_whole_members", lambda *_: None)
        files: dict[str, Entry] = {f"sets/filler-{i}": Entry(sha256=f"{i:064x}", bytes=i) for i in range(8)}
        written = ManifestLog(folder)
        written.write(files, files)
        for name, keep, number in changes:
            if keep:
                files[name] = Entry(sha256=f"{number:064x}", bytes=number)
                written.write(files, {name: files[name]})
            elif files.pop(name, None) is not None:
                written.write(files, {}, [name])
            assert ManifestLog(folder).read()[1] == files
        assert len(logs(folder)) <= 1
        written.write_whole(files)
        assert logs(folder) == []


def test_what_a_large_run_writes_grows_with_its_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of the list per member, of a few and of many."""
    monkeypatch.setattr(manifest_log, "LONG_BYTES", 4096)
    written = []

    def counting(path: Path, content: bytes, root: Path | None = None) -> str:
        written.append(len(content))
        return original(path, content, root)

    original = manifest_log.write_bytes
    monkeypatch.setattr(manifest_log, "write_bytes", counting)
    per_member = []
    for members in (50, 400):
        written.clear()
        log_bytes = 0
        with opened(tmp_path / str(members)) as folder:
            for index in range(members):
                before = {path: path.stat().st_size for path in logs(folder.path)}
                folder.save_members([member(index)])
                log_bytes += sum(max(0, path.stat().st_size - before.get(path, 0)) for path in logs(folder.path))
        per_member.append((sum(written) + log_bytes) / members)
    assert per_member[1] < 1.5 * per_member[0], per_member
