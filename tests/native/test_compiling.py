"""The kernels are compiled once per machine; whatever is missing is told and stops nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ensemble.native.kernels import obstacle

needs_compiler = pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")
SAY = "from ensemble.native.compiling import compiled; print(compiled())"


def say(cache: Path, compiler: str | None = None, path: str | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "ENSEMBLE_CACHE": str(cache)}
    environment.pop("CC", None)
    if compiler:
        environment["CC"] = compiler
    if path is not None:
        environment["PATH"] = path
    return subprocess.Popen([sys.executable, "-c", SAY], env=environment, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out.strip()


@needs_compiler
def test_processes_that_compile_at_once_leave_one_library(tmp_path: Path) -> None:
    found = {said(process) for process in [say(tmp_path), say(tmp_path)]}
    (library,) = found
    assert [str(path) for path in (tmp_path / "kernels").iterdir()] == [library]
    before = Path(library).stat().st_mtime_ns
    assert said(say(tmp_path)) == library
    assert Path(library).stat().st_mtime_ns == before


def test_no_compiler(tmp_path: Path) -> None:
    assert said(say(tmp_path, path="")).startswith("no C compiler (cc, gcc or clang) on ")
    assert said(say(tmp_path, "nonesuch")).startswith("no C compiler (nonesuch) on ")


def test_a_compiler_that_fails(tmp_path: Path) -> None:
    broken = script(tmp_path / "broken", "echo 'out of ideas' >&2; exit 3")
    message = said(say(tmp_path, str(broken)))
    assert message.startswith(f"{broken} makes no kernels of ")
    assert "(out of ideas)" in message


def test_a_library_that_does_not_check_is_not_kept(tmp_path: Path) -> None:
    """A compiler that leaves something that cannot be loaded, as for another machine."""
    wrong = script(tmp_path / "wrong", 'for last; do :; done; while [ "$1" != -o ]; do shift; done; echo no > "$2"')
    assert "makes no kernels of" in said(say(tmp_path, str(wrong)))
    assert list((tmp_path / "kernels").iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = said(say(tmp_path / "file", str(script(tmp_path / "cc", "exit 0"))))
    assert message.startswith("the compiled kernels cannot be kept (")
    assert "ENSEMBLE_CACHE" in message


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path
