"""`ensemble runs rm`: what goes, what stays, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import fsspec
import pytest

from ensemble.overview import removal
from ensemble.storage import RunFolder
from ensemble.storage.listed_folder import locked
from ensemble.storage.remote import local_root
from tests.damage.commands import call, said


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_a_run_goes_and_what_it_freed_is_said(home: Path):
    shutil.copytree("runs/one", "runs/two")
    size = bytes_of(Path("runs/one"))
    result = call("runs", "rm", "one", "--yes")
    assert result.exit_code == 0, said(result)
    assert f"runs/one: removed, {size / 1024:.1f} KiB freed" in result.stdout
    assert not Path("runs/one").exists()
    assert Path("runs/two/manifest.json").exists()


def test_it_is_asked_before(home: Path, monkeypatch):
    refused = call("runs", "rm", "one")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    monkeypatch.setattr("ensemble.commands.runs._agreed", lambda _number: False)
    assert call("runs", "rm", "one").exit_code == 0
    assert Path("runs/one/manifest.json").exists()
    monkeypatch.setattr("ensemble.commands.runs._agreed", lambda _number: True)
    assert call("runs", "rm", "one").exit_code == 0
    assert not Path("runs/one").exists()


def test_a_run_that_is_written_to_is_refused_with_all_others_of_the_command(home: Path, elsewhere):
    process = elsewhere("long", "training.epochs=500", "num_members=2", epochs=1)
    result = call("runs", "rm", "one", "long", "--yes")
    assert result.exit_code == 6
    assert "runs/long: not removed: in use by a process that writes to it" in result.stderr
    assert Path("runs/one/manifest.json").exists(), "nothing is removed where one of them may not be"
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert call("runs", "rm", "one", "long", "--yes").exit_code == 0
    assert list(Path("runs").iterdir()) == []


def test_a_writer_that_comes_between_asking_and_removing_is_noticed(home: Path):
    found = removal.removable("one")
    with locked(Path("runs/one/run.lock")), pytest.raises(removal.StorageError, match="in use by process"):
        removal.remove(found)
    assert RunFolder.read(Path("runs/one")).damaged_files() == []


def test_links_are_removed_and_not_followed(home: Path, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("stays")
    Path("runs/one/folder").symlink_to(outside)
    Path("runs/one/members/link").symlink_to(outside)
    Path("runs/one/file").symlink_to(outside / "precious")
    Path("runs/one/loop").symlink_to("loop")
    Path("runs/alias").symlink_to("one")
    refused = call("runs", "rm", "alias", "--yes")
    assert refused.exit_code == 6
    assert "it is a link to one" in refused.stderr
    assert call("runs", "rm", "one", "--yes").exit_code == 0
    assert (outside / "precious").read_text() == "stays"
    assert not Path("runs/one").exists()


@pytest.mark.parametrize("what", ["nothing", "empty", "an app", "a file", "home", "holds a run"])
def test_what_is_no_run_folder_is_refused(home: Path, what):
    name = {"nothing": "no", "home": ".", "a file": "one.yaml"}.get(what, "runs/thing")
    thing = Path("runs/thing")
    if what == "empty":
        thing.mkdir()
    elif what == "an app":
        thing.mkdir()
        (thing / "manifest.json").write_text(json.dumps({"name": "app", "files": {}}))
        (thing / "run.lock").touch()
    elif what == "holds a run":
        shutil.copytree("runs/one", thing)
        shutil.copytree("runs/one", thing / "deeper/run")
    before = sorted(map(str, home.rglob("*")))
    result = call("runs", "rm", name, "--yes")
    assert result.exit_code == 6, said(result)
    assert (
        "no run here" in result.stderr or "not that of a run" in result.stderr or "holds another run" in result.stderr
    )
    assert sorted(map(str, home.rglob("*"))) == before


def test_a_damaged_run_may_go(home: Path):
    Path("runs/one/manifest.json").write_text("{")
    assert call("runs", "rm", "one", "--yes").exit_code == 0
    assert not Path("runs/one").exists()


def test_a_removal_that_was_broken_off_is_taken_up_again(home: Path, monkeypatch):
    real, calls = shutil.rmtree, []

    def fails_once(path, *words, **more):
        calls.append(path)
        if len(calls) == 1:
            raise OSError(13, "Permission denied", str(path))
        real(path, *words, **more)

    monkeypatch.setattr(removal.shutil, "rmtree", fails_once)
    broken = call("runs", "rm", "one", "--yes")
    assert broken.exit_code == 6
    assert "cannot be removed: Permission denied" in broken.stderr
    assert call("runs", "rm", "one", "--yes").exit_code == 0
    assert not Path("runs/one").exists()


@pytest.fixture(params=["memory://removal/runs", "file"])
def place(request, home: Path, tmp_path: Path, monkeypatch) -> str:
    """An address with a run in it, and this machine's copy of that."""
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    address = f"file://{tmp_path}/bucket/runs" if request.param == "file" else request.param
    if request.param == "file":
        Path(tmp_path / "bucket/runs").mkdir(parents=True)
    result = call("train", "one.yaml", "name=far", f"output_dir={address}", "num_members=2", "training.epochs=1", "-q")
    assert result.exit_code == 0, said(result)
    return address


def test_a_run_under_an_address_is_listed_and_goes_with_the_copy(place: str):
    files, root = fsspec.core.url_to_fs(place)
    [run] = json.loads(call("runs", place, "--json", "--cost").stdout)["runs"]
    assert (run["name"], run["state"], run["state_by"], run["members_finished"]) == ("far", "finished", "log", 2)
    assert run["place"] == f"{place}/far"
    assert run["error"] is not None
    assert run["spent"]["seconds"]["cpu"] > 0
    assert run["size"] == sum(
        files.info(name)["size"] for name in files.find(f"{root}/far") if not name.endswith("manifest.json")
    )
    files.pipe_file(f"{root}/far/notes.txt", b"somebody's own")
    files.pipe_file(f"{root}/other.txt", b"beside")
    answer = call("watch", f"{place}/far")
    assert f"run: {place}/far" in answer.stdout
    result = call("runs", "rm", f"{place}/far", "--yes")
    assert result.exit_code == 0, said(result)
    files.invalidate_cache()
    left = [name.rpartition("runs/")[2] for name in files.find(root)]
    assert sorted(left) == ["far/notes.txt", "other.txt"], "what the run did not write stays"
    assert not (local_root(place) / "far").exists()
    assert json.loads(call("runs", place, "--json").stdout)["runs"][0]["state"] == "no run"


def test_only_five_files_of_a_run_under_an_address_are_read(home: Path, monkeypatch):
    files = fsspec.filesystem("memory")
    files.put("runs/one/", "/five/runs/one", recursive=True)
    read, real = [], type(files).cat_file

    def counted(self, path, *words, **more):
        read.append(path.rpartition("/")[2])
        return real(self, path, *words, **more)

    monkeypatch.setattr(type(files), "cat_file", counted)
    result = call("runs", "memory://five/runs", "--json")
    assert result.exit_code == 0
    looked, read = [name for name in read if name.endswith("-000001.json")], [n for n in read if "-0" not in n]
    assert sorted(read) == ["config.yaml", "evaluation.json", "events.jsonl", "manifest.json", "plan.json"]
    assert len(looked) == 1, "whether there is a journal"
    assert "manifest, config.yaml, plan.json, evaluation.json and events.jsonl are read" in result.stderr


def test_a_run_under_an_address_whose_log_grew_lately_is_not_removed(home: Path):
    files = fsspec.filesystem("memory")
    files.put("runs/one/", "/lately/one", recursive=True)
    log = files.cat_file("/lately/one/events.jsonl").splitlines(keepends=True)
    files.pipe_file("/lately/one/events.jsonl", b"".join(log[:-1]))
    manifest = json.loads(files.cat_file("/lately/one/manifest.json"))
    for name in ("events.jsonl", "evaluation.json"):
        del manifest["files"][name]
    del manifest["names_sha256"], manifest["entries_sha256"]
    files.pipe_file("/lately/one/manifest.json", json.dumps(manifest).encode())
    [run] = json.loads(call("runs", "memory://lately", "--json").stdout)["runs"]
    assert (run["state"], run["state_by"]) == ("running", "log")
    result = call("runs", "rm", "memory://lately/one", "--yes")
    assert result.exit_code == 6
    assert "grew within the last minutes" in result.stderr
