"""A log that grows, is cut, is replaced or ends in half a line, looked at again and again."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.errors import StorageError
from ensemble.events import Notice, to_json
from ensemble.overview.tail import LocalTail, RemoteTail
from ensemble.storage.manifest import manifest_bytes
from ensemble.storage.remote_folder import RemoteFolder
from tests.amounts import examples


def line(number):
    return json.dumps({"time": float(number), **to_json(Notice(f"event {number}"))}).encode() + b"\n"


def numbers(news):
    return [int(moment) for moment, _ in news.events]


@settings(max_examples=examples(100), deadline=None)
@given(cuts=st.lists(st.integers(0, 2000), max_size=20))
def test_every_event_is_told_once_however_the_writes_are_cut(cuts, tmp_path_factory):
    path = tmp_path_factory.mktemp("tail") / "events.jsonl"
    content, tail, told = b"".join(map(line, range(20))), LocalTail(path), []
    for end in [*sorted(cut for cut in cuts if cut < len(content)), len(content)]:
        path.write_bytes(content[:end])
        news = tail.read()
        assert not news.anew
        told += numbers(news)
    assert told == list(range(20))


def test_half_a_line_waits(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + line(2)[:9])
    tail = LocalTail(path)
    assert numbers(tail.read()) == [1]
    assert numbers(tail.read()) == []
    path.write_bytes(line(1))  # as the next start cuts it off
    assert numbers(tail.read()) == []
    with path.open("ab") as file:
        file.write(line(3))
    news = tail.read()
    assert (numbers(news), news.anew) == ([3], False)


@pytest.mark.parametrize("after", [line(7), line(7) + line(8) + line(9), line(8) + line(9) + line(7) + line(7)])
def test_another_log_in_its_place_is_read_from_the_beginning(tmp_path: Path, after):
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + line(2))
    tail = LocalTail(path)
    tail.read()
    other = tmp_path / "other"
    other.write_bytes(after)
    other.replace(path)
    news = tail.read()
    assert news.anew
    assert len(numbers(news)) == after.count(b"\n")
    assert numbers(tail.read()) == []


def test_a_log_that_is_not_there_yet_or_no_more(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    tail = LocalTail(path)
    assert not tail.read().anew
    path.write_bytes(line(1))
    assert numbers(tail.read()) == [1]
    path.unlink()
    assert tail.read().anew
    path.write_bytes(line(1))
    assert numbers(tail.read()) == [1]


def test_a_line_that_is_no_event_is_named(tmp_path: Path):
    (tmp_path / "events.jsonl").write_bytes(line(1) + b"garbage\n")
    with pytest.raises(StorageError, match=r"events\.jsonl:2: the event log is damaged"):
        LocalTail(tmp_path / "events.jsonl").read()


def test_under_an_address_the_log_is_fetched_only_when_the_run_has_changed(monkeypatch):
    files = fsspec.filesystem("memory")
    files.pipe_file("/tail/run/manifest.json", manifest_bytes({}))
    files.pipe_file("/tail/run/events.jsonl", line(1) + line(2)[:5])
    folder, reads = RemoteFolder("memory://tail/run"), []
    monkeypatch.setattr(folder, "now", lambda: reads.append(1) or RemoteFolder.now(folder))
    tail = RemoteTail(folder)
    assert numbers(tail.read()) == [1]
    assert numbers(tail.read()) == []
    assert len(reads) == 1
    files.pipe_file("/tail/run/events.jsonl", line(1) + line(2))
    news = tail.read()
    assert (numbers(news), news.anew, len(reads)) == ([2], False, 2)
    files.pipe_file("/tail/run/events.jsonl", line(5))
    news = tail.read()
    assert (numbers(news), news.anew) == ([5], True)
    files.rm_file("/tail/run/events.jsonl")
    assert tail.read().anew
    assert numbers(tail.read()) == []
