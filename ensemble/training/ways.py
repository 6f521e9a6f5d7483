"""Which kernels compute each layer of a stack, found by trying them on this machine; `compute.kernels=measured` asks for it.

    ways = find_ways(job, image_shape, count=8)      # takes seconds; remembered below ~/.cache/ensemble
    use(ways, stack)

A convolution of K members can be one grouped convolution in either memory layout, K convolutions one after the other,
batched products of matrices, or kernels of our own. Which is quickest depends on its size, on K, on the device and on the
version of its library. Each has other last bits, so what was found is stored in the plan of a run and not looked for again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from ensemble.cache import is_own, own_folder
from ensemble.errors import ComputeError
from ensemble.native.compiling import processor
from ensemble.native.kernels import load
from ensemble.outside.paths import read_regular_file
from ensemble.training.batch_last import known, suits, worthwhile
from ensemble.training.job import Job, Ways
from ensemble.training.layers import (
    CONVOLUTION_WAYS,
    BatchPlace,
    StackedBatchNorm,
    StackedConv2d,
    channels_last,
    pool_before_bias,
)
from ensemble.training.placement import Placement
from ensemble.training.stack import Stack
from ensemble.training.step_timing import Step, fastest, free_gpu_memory
from ensemble.training.suitability import largest_stack

_MOST_BYTES = 1_000_000  # of what is remembered about one kind of stack
_RENAMED = {"matmul": "windows"}  # in the plans of earlier versions


def find_ways(job: Job, image_shape: tuple[int, int, int], count: int) -> Ways:
    """The quickest ways for a stack of `count` members on the device that the job asks for.

    Found once per machine and kind of stack; then the same ever after. A way that raises is passed over; where no way can
    train the stack at all, because it is too large, the default is the answer, and training will say why it fails. Nothing
    stays on a GPU. Raises ComputeError when the job wants a GPU and this process has none: then they cannot be tried.
    """
    if job.compute.device == "cuda" and not torch.cuda.is_available():
        raise ComputeError(
            "compute.kernels is measured, but torch sees no GPU where the run is started; expected one like those that train, to try the kernels on; use compute.kernels=auto, or start the run there"
        )
    with _settings_kept():
        placement = Placement.create(job.compute, data_parallel=False)
        file = _remembered(job, image_shape, count, placement)
        if file is not None and (known_ways := _recalled(file)) is not None:
            return known_ways
        try:
            found = _measured(job, image_shape, count, placement)
        except torch.OutOfMemoryError:
            found = None
        finally:
            if placement.device.type == "cuda":
                free_gpu_memory()
        if found is None:
            return Ways(False, {})
        if file is not None:
            _remember(found, file)
    return found


def use(ways: Ways, stack: Stack) -> list[str]:
    """Let a stack's layers compute in these ways, those that are not named in the default one; on a GPU, pool before the bias.

    Returns a sentence for each layer that cannot take its way in this process; the default stands in. Raises
    ComputeError for a way that this version does not have.
    """
    stack.batch_last = ways.batch_last
    if any(parameter.is_cuda for parameter in stack.parameters()):
        pool_before_bias(stack.network)
    notices = []
    for name, layer in stack.network.named_modules():
        if isinstance(layer, StackedConv2d):
            way = _known_way(name, ways.convolutions.get(name, CONVOLUTION_WAYS[0]))
            reason = layer.reason_against(way)
            layer.way = way if reason is None else CONVOLUTION_WAYS[0]
            if way not in (layer.way, "apart"):  # one member is computed apart in any way
                notices.append(f"layer {name} is computed as {layer.way}, not as {way} as planned: {reason}")
    return notices


def choose(stack: Stack, job: Job, placement: Placement) -> list[str]:
    """Let a stack compute by the kernels of the plan; where it says nothing, by our own if they suit it, here.

    Returns sentences as `use` does.
    """
    plain = placement.device.type == "cpu" and job.compute.precision == "float32"
    plain = plain and stack.mapped is None and stack.of_images
    if placement.ranks > 1 and any(isinstance(layer, StackedBatchNorm) for layer in stack.network.modules()):
        plain = False  # those kernels see the batch of one rank
    by_rule = plain and job.compute.kernels != "torch" and _suits(stack, job)
    ways = job.ways or Ways(by_rule, {})
    return use(replace(ways, batch_last=ways.batch_last and plain and known(stack.network)), stack)


def _suits(stack: Stack, job: Job) -> bool:
    """Whether our own kernels most likely train it more quickly."""
    return suits(stack.network, job.compute.threads_per_task, job.group.training.batch_size)


def _known_way(layer: str, way: str) -> str:
    way = _RENAMED.get(way, way)
    if way not in CONVOLUTION_WAYS:
        raise ComputeError(
            f"the plan computes layer {layer} as {way!r}; expected one of {', '.join(CONVOLUTION_WAYS)}; continue this run with the version that began it, or begin a new one"
        )
    return way


def _measured(job: Job, image_shape: tuple[int, int, int], count: int, placement: Placement) -> Ways | None:
    """The fastest ways; None where the stack cannot be trained by any."""
    count = largest_stack(job.group.model, image_shape, job.num_classes, count)
    stack = Stack.build(job.group.model, image_shape, job.num_classes, [0] * count).to(placement.device).train()
    batch = job.group.training.batch_size
    stack.seed_dropout(torch.zeros(count, dtype=torch.int64, device=placement.device))
    stack.place_dropout(BatchPlace(0, batch))
    images = torch.randn(count, batch, *image_shape, device=placement.device)
    plain = placement.device.type == "cpu" and job.compute.precision == "float32"
    by_kernels = plain and known(stack.network) and load() is not None and worthwhile(batch)
    use(Ways(False, {}), stack)
    # What is quickest alone need not be so in company: whole networks have the last word, by the rule comes first.
    found = [Ways(False, {}), Ways(False, _quickest_convolutions(stack, images, placement))]
    if by_kernels:
        found.insert(0 if _suits(stack, job) else 2, Ways(True, {}))

    def step(ways: Ways) -> Step:
        return lambda: _whole(ways, stack, images, placement)

    best = fastest({str(number): step(ways) for number, ways in enumerate(found)}, placement.device)
    return None if best is None else found[int(best)]


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

    def step(way: str) -> Step:
        def there_and_back() -> None:
            layer.way = way
            with placement.autocast():
                y = layer(x)
            y.backward(dy)
            x.grad = layer.weight.grad = None

        return there_and_back

    found = fastest({way: step(way) for way in layer.possible_ways()}, placement.device)
    layer.zero_grad()
    return found or CONVOLUTION_WAYS[0]


def _whole(ways: Ways, stack: Stack, images: Tensor, placement: Placement) -> None:
    use(ways, stack)
    for layer in stack.dropout:
        layer.calls = 0
    with placement.autocast():
        logits_BKC = stack(images)
    logits_BKC.float().sum().backward()
    stack.zero_grad()


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
        device, torch.__version__, CONVOLUTION_WAYS, job.compute.threads_per_task, job.compute.precision, job.compute.deterministic,
        job.group.model.model_dump(mode="json"), job.group.training.batch_size, list(image_shape), job.num_classes, count,
    ]  # fmt: skip
    try:
        folder = own_folder("ways")
    except (RuntimeError, OSError):  # no home folder, or one that cannot be written: measured anew each time
        return None
    return folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.json"


def _recalled(file: Path) -> Ways | None:
    """What was found before; None where nothing is kept, or where it is damaged, and for a file of somebody else's."""
    try:
        kept = json.loads(read_regular_file(file, _MOST_BYTES)) if is_own(file) else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(kept, dict) or kept.keys() != {"batch_last", "convolutions"}:
        return None
    batch_last, convolutions = kept["batch_last"], kept["convolutions"]
    if not isinstance(batch_last, bool) or not isinstance(convolutions, dict):
        return None
    if not all(way in CONVOLUTION_WAYS for way in convolutions.values()):
        return None
    return Ways(batch_last, convolutions)


def _remember(found: Ways, file: Path) -> None:
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(asdict(found)) + "\n")
        scratch.chmod(0o600)  # or a loose umask would make it a file that others may write, which is not read again
        scratch.replace(file)  # in one step: processes may measure at the same time
    except OSError:  # then it is measured again the next time
        with suppress(OSError):
            scratch.unlink()
