"""Compiles the C kernels once per machine, with the C compiler found there.

The library is kept below ~/.cache/ensemble (or $ENSEMBLE_CACHE) under a name made of its source and the processor, so
that a home folder shared by unlike machines holds one for each, and one machine of a kind compiles for all. Before it is kept, another process loads it
and lets it check itself: instructions that a processor does not know end that process and not a training.

What lies in the cache is loaded only if it is this user's own and ends with its own digest, which the linker passes over;
a file that a crash left empty or cut, or that somebody else put there, is made anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ensemble import signals
from ensemble.cache import is_own, own_folder

SOURCE = Path(__file__).with_name("batch_last.c")  # includes the headers beside it
# Not every compiler knows -march=native on every machine. Without flags the code is right, but slower.
_TARGETS: tuple[list[str], ...] = (
    ["-march=native", "-mprefer-vector-width=512"],
    ["-march=native"],
    ["-mcpu=native"],
    [],
)
_TIMEOUT_S = 120.0
_LOOK_AGAIN_S = 0.1
_MARK = b"\nensemble sha256 "  # before the digest at the end of a library
_CHECK = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).check())"


@functools.cache
def compiled() -> Path | str:
    """The compiled library, or why there is none and what to do about it."""
    try:
        code = b"".join(path.read_bytes() for path in [SOURCE, *sorted(SOURCE.parent.glob("*.h"))])
        key = hashlib.sha256(code + processor().encode()).hexdigest()[:16]
        library = own_folder("kernels") / f"batch_last-{key}.so"
        return library if _is_sound(library) else _compile(library)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        return f"the compiled kernels cannot be kept ({error}): set ENSEMBLE_CACHE to a folder of yours"


def _compile(library: Path) -> Path | str:
    """Make the library, with the compiler that CC names where that is set. Raises OSError where it cannot be kept."""
    wanted = os.environ.get("CC")
    commands = [shlex.split(wanted)] if wanted else [["cc"], ["gcc"], ["clang"]]
    compiler = next((command for command in commands if shutil.which(command[0])), None)
    if compiler is None:
        return f"no C compiler ({wanted or 'cc, gcc or clang'}) on {platform.node()}: install gcc or clang"
    complaint = ""
    for target in _TARGETS:
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            made = Path(scratch) / library.name
            complaint = _complaint([*compiler, "-O3", *target, "-shared", "-fPIC", str(SOURCE), "-o", str(made), "-lm"])
            complaint = complaint or _complaint([sys.executable, "-c", _CHECK, str(made)])
            if not complaint:
                _keep(made, library)
                return library
    return f"{compiler[0]} makes no kernels of {SOURCE} ({complaint}): install gcc or another C compiler"


def _keep(made: Path, library: Path) -> None:
    """Give the library its digest and its place, in one step: processes may compile at the same time."""
    with made.open("rb+") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
        file.write(_MARK + digest.encode())
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the name without the content
    made.chmod(0o700)
    if library.is_dir() and not library.is_symlink():
        raise IsADirectoryError(errno.EISDIR, "a folder lies where a library belongs; remove it", str(library))
    made.replace(library)


def _is_sound(library: Path) -> bool:
    """True for a library that this program kept, whole, and that loads."""
    if not is_own(library) or not library.is_file():
        return False
    content, mark, digest = library.read_bytes().rpartition(_MARK)
    if not mark or hashlib.sha256(content).hexdigest().encode() != digest:
        return False
    try:
        ctypes.CDLL(str(library))
    except OSError:  # of another C library, in a home folder that moved to a new system
        return False
    return True


def _complaint(command: list[str]) -> str:
    """What is wrong with a command's end, in a line; empty when nothing is. Raises KeyboardInterrupt where a signal comes meanwhile.

    The command does not hear what is sent to this process's group: a compiler that Ctrl-C ended would be taken for one that
    does not know its target, and a library for another target, with other bits, be kept.
    """
    try:
        running = subprocess.Popen(  # noqa: S603  the compiler the user chose
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return str(error)
    with running:
        try:
            said = _said(running)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)  # a compiler starts others
            raise
    if running.returncode == 0:
        return ""
    return next(iter(said.strip().splitlines()), f"{command[0]} ended with {running.returncode}")


def _said(running: subprocess.Popen[str]) -> str:
    """What a command writes to stderr until its end, or that it took too long."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        if signals.came():
            raise KeyboardInterrupt
        try:
            return running.communicate(timeout=_LOOK_AGAIN_S)[1]
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                os.killpg(running.pid, signal.SIGKILL)
                return f"took longer than {_TIMEOUT_S:g} s"


def processor() -> str:
    """The processor's name and instruction sets, as far as the system tells."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    wanted = ("model name", "flags", "Features", "CPU part")
    found = {line.split(":")[0].strip(): line for line in lines if line.startswith(wanted)}
    return "|".join([platform.machine(), platform.processor(), *found.values()])
