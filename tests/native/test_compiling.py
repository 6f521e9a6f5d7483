"""The kernels are compiled once per machine; whatever is missing is told and stops nothing."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble.cache import is_own, own_folder
from ensemble.native import compiling
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
    quick = str(script(tmp_path / "quick", 'exec cc "$@" -O0'))  # ten seconds less for each
    found = {said(process) for process in [say(tmp_path, quick), say(tmp_path, quick)]}
    (library,) = found
    assert [str(path) for path in (tmp_path / "kernels").iterdir()] == [library]
    before = Path(library).stat().st_mtime_ns
    assert said(say(tmp_path, "nonesuch")) == library
    assert Path(library).stat().st_mtime_ns == before


def test_no_compiler(tmp_path: Path) -> None:
    assert said(say(tmp_path, path="")).startswith("no C compiler (cc, gcc or clang) on ")
    assert said(say(tmp_path, "nonesuch")).startswith("no C compiler (nonesuch) on ")


def test_a_compiler_that_fails(tmp_path: Path) -> None:
    broken = script(tmp_path / "broken", "echo 'out of ideas' >&2; exit 3")
    message = said(say(tmp_path, str(broken)))
    assert message.startswith(f"{broken} makes no kernels of ")
    assert "(out of ideas)" in message


STOPPED = """
from ensemble import signals
from ensemble.native.compiling import compiled

with signals.ending_process():
    signals.install()
    with signals.deferred():
        print(compiled(), flush=True)
"""


@needs_compiler
def test_ctrl_c_ends_a_compiler_and_keeps_nothing_of_another_target(tmp_path: Path) -> None:
    """It goes to the whole process group. The first target's compiler ended by it would be followed by the next target's."""
    slow = script(
        tmp_path / "slow",
        f'touch {tmp_path}/begun; for word in "$@"; do case $word in -mprefer*) sleep 60;; esac; done; exec cc "$@"',
    )
    environment = {**os.environ, "ENSEMBLE_CACHE": str(tmp_path), "CC": str(slow)}
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        begun = time.monotonic()
        out, _ = process.communicate(timeout=100)
    assert (process.returncode, out) == (75, "")
    assert time.monotonic() - begun < 20
    assert list((tmp_path / "kernels").iterdir()) == []
    assert said(say(tmp_path)).endswith(".so")


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other names for their targets")
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64"])
def test_kernels_for_lesser_processors(target: str, tmp_path: Path) -> None:
    """With AVX2 and with SSE2 alone the code is another one; few machines that run these tests would come by it."""
    if target == "x86-64-v3" and not {"avx2", "fma", "bmi2"} <= set(compiling.processor().split()):
        pytest.skip("this processor has no AVX2")
    lesser = f'for word; do shift; case $word in -march=native) word=-march={target};; esac; set -- "$@" "$word"; done'
    compiler = script(tmp_path / "lesser", f'{lesser}; exec cc "$@"')
    tests = [str(Path(__file__).with_name("test_kernels.py")), "-k", "not three"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        env={**os.environ, "ENSEMBLE_CACHE": str(tmp_path), "CC": str(compiler)}, capture_output=True, text=True,
    )  # fmt: skip
    last = ran.stdout.strip().splitlines()[-1]
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in last
    assert "skipped" not in last
    assert len(list((tmp_path / "kernels").glob("*.so"))) == 1


def test_what_a_compiler_says_may_be_in_any_encoding(tmp_path: Path) -> None:
    broken = script(tmp_path / "broken", r"printf 'keine \374ber\303\274\n' >&2; exit 3")
    assert "(keine " in said(say(tmp_path, str(broken)))


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


@needs_compiler
def test_a_library_that_is_damaged_or_not_ones_own_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty, cut, text, of another version, with a flipped bit, a link, writable by others: never loaded as it is."""
    source = tmp_path / "source" / "small.c"  # the real one takes seconds each time
    source.parent.mkdir()
    source.write_text("int check(void) { return 0; }\n")
    monkeypatch.setattr(compiling, "SOURCE", source)
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path))
    monkeypatch.setattr(compiling, "_compile", remake(compiling._compile))
    library = compiled_anew()
    assert isinstance(library, Path)
    good = library.read_bytes()
    assert compiled_anew() == library
    assert remake.calls == 1, "what is sound is not made again"
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for content in (
        b"",
        good[:100],
        good[: len(good) // 2],
        b"text",
        good[:-1],
        good.rpartition(b"\n")[0],
        bytes(flipped),
    ):
        library.unlink()  # it is loaded: a file in use must not change
        library.write_bytes(content)
        library.chmod(0o700)
        assert compiled_anew() == library
        assert library.read_bytes()[-64:] == good[-64:]
    elsewhere = tmp_path / "elsewhere.so"
    library.rename(elsewhere)
    library.symlink_to(elsewhere)
    assert compiled_anew() == library
    assert not library.is_symlink()
    library.chmod(0o722)
    assert compiled_anew() == library
    assert library.stat().st_mode & 0o022 == 0
    library.unlink()
    os.mkfifo(library)
    assert compiled_anew() == library
    assert remake.calls == 1 + 7 + 3
    library.unlink()
    library.mkdir()
    found = compiled_anew()
    assert isinstance(found, str)
    assert str(library) in found
    assert "remove it" in found


def test_a_folder_of_others_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path))
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels").chmod(0o777)
    assert own_folder("kernels") == tmp_path / "kernels"
    assert (tmp_path / "kernels").stat().st_mode & 0o022 == 0, "one's own is closed to others"
    monkeypatch.setattr(os, "geteuid", lambda: 12345)  # now it is somebody else's, and so is what is made anew
    (tmp_path / "kernels").chmod(0o777)
    (tmp_path / "kernels-12345").mkdir()
    (tmp_path / "kernels-12345").chmod(0o777)
    with pytest.raises(PermissionError, match="others may write") as caught:
        own_folder("kernels")
    assert caught.value.filename == str(tmp_path / "kernels-12345")
    (tmp_path / "kernels").chmod(0o755)
    assert not is_own(tmp_path / "missing")


def compiled_anew() -> Path | str:
    compiling.compiled.cache_clear()
    try:
        return compiling.compiled()
    finally:
        compiling.compiled.cache_clear()


class remake:
    """Counts how often a library is made."""

    calls = 0

    def __init__(self, make: Callable[[Path], Path | str]) -> None:
        remake.calls, self._make = 0, make

    def __call__(self, library: Path) -> Path | str:
        remake.calls += 1
        return self._make(library)


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path
