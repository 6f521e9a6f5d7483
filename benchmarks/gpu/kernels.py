"""Profiles: which kernels take the GPU's time while a stack trains, and how much of the time the GPU is busy at all."""

from __future__ import annotations

import time
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.bench import LENET5, Bench
from benchmarks.gpu.cases import Cases

_TOP = 14
_RESNET = {"name": "resnet18", "stem": "small"}


def run(bench: Bench, cases: Cases) -> None:
    """The stacks of the goals, with and without a CUDA graph: a busy share far below 1 means bound by the host."""
    if not bench.on_gpu:
        with cases.case("64 LeNet-5, eager") as values:
            values.update(_profiled(bench, 2, LENET5, bench.arrays, cuda_graph=False))
        return
    digits, colours = bench.share_of(0.1), bench.random_arrays(bench.size(6_000, 256), (3, 32, 32))
    few_tests = {**digits, "test_images": digits["test_images"][:128], "test_labels": digits["test_labels"][:128]}
    for graph in (True, False):
        how = "graph" if graph else "eager"
        with cases.case(f"64 LeNet-5, {how}") as values:
            values.update(_profiled(bench, bench.size(64, 3), LENET5, few_tests, cuda_graph=graph))
        with cases.case(f"ResNet-18 bf16, {how}") as values:
            model = {"name": "cnn"} if bench.small else _RESNET
            values.update(_profiled(bench, 1, model, colours, precision="bf16", cuda_graph=graph))


def _profiled(bench: Bench, count: int, model: dict[str, Any], arrays: dict[str, Any], **how: Any) -> dict[str, Any]:
    """Kernels by their time in a short training, after one in which libraries chose their kernels."""
    bench.train(count, model, {"epochs": 1}, arrays, **how)
    activity = ProfilerActivity.CUDA if bench.on_gpu else ProfilerActivity.CPU
    started = time.perf_counter()
    with profile(activities=[activity]) as found:
        trained = bench.train(count, model, {"epochs": 3}, arrays, **how)
    seconds = time.perf_counter() - started
    events = [
        (event.self_device_time_total if bench.on_gpu else event.self_cpu_time_total, event.count, event.key)
        for event in found.key_averages()
    ]
    events = sorted((event for event in events if event[0] > 0), reverse=True)
    busy_ms = sum(time for time, _, _ in events) / 1000
    if not events:
        raise RuntimeError("the profiler saw no kernel")
    return {
        "device_ms": busy_ms, "profiled_s": seconds, "later_epoch_s": trained.epoch_s, "launches": sum(e[1] for e in events),
        "top": [f"{us / 10 / busy_ms:5.1f} % {us / calls:9.1f} us x {calls:6}  {name[:110]}" for us, calls, name in events[:_TOP]],
        **({"notes": list(trained.notes)} if trained.notes else {}),
    }  # fmt: skip
