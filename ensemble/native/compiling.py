"""Compiles the C kernels once per machine, with the C compiler found there.

The library is kept below ~/.cache/ensemble (or $ENSEMBLE_CACHE) under a name made of its source, the compiler and the
processor, so that a home folder shared by unlike machines holds one for each. Before it is kept, another process loads it
and lets it check itself: instructions that a processor does not know end that process and not a training.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ensemble.cache import cache_folder

SOURCE = Path(__file__).with_name("batch_last.c")
# Not every compiler knows -march=native on every machine. Without flags the code is right, but slower.
_TARGETS: tuple[list[str], ...] = (
    ["-march=native", "-mprefer-vector-width=512"],
    ["-march=native"],
    ["-mcpu=native"],
    [],
)
_TIMEOUT_S = 120.0
_CHECK = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).check())"


@functools.cache
def compiled() -> Path | str:
    """The compiled library, or why there is none and what to do about it."""
    wanted = os.environ.get("CC")
    compiler = next(filter(None, map(shutil.which, [wanted] if wanted else ["cc", "gcc", "clang"])), None)
    if compiler is None:
        return f"no C compiler ({wanted or 'cc, gcc or clang'}) on {platform.node()}: install gcc or clang"
    try:
        folder = cache_folder() / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        return _kept(compiler, folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        return f"the compiled kernels cannot be kept ({error}): set ENSEMBLE_CACHE to a folder of yours"


def _kept(compiler: str, folder: Path) -> Path | str:
    facts = [SOURCE.read_bytes(), compiler.encode(), _processor().encode()]
    library = folder / f"batch_last-{hashlib.sha256(b'|'.join(facts)).hexdigest()[:16]}.so"
    if library.exists():
        return library
    complaint = ""
    for target in _TARGETS:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / library.name
            complaint = _complaint([compiler, "-O3", *target, "-shared", "-fPIC", str(SOURCE), "-o", str(made), "-lm"])
            complaint = complaint or _complaint([sys.executable, "-c", _CHECK, str(made)])
            if not complaint:
                made.replace(library)  # in one step: processes may compile at the same time
                return library
    return f"{compiler} makes no kernels of {SOURCE} ({complaint}): install gcc or another C compiler"


def _complaint(command: list[str]) -> str:
    """What is wrong with a command's end, in a line; empty when nothing is."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603  the compiler the user chose
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return next(iter(done.stderr.strip().splitlines()), f"{command[0]} ended with {done.returncode}")


def _processor() -> str:
    """The processor's name and instruction sets, as far as the system tells."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    wanted = ("model name", "flags", "Features", "CPU part")
    found = {line.split(":")[0].strip(): line for line in lines if line.startswith(wanted)}
    return "|".join([platform.machine(), platform.processor(), *found.values()])
