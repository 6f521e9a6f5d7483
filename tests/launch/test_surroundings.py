"""Errors that the surroundings are to blame for: said in words, with their exit code, at every door; never a mistake of the program."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ensemble.errors import EXIT_INTERNAL
from ensemble.launch import surroundings


def _os(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path) if path else OSError(number, os.strerror(number))


def _of_numpy() -> MemoryError:
    try:
        np.ones((10**6, 10**6, 10**3), np.float64)
    except MemoryError as error:
        return error
    raise AssertionError


# The error, its exit code, what must be said.
CASES: dict[str, tuple[BaseException, int, str]] = {
    "memory": (MemoryError(), 7, "out of memory"),
    "memory of numpy": (_of_numpy(), 7, "out of memory.*Unable to allocate"),
    "memory of torch": (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 7, "out of memory"),
    "memory of the system": (_os(errno.ENOMEM), 7, "out of memory"),
    "threads": (RuntimeError("can't start new thread"), 7, "ulimit -u"),
    "processes": (_os(errno.EAGAIN), 7, "ulimit -u"),
    "files": (_os(errno.EMFILE), 7, "ulimit -n"),
    "files of the machine": (_os(errno.ENFILE, "/x/y"), 7, "fs.file-max"),
    "a path": (_os(errno.EACCES, "/x/y"), 6, "/x/y: Permission denied; check"),
    "a full disk": (_os(errno.ENOSPC), 6, "output cannot be written"),
    "no temporary folder": (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), 6, "set TMPDIR"),
    "no reader": (_os(errno.EPIPE), 6, "whoever read it has gone"),
    "a busy pipe": (BlockingIOError(errno.EAGAIN, "write could not complete without blocking", 12), 6, "output cannot be written"),
    "the network": (_os(errno.ECONNRESET), 7, "network does not answer"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_surroundings_are_named(case: str) -> None:
    error, code, words = CASES[case]
    found = surroundings.in_words(error)
    assert found is not None
    assert found[1] == code
    assert re.search(words, found[0])


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        found = surroundings.in_words(_os(errno.ENOENT))
    finally:
        monkeypatch.undo()
    assert found is not None
    assert "working directory is gone" in found[0]


@pytest.mark.parametrize(
    "error", [KeyError("x"), ValueError("x"), RuntimeError("shape '[1]' is invalid"), RecursionError()]
)
def test_mistakes_of_the_program_stay_such(error: Exception) -> None:
    assert surroundings.in_words(error) is None


# Ends as a door ends whose work raises what the first word names.
DOOR = """
import errno, os, sys
from ensemble.launch.training import guarded

def main():
    if sys.argv[1] == "output":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        print("a table")
        return 0
    raise {"files": OSError(errno.EMFILE, "Too many open files"), "memory": MemoryError(), "mistake": KeyError("oh")}[sys.argv[1]]

guarded(main, "the same command")
"""


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [("files", 7, "ulimit -n"), ("memory", 7, "out of memory"), ("output", 6, "output cannot be written"), ("mistake", 70, "KeyError: 'oh'\nthis is a mistake of the program")],
)  # fmt: skip
def test_the_doors_of_launchers_end_alike(what: str, code: int, words: str) -> None:
    done = subprocess.run([sys.executable, "-c", DOOR, what], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert ("Traceback" in done.stderr) == (code == EXIT_INTERNAL)


LIMITED = """
import resource, sys
which, limit = sys.argv[1], int(sys.argv[2])
import ensemble.run.compose, torch
from ensemble.commands.main import run_cli
resource.setrlimit(getattr(resource, f"RLIMIT_{which}"), (limit, limit))
sys.argv = ["ensemble", *sys.argv[3:]]
run_cli()
"""
CONFIG = """
num_members: 2
method: {name: bagging}
baseline: false
data: {name: digits}
model: {name: mlp, widths: [8]}
training: {epochs: 1}
compute: {executor: inline, device: cpu}
tracking: {wandb: {mode: disabled}}
"""


@pytest.mark.parametrize(("which", "limit"), [("NOFILE", 8), ("FSIZE", 4000)])
def test_a_run_under_a_limit_says_which(which: str, limit: int, tmp_path: Path) -> None:
    """And the same command goes on without it."""
    (tmp_path / "c.yaml").write_text(CONFIG)
    command = [sys.executable, "-c", LIMITED, which, str(limit), "train", "c.yaml", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 3, 5, 6, 7), done.stderr
    assert "mistake of the program" not in done.stderr
    if done.returncode:
        assert "error: " in done.stderr
    again = [sys.executable, "-m", "ensemble", "train", "c.yaml", "-q"]
    assert subprocess.run(again, cwd=tmp_path, capture_output=True, timeout=300, check=False).returncode == 0
