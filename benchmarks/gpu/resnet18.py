"""ResNet-18 with the small stem in bf16 on images of CIFAR-10's size: ours, and the loop one would write by hand.

The hand-written loop has every usual trick: images resident on the device, channels last, autocast, fused Adam, and
torch.compile with and without CUDA graphs. Images are random: times do not depend on what is in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.bench import RECIPE, Bench
from benchmarks.gpu.cases import Cases
from ensemble.models import build_model
from ensemble.models.cnn import CnnConfig
from ensemble.models.resnet import ResNetConfig

SHAPE = (3, 32, 32)


def run(bench: Bench, cases: Cases) -> None:
    """Seconds per epoch of 50,000 images; compiled loops last, since compiling may take the rest of the time."""
    arrays = bench.random_arrays(bench.size(50_000, 256), SHAPE)
    _ours(bench, cases, arrays, "ours K=1 graph", 1)
    _plain(bench, cases, arrays, "plain eager", None)
    _ours(bench, cases, arrays, "ours K=1 eager", 1, cuda_graph=False)
    _ours(bench, cases, arrays, "ours K=2 graph", 2)
    if bench.on_gpu:
        _plain(bench, cases, arrays, "plain compiled", "default")
        _plain(bench, cases, arrays, "plain compiled, CUDA graphs", "reduce-overhead")


def _ours(bench: Bench, cases: Cases, arrays: dict[str, Any], name: str, count: int, **how: Any) -> None:
    model = {"name": "cnn", "widths": (8,)} if bench.small else {"name": "resnet18", "stem": "small"}
    with cases.case(name) as values:
        precision = "bf16" if bench.on_gpu else "float32"
        trained = bench.train(count, model, arrays=arrays, precision=precision, **how)
        found = trained.values()
        del found["mean_test_error"]  # of random labels
        values.update(s_per_epoch=trained.epoch_s / count, **found)


def _plain(bench: Bench, cases: Cases, arrays: dict[str, Any], name: str, mode: str | None) -> None:
    with cases.case(name) as values:
        started = time.perf_counter()
        step, batches = _loop(bench, arrays, mode)
        for rows in batches[: bench.size(15, 1)]:
            step(rows)
        _wait(bench)
        values["ready_s"] = time.perf_counter() - started
        started = time.perf_counter()
        for rows in batches:
            step(rows)
        _wait(bench)
        values["s_per_epoch"] = time.perf_counter() - started
        if bench.on_gpu:
            values["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30


def _loop(bench: Bench, arrays: dict[str, Any], mode: str | None) -> tuple[Callable[[Tensor], None], list[Tensor]]:
    """One training step on the rows of a batch, and the batches of an epoch. mode: of torch.compile, None without."""
    device = bench.device
    if bench.on_gpu:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False
        torch.cuda.reset_peak_memory_stats()
    images, labels = (torch.from_numpy(arrays[name]).to(device) for name in ("train_images", "train_labels"))
    config = CnnConfig(name="cnn", widths=(8,)) if bench.small else ResNetConfig(name="resnet18", stem="small")
    network: nn.Module = build_model(config, SHAPE, 10).to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), RECIPE["lr"], fused=True)
    forward: Callable[[Tensor], Tensor] = network if mode is None else torch.compile(network, mode=mode)

    def step(rows: Tensor) -> None:
        x = images[rows].float().div_(255).sub_(0.5).div_(0.25).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16) if bench.on_gpu else nullcontext():
            loss = F.cross_entropy(forward(x), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    count = int(arrays["validation_rows"][0])
    return step, list(torch.randperm(count, device=device).split(RECIPE["batch_size"]))


def _wait(bench: Bench) -> None:
    if bench.on_gpu:
        torch.cuda.synchronize()
