"""What the machine is, and two figures that scale all others: memory bandwidth and matrix products."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.cases import Cases
from benchmarks.gpu.timing import graphed, milliseconds

_QUERY = "name,driver_version,memory.total,memory.used,power.limit,clocks.max.sm,clocks.sm,mig.mode.current"


def run(bench: Bench, cases: Cases) -> None:
    """Card and versions; a copy; matrix products in each precision; whether a CUDA graph works at all."""
    with cases.case("card") as values:
        values.update(_versions())
        if bench.on_gpu:
            values.update(_card())
    with cases.case("copy") as values:
        values["tb_per_s"] = _copy(bench)
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ):
        with cases.case(f"matrix product {name}") as values:
            values["tflop_per_s"] = _product(bench, dtype, tf32)
    if bench.on_gpu:
        with cases.case("CUDA graph") as values:
            ones = torch.ones(1000, device="cuda")
            replay = graphed(lambda: ones.mul_(1.0))
            values["replay_ms"] = milliseconds(replay, True)


def _versions() -> dict[str, Any]:
    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return {
        "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn,
        "triton": of("triton"), "numpy": of("numpy"), "accelerate": of("accelerate"), "torchensemble": of("torchensemble"),
        "compiler": shutil.which("gcc") or shutil.which("cc") or shutil.which("clang"), "system": platform.release(),
    }  # fmt: skip


def _card() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    values: dict[str, Any] = {
        "name": properties.name, "memory_gib": properties.total_memory / 2**30, "cards": torch.cuda.device_count(),
        "multiprocessors": properties.multi_processor_count, "capability": f"{properties.major}.{properties.minor}",
    }  # fmt: skip
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader", "--id=0"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {**values, "driver": None, "nvidia_smi": str(error)}
    found = dict(zip(_QUERY.split(","), (word.strip() for word in line.split(",")), strict=False))
    return {**values, "driver": found.pop("driver_version", None), **{k: v for k, v in found.items() if k != "name"}}


def _copy(bench: Bench) -> float:
    """Bytes read and written."""
    source = torch.empty(bench.size(1 << 30, 1 << 20), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / milliseconds(lambda: target.copy_(source), bench.on_gpu) / 1e9


def _product(bench: Bench, dtype: torch.dtype, tf32: bool) -> float:
    side = bench.size(8192, 64)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    one, other = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / milliseconds(lambda: one @ other, bench.on_gpu) / 1e9
