"""Which kernels compute each layer of a stack, found by trying them on this machine; `compute.kernels=measured` asks for it.

    ways = find_ways(job, image_shape, count=8)      # takes seconds; remembered below ~/.cache/ensemble
    use(ways, stack)

A convolution of K members can be one grouped convolution in either memory layout, K convolutions one after the other, or
one batched product of matrices. Which is quickest depends on its size, on K, on the device and on the version of its
library. Each has other last bits, so what was found is stored in the plan of a run and not looked for again.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ensemble.cache import cache_folder
from ensemble.errors import ComputeError
from ensemble.models import build_model
from ensemble.native.compiling import processor
from ensemble.native.kernels import load
from ensemble.training.batch_last import known, suits, worthwhile
from ensemble.training.job import Job, Ways
from ensemble.training.layers import CONVOLUTION_WAYS, BatchPlace, StackedConv2d
from ensemble.training.placement import Placement
from ensemble.training.stack import Stack, channels_last, unstackable

_CLEARLY = 0.97  # another way than the usual one is taken where it takes at most this share of its time
_HOPELESS = 1.5  # not tried again after so many times the time of the quickest
_ROUNDS = 3  # after a first one, in which libraries make up their minds
_Step = Callable[[], None]


def find_ways(job: Job, image_shape: tuple[int, int, int], count: int) -> Ways:
    """The quickest ways for a stack of `count` members on the device that the job asks for.

    Found once per machine and kind of stack; then the same ever after. Raises ComputeError when the job wants a GPU and
    this process has none: then they cannot be tried.
    """
    if job.compute.device == "cuda" and not torch.cuda.is_available():
        raise ComputeError(
            "compute.kernels is measured, but torch sees no GPU where the run is started; expected one like those that train, to try the kernels on; use compute.kernels=auto, or start the run there"
        )
    with _settings_kept():
        placement = Placement.create(job.compute, data_parallel=False)
        file = _remembered(job, image_shape, count, placement)
        if file is not None and file.is_file():
            return Ways(**json.loads(file.read_text()))
        found = _measured(job, image_shape, count, placement)
        if file is not None:
            _remember(found, file)
    return found


def use(ways: Ways, stack: Stack) -> None:
    """Let a stack's layers compute in these ways, those that are not named in the usual one."""
    stack.batch_last = ways.batch_last
    for name, layer in stack.network.named_modules():
        if isinstance(layer, StackedConv2d):
            layer.way = ways.convolutions.get(name, CONVOLUTION_WAYS[0])


def _measured(job: Job, image_shape: tuple[int, int, int], count: int, placement: Placement) -> Ways:
    if unstackable(build_model(job.group.model, image_shape, job.num_classes)):
        count = 1
    stack = Stack.build(job.group.model, image_shape, job.num_classes, [0] * count).to(placement.device).train()
    batch = job.group.training.batch_size
    stack.seed_dropout(torch.zeros(count, dtype=torch.int64, device=placement.device))
    stack.place_dropout(BatchPlace(0, batch))
    images = torch.randn(count, batch, *image_shape, device=placement.device)
    plain = placement.device.type == "cpu" and job.compute.precision == "float32"
    by_kernels = plain and known(stack.network) and load() is not None and worthwhile(batch)
    # What is quickest alone need not be so in company: whole networks have the last word, by the rule comes first.
    found = [Ways(False, {}), Ways(False, _quickest_convolutions(stack, images, placement))]
    if by_kernels:
        found.insert(0 if suits(stack.network) else 2, Ways(True, {}))

    def step(ways: Ways) -> _Step:
        return lambda: _whole(ways, stack, images, placement)

    quickest = _quickest({str(number): step(ways) for number, ways in enumerate(found)}, placement)
    return found[int(quickest)]


def _quickest_convolutions(stack: Stack, images: Tensor, placement: Placement) -> dict[str, str]:
    """Names of the convolutions that another than the usual way computes more quickly, with that way."""
    seen: dict[str, Tensor] = {}
    layers = {name: layer for name, layer in stack.network.named_modules() if isinstance(layer, StackedConv2d)}
    hooks = [
        layer.register_forward_hook(lambda _layer, given, _y, name=name: seen.update({name: given[0].detach()}))
        for name, layer in layers.items()
    ]
    with torch.no_grad(), placement.autocast():
        stack(images)
    for hook in hooks:
        hook.remove()
    found: dict[tuple[object, ...], str] = {}  # like layers are tried once
    for name, layer in layers.items():
        x = seen.pop(name)
        kind = (tuple(x.shape), tuple(layer.weight.shape), layer.stride, layer.padding, layer.dilation, layer.groups)
        if kind not in found:
            found[kind] = _quickest_of(layer, x, name != next(iter(layers)), placement)
        layer.way = found[kind]
    return {name: layer.way for name, layer in layers.items() if layer.way != CONVOLUTION_WAYS[0]}


def _quickest_of(layer: StackedConv2d, x: Tensor, inputs: bool, placement: Placement) -> str:
    """The way of one layer. inputs: what comes in needs a gradient, as in every layer but the first."""
    x = channels_last(x).requires_grad_(inputs)
    with placement.autocast():
        dy = torch.randn_like(layer(x).detach())

    def step(way: str) -> _Step:
        def there_and_back() -> None:
            layer.way, x.grad, layer.weight.grad = way, None, None
            with placement.autocast():
                y = layer(x)
            y.backward(dy)

        return there_and_back

    found = _quickest({way: step(way) for way in layer.possible_ways()}, placement)
    layer.zero_grad()
    return found


def _whole(ways: Ways, stack: Stack, images: Tensor, placement: Placement) -> None:
    use(ways, stack)
    stack.zero_grad()
    with placement.autocast():
        logits_BKC = stack(images)
    logits_BKC.float().sum().backward()


def _quickest(steps: dict[str, _Step], placement: Placement) -> str:
    """The step that takes the least time; the first one unless another is clearly quicker. They take turns."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 + _ROUNDS):
        for name, step in steps.items():
            best = min((min(times) for times in spent.values() if times), default=float("inf"))
            if not spent[name] or min(spent[name]) <= _HOPELESS * best:
                spent[name].append(_timed(step, placement))
    medians = {name: statistics.median(times[1:] or times) for name, times in spent.items()}
    usual, best_one = next(iter(steps)), min(medians, key=lambda name: medians[name])
    return best_one if medians[best_one] < _CLEARLY * medians[usual] else usual


def _timed(step: _Step, placement: Placement) -> float:
    on_gpu = placement.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started


@contextmanager
def _settings_kept() -> Iterator[None]:
    """What a placement sets for the whole process is put back: this is not where training happens."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


def _remembered(job: Job, image_shape: tuple[int, int, int], count: int, placement: Placement) -> Path | None:
    """The file for what is found, named after all that it may depend on; None where nothing can be kept."""
    device = torch.cuda.get_device_name() if placement.device.type == "cuda" else processor()
    facts = [
        device, torch.__version__, job.compute.threads_per_task, job.compute.precision, job.compute.deterministic,
        job.group.model.model_dump(mode="json"), job.group.training.batch_size, list(image_shape), job.num_classes, count,
    ]  # fmt: skip
    try:
        folder = cache_folder() / "ways"
    except RuntimeError:
        return None
    return folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.json"


def _remember(found: Ways, file: Path) -> None:
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(asdict(found)) + "\n")
        scratch.replace(file)  # in one step: processes may measure at the same time
    except OSError:  # then it is measured again the next time
        with suppress(OSError):
            scratch.unlink()
