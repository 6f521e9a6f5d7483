"""Builds the pretended CUDA runtime, and starts processes whose torch finds its devices.

    if reason := why_not(): pytest.skip(reason)
    done = run_python(script, "an argument", gpus=2, mib=16_000)

The runtime (runtime/*.c, see README.md) stands in front of NVIDIA's libraries by LD_PRELOAD, in the processes started here
and nowhere else. It is compiled once per version of torch and of its source, and kept below ~/.cache/ensemble.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ensemble.cache import cache_folder

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = HERE / "runtime"
REPORTS = "PRETENDED_GPU_REPORTS"
_LIBRARY = "libpretended_cuda.so"
# What loads with torch and asks the runtime or its libraries for something.
_TORCH_LIBRARIES = ("torch_cuda", "torch_cuda_linalg", "torch_nvshmem", "torch_python", "torch_cpu", "c10_cuda")
_OURS = re.compile(r"(__)?cuda[A-Z]\w*|cublas\w+|cudnn\w+|nccl\w+")
_DRIVER = re.compile(r"cu[A-Z]\w+")
_FLAGS = ("-std=gnu11", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror")
# Of a launcher around the tests: a process on pretended devices must not think that it is one of its ranks.
_NOT_INHERITED = ("RANK", "LOCAL_", "WORLD_", "MASTER_", "ACCELERATE_", "CUDA_VISIBLE_DEVICES", "RAY_ADDRESS")


@functools.cache
def why_not() -> str | None:
    """Why there can be no pretended devices here; None where there can."""
    missing = [tool for tool in ("gcc", "nm") if shutil.which(tool) is None]
    if missing:
        return f"the pretended CUDA runtime needs {' and '.join(missing)}: install gcc and binutils"
    if not (_torch() / "lib" / "libtorch_cuda.so").exists():
        return f"torch {importlib.metadata.version('torch')} has no CUDA: install the wheel with CUDA (no device is needed)"
    return None


@functools.cache
def runtime() -> Path:
    """The folder of the compiled libraries. Raises RuntimeError with the compiler's words when they cannot be made."""
    files = sorted(path for path in SOURCES.rglob("*") if path.is_file())
    code = b"".join(path.read_bytes() for path in [*files, Path(__file__)])
    key = hashlib.sha256(f"{_torch()} {importlib.metadata.version('torch')}".encode() + code).hexdigest()[:16]
    folder = cache_folder() / "pretended_gpu" / key
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / "libraries"
            made.mkdir()
            _build(made)
            try:
                made.replace(folder)  # in one step: processes may build at the same time
            except OSError:
                if not folder.exists():
                    raise
    return folder


def environment(gpus: int = 1, mib: int = 81_920, **more: str) -> dict[str, str]:
    """The environment of a process that finds so many devices of so many MiB."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    folder = str(runtime())
    paths = [str(ROOT), str(HERE), *filter(None, [kept.get("PYTHONPATH")])]
    return {
        **kept, "OMP_NUM_THREADS": "1", "PRETENDED_GPUS": str(gpus), "PRETENDED_GPU_MIB": str(mib),
        "PYTHONPATH": os.pathsep.join(paths), "LD_LIBRARY_PATH": folder, "LD_PRELOAD": f"{folder}/{_LIBRARY}", **more,
    }  # fmt: skip


def run_command(
    command: Sequence[str], gpus: int = 1, mib: int = 81_920, timeout: float = 280, **more: str
) -> subprocess.CompletedProcess[str]:
    """The end of a command run on pretended devices, whatever it is."""
    return subprocess.run(
        command, env=environment(gpus, mib, **more), cwd=ROOT, capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip


def run_python(
    script: str, *arguments: str, gpus: int = 1, mib: int = 81_920, timeout: float = 280, **more: str
) -> str:
    """What a script beside this file prints on pretended devices. Raises AssertionError when it fails."""
    done = run_command([sys.executable, str(HERE / script), *arguments], gpus, mib, timeout, **more)
    assert done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def read_reports(folder: Path) -> dict[int, dict[int, dict[str, int]]]:
    """How often each process that wrote into the folder asked for what: {process: {device of the machine: {kind: times}}}."""
    found: dict[int, dict[int, dict[str, int]]] = {}
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            device, kind, times = line.split("\t")
            found.setdefault(int(path.name), {}).setdefault(int(device), {})[kind] = int(times)
    return found


def _torch() -> Path:
    spec = importlib.util.find_spec("torch")  # where it is, without importing it
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _build(folder: Path) -> None:
    """Compile the runtime, the driver and NVML, each with functions that do nothing for all that torch wants besides."""
    includes = sorted(_torch().parent.glob("nvidia/*/include"))
    flags = [
        *_FLAGS,
        f"-DPRETENDED_NCCL_VERSION={_nccl_version(includes)}",
        f"-I{SOURCES}",
        *(f"-I{i}" for i in includes),
    ]
    alone = {"driver.c": "libcuda.so.1", "nvml.c": "libnvidia-ml.so.1"}
    sources = [path for path in sorted(SOURCES.glob("*.c")) if path.name not in alone]
    wanted = {
        name for library in _TORCH_LIBRARIES for name in _symbols(_torch() / "lib" / f"lib{library}.so", "undefined")
    }
    _link(
        folder / _LIBRARY, sources, {name for name in wanted if _OURS.fullmatch(name)}, flags, "pretended_not_modelled"
    )
    asked = _symbols(_torch() / "lib" / "libcaffe2_nvrtc.so", "undefined")
    for source, library in alone.items():
        names = {name for name in asked if _DRIVER.fullmatch(name)} if source == "driver.c" else set()
        _link(folder / library, [SOURCES / source], names, flags, None)


def _link(library: Path, sources: Sequence[Path], wanted: set[str], flags: Sequence[str], stub: str | None) -> None:
    """One library of these sources, and of a function that calls `stub` with its name for each wanted one they lack."""
    _run("gcc", *flags, "-shared", *map(str, sources), "-o", str(library), "-lpthread")
    missing = sorted(wanted - _symbols(library, "defined"))
    lines = [f"long {stub}(const char *name);"] if stub else []
    for name in missing:
        answer = f'{stub}("{name}")' if stub else "0"
        lines.append(f"long {name}(void) {{ return {answer}; }}")
    stubs = library.with_suffix(".stubs.c")
    stubs.write_text("\n".join([*lines, ""]))
    _run("gcc", *flags, "-fno-builtin", "-shared", *map(str, sources), str(stubs), "-o", str(library), "-lpthread")


def _symbols(library: Path, which: str) -> set[str]:
    """Names that a library wants ("undefined") or offers ("defined"), without their versions."""
    if not library.exists():
        return set()
    lines = _run("nm", "--dynamic", f"--{which}-only", str(library)).splitlines()
    return {line.split()[-1].split("@")[0] for line in lines if line.strip()}


def _nccl_version(includes: Sequence[Path]) -> int:
    for folder in includes:
        header = folder / "nccl.h"
        found = re.search(r"NCCL_VERSION_CODE (\d+)", header.read_text()) if header.exists() else None
        if found:
            return int(found[1])
    return 0


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout
