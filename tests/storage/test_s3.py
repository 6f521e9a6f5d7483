"""Runs in a bucket of a real S3 server: how many requests they make, and what they do when the server is slow, fails or refuses."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ensemble.commands.main import main
from ensemble.errors import StorageError
from ensemble.inference.trained import load_ensemble
from ensemble.outside import object_storage
from ensemble.run.stored import Run
from ensemble.storage import RunFolder
from ensemble.storage.fetched_run import fetched_run
from ensemble.storage.names import EVENTS
from tests.s3_server import S3Server

CONFIG: dict[str, Any] = {"name": "run", "seed": 1}
PLAN = {"stack_sizes": {}}
FILES = ("weights.safetensors", "votes.npz", "history.csv", "member.json")
EPOCHS = 10


@pytest.fixture
def place(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address to put runs, on a machine with an empty cache; requests are tried again at once."""
    monkeypatch.setattr(object_storage, "WAITS_S", (0.01,) * 8)
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "one"))
    return f"s3://{s3.bucket}/runs"


def member(index: int, size: int = 10) -> dict[str, bytes]:
    return {f"members/{index:04d}/{file}": bytes([index % 256]) * size for file in FILES}


def epochs(index: int) -> bytes:
    """What the event log gets in the meantime."""
    line = {"time": 1.0, "event": "epoch_finished", "member": index, "loss": 0.123456789, "error": 0.0123456789}
    return b"".join(json.dumps({**line, "epoch": n}).encode() + b"\n" for n in range(EPOCHS))


def write_events(folder: RunFolder, lines: bytes) -> None:
    with (folder.path / EVENTS).open("ab") as log:
        log.write(lines)


def test_requests_by_occasion(s3: S3Server, place: str) -> None:
    """The table in docs/storage.md."""

    def of(what: str) -> Counter[str]:
        found, _ = s3.methods(), s3.forget()
        return found

    folder = RunFolder.open(place, "run", CONFIG, PLAN)
    assert of("start of a new run") == Counter(
        GET=4, PUT=4
    )  # owner, manifest: looked for twice; owner, 2 files, manifest
    folder.write_all(member(0))
    assert of("a member") == Counter(GET=1, PUT=5)
    folder.write_all({**member(1), **member(2), **member(3)})
    assert of("a stack of three") == Counter(GET=1, PUT=13)
    for _ in range(3):
        s3.forget()
        folder.save_checkpoint("t", b"state")
    assert of("a checkpoint, and one of three less") == Counter(GET=2, PUT=3, POST=1)
    folder.write("rounds.json", b"[[0]]")
    s3.forget()
    folder.write("rounds.json", b"[[0], [1]]")
    assert of("a file that is replaced") == Counter(GET=1, PUT=3)
    write_events(folder, epochs(0))
    folder.__exit__(None, None, None)
    assert of("the end") == Counter(GET=1, PUT=2, POST=2)
    RunFolder.open(place, "run", CONFIG, PLAN).close()
    assert of("start that goes on here") == Counter(GET=3)


def test_the_end_leaves_what_the_manifest_lists_and_another_machine_reads_it(
    s3: S3Server, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder.open(place, "run", CONFIG, PLAN) as folder:
        for index in range(3):
            write_events(folder, epochs(index))
            folder.write_all(member(index))
        log = (folder.path / EVENTS).read_bytes()
        assert [name for name in s3.contents() if name.startswith("runs/run/journal/")]
        monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "two"))  # in mid-run
        seen = fetched_run(f"{place}/run")
        assert (seen / EVENTS).read_bytes() == log
        assert RunFolder.read(seen).finished() == {0, 1, 2}
        monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "one"))
    names = {name.removeprefix("runs/run/") for name in s3.contents()}
    listed = set(json.loads(s3.contents()["runs/run/manifest.json"])["files"])
    assert names == listed | {"manifest.json", EVENTS}


def test_slow_and_failing_requests_change_nothing_and_are_told_once(
    s3: S3Server, place: str, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(1)
    s3.mood = lambda _method, _path: dice.choices([None, 503, "drop"], [0.7, 0.2, 0.1])[0]
    s3.delay_s = 0.02
    with RunFolder.open(place, "run", CONFIG, PLAN) as folder:
        for index in range(3):
            write_events(folder, epochs(index))
            folder.write_all(member(index))
        expected = {name: folder.read_bytes(name) for name in folder.files()}
    assert [record.levelno for record in caplog.records] == [logging.WARNING], caplog.text
    assert "tried again, which is said once" in caplog.text
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "two"))
    other = RunFolder.read(fetched_run(f"{place}/run"))
    assert {name: other.read_bytes(name) for name in other.files()} == expected


def test_a_bucket_that_is_away_in_mid_run(
    s3: S3Server, place: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemble.storage.remote._FIRST_WAIT_S", 0.0)
    with RunFolder.open(place, "run", CONFIG, PLAN) as folder:
        s3.mood = lambda _method, _path: "drop"
        folder.write_all(member(0))
        folder.write_all(member(1))
        s3.mood = None
        folder.write_all(member(2))
        assert {name.split("/")[3] for name in s3.contents() if "/members/" in name} == {"0000", "0001", "0002"}
    assert f"{place}/run/run.owner: cannot be read" in caplog.text
    assert "not mirrored since" in caplog.text
    assert caplog.text.count("reached again; the copy is whole") == 1


@pytest.mark.parametrize(
    ("mood", "match"),
    [
        (lambda _method, _path: 400, r"runs/run/run.owner: cannot be read: .*AWS_SESSION_TOKEN"),
        (lambda _method, _path: 403, r"runs/run/run.owner: cannot be read: .*AWS_ACCESS_KEY_ID"),
        (lambda method, _path: 403 if method == "PUT" else None, r"runs/run/run.owner: cannot be written: .*may not do that"),
    ],
    ids=["expired", "wrong", "read-only"],
)  # fmt: skip
def test_refusals_at_the_start_name_address_and_remedy(s3: S3Server, place: str, mood: Any, match: str) -> None:
    s3.mood = mood
    with pytest.raises(StorageError, match=match):
        RunFolder.open(place, "run", CONFIG, PLAN)
    assert len(s3.requests) < 5  # a refusal is not tried again


def test_a_missing_bucket_is_named_and_not_made(s3: S3Server, place: str) -> None:
    with pytest.raises(StorageError, match=r"s3://bucket-mistyped/runs/run: there is no such bucket"):
        RunFolder.open("s3://bucket-mistyped/runs", "run", CONFIG, PLAN)
    assert "bucket-mistyped" not in [each["Name"] for each in s3.client().list_buckets()["Buckets"]]


def test_two_writers(
    s3: S3Server, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    first = RunFolder.open(place, "run", CONFIG, PLAN)
    first.write_all(member(0))
    request.addfinalizer(first.close)
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "two"))
    with RunFolder.open(place, "run", CONFIG, PLAN) as second:
        second.write_all(member(1))
        with pytest.raises(
            StorageError, match=r"/runs/run: another process has \(process \d+ on .*\) written to this run"
        ):
            first.write_all(member(2))
        second.write_all(member(3))
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "three"))
    assert RunFolder.read(fetched_run(f"{place}/run")).finished() == {0, 1, 3}


def test_every_door_takes_the_address_of_a_run(
    s3: S3Server, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on one machine, used on another that has nothing but the address."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        json.dumps({
            "name": "far", "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"}, "output_dir": place,
            "model": {"name": "mlp", "widths": [16]}, "training": {"epochs": 1}, "tracking": {"wandb": {"mode": "disabled"}},
            "compute": {"executor": "inline", "device": "cpu", "stack_size": 2},
        })
    )  # fmt: skip
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(tmp_path / "picture.png")
    run = f"{place}/far"

    def said(*words: str) -> str:
        done = CliRunner().invoke(main, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    trained = said("train", "c.yaml", "-q")
    assert trained.splitlines()[-1] == f"run: {run}"
    assert str(tmp_path / "one") not in trained
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "two"))
    assert said("evaluate", run) == trained
    assert said("check", run).startswith(f"{run}: ")
    said("compare", f"{run}:0", f"{run}:members")
    assert f"ensemble predict {run} IMAGE" in said("card", run)
    said("report", run, "--out", "page.html")
    assert (tmp_path / "page.html").is_file()
    assert "picture.png" in said("predict", run, "picture.png")
    words = [sys.executable, "-m", "ensemble", "export", run, "--format", "torch_export", "--out", "vote.pt2"]
    subprocess.run(words, check=True, capture_output=True, timeout=250)  # in this process it would outlive the test
    assert (tmp_path / "vote.pt2").is_file()
    said("wandb", run, "--mode", "offline")
    images = np.zeros((2, 1, 28, 28), np.uint8)
    assert load_ensemble(run).predict_proba(images).shape == (2, 10)
    assert Run(run).votes("test").shape == (2, 355, 10)
    s3.forget()
    said("evaluate", run, "--aggregator", "hard", "--write")  # which is copied back
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "three"))
    assert Run(run).evaluation.aggregator == "hard"
    result = CliRunner().invoke(main, ["evaluate", f"{place}/nosuch"])
    assert isinstance(result.exception, StorageError | SystemExit)
    assert f"{place}/nosuch: no run here" in (result.output + str(result.exception))
    s3.forget()
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "four"))
    said("train", "c.yaml", "-q")  # goes on here from the bucket alone: nothing is trained again
    assert {method for method, path, _ in s3.requests if "/members/" in path} == {"GET"}
    assert {name for name in s3.contents() if "journal" in name or "owner" in name} == set()
