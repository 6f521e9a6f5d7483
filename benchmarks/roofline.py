"""Where a training step of a network goes, layer by layer, against what the processor could do at best.

    ENSEMBLE_DATA=FOLDER OMP_NUM_THREADS=1 python -m benchmarks.roofline [--networks lenet5,narrow,cnn,resnet18,mlp] [--batch 64] [--repeats 30]
        [--out docs/results/roofline.md]

What is measured is said in the page that it writes. Needs MNIST.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from benchmarks.mnist import load_mnist
from benchmarks.speed import matmul_rate
from benchmarks.stack_speeds import stepper
from ensemble.config import parse_experiment
from ensemble.native.kernels import Kernels, Layer, Passes, load
from ensemble.run.environment import describe_environment
from ensemble.training import batch_last
from ensemble.training.stack import Stack

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = (
    "A layer's arithmetic is its multiply-adds: forward, for the gradient of its weights, and for that of its input, which the first layer "
    "is not asked for. The floor is that number over the rate of one large matrix product, a share the floor over the time that is taken; it may be above 1 where "
    "our kernels multiply more quickly than that product, or, behind maxima, do not multiply what counts for nothing. Bytes are what a layer reads and writes at least "
    "once: input, weights and result. Layers are timed by themselves and for one member, so that what they touch is in the caches as far as it fits there; steps, of one "
    "member and of a stack, in the training loop. What a step takes beyond its layers is gathering the batch, loss, optimiser, PyTorch's dispatch and Python. Memory is the "
    "most that a process holds in three steps beyond what it held before, with libraries and data: for one member, and what each further member of a stack adds to it."
)
STACK = 8
TITLES = {
    "lenet5": "LeNet-5", "narrow": "The network of 7,753 parameters", "cnn": "CNN 32-64",
    "resnet18": "ResNet-18, 16 to 128 maps, small stem", "mlp": "MLP",
}  # fmt: skip
IMAGE, CLASSES = (1, 28, 28), 10


@dataclass(frozen=True)
class Row:
    """A layer of one member. Times in seconds; forward multiply-adds and bytes of a whole batch."""

    name: str
    forward: int
    bytes: int
    forward_s: float
    backward_s: float
    with_input: bool  # the gradient of its input is wanted too

    @property
    def arithmetic(self) -> int:
        """Multiply-adds of a step."""
        return self.forward * (3 if self.with_input else 2)


def networks() -> dict[str, dict[str, Any]]:
    """The model sections by the names of `--networks`."""
    narrow = yaml.safe_load((ROOT / "configs/seeds/tiny_phase4.yaml").read_text())["model"]
    return {
        "lenet5": {"name": "lenet5"},
        "narrow": {key: tuple(value) if isinstance(value, list) else value for key, value in narrow.items()},
        "cnn": {"name": "cnn", "widths": (32, 64)},
        "resnet18": {"name": "resnet18", "stem": "small", "width": 0.25},
        "mlp": {"name": "mlp"},
    }


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median."""
    found = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found[2:])


def native_rows(network: nn.Module, batch: int, kernels: Kernels, repeats: int) -> Iterator[Row]:
    """The layers of a chain that the kernels in C compute, with what is computed along with each."""
    x = batch_last.turned(torch.rand(batch, *IMAGE), 1, kernels)
    first = True
    for passage in batch_last.Chain(network).passages:
        layers: list[Layer] = [layer for layer in getattr(passage, "_layers", []) if layer.kind != "flatten"]
        if not layers:
            x, _ = passage.forward(x, batch, kernels, keep=False)
            continue
        for layer in layers:
            if layer.kind == "convolution" and layer.weight is not None and layer.weight.shape[-1] == 1:
                x = x if layer.weight.shape[2] == x.shape[1] else x.reshape(1, -1, x.shape[-1])
            yield _native_row(layer, x, batch, kernels, repeats, not first)
            x, first = Passes([layer], x).forward(kernels, x, batch, keep=False)[0], False


def _native_row(layer: Layer, x: Tensor, batch: int, kernels: Kernels, repeats: int, with_input: bool) -> Row:
    passes = Passes([layer], x)
    y, room = passes.forward(kernels, x, batch, keep=True)
    dy = torch.randn_like(y) / 10
    forward_s = seconds(lambda: passes.forward(kernels, x, batch, keep=True), repeats)
    backward_s = seconds(lambda: passes.backward(kernels, x, y, room, dy, batch, with_input), repeats)
    weights = 0 if layer.weight is None else layer.weight.numel()
    work, what = 0, layer.kind.replace("_", " ")
    if layer.kind == "convolution":
        assert layer.weight is not None
        _, outs, ins, rows, columns = layer.weight.shape
        high, wide = (
            (x.shape[2] + 2 * layer.padding[0] - rows + 1, x.shape[3] + 2 * layer.padding[1] - columns + 1)
            if x.dim() == 5
            else (1, 1)
        )
        work = outs * ins * rows * columns * high * wide * batch
        what = (
            f"linear {ins} to {outs}"
            if x.dim() == 3
            else f"convolution {rows}x{columns}, {ins} to {outs}, {high}x{wide}"
        )
    if layer.kind == "convolution" and layer.size > 1:
        what += f" + maxima of {layer.size}x{layer.size}"
    return Row(
        what + " + ReLU" * layer.relu, work, 4 * (x.numel() + weights + y.numel()), forward_s, backward_s, with_input
    )


def torch_rows(stack: Stack, batch: int, repeats: int) -> Iterator[Row]:
    """The layers of a network that PyTorch computes, each by itself."""
    seen: list[tuple[nn.Module, Tensor]] = []
    for layer in stack.network.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # its input is looked at again
    handles = [
        layer.register_forward_hook(lambda layer, given, _result: seen.append((layer, given[0].detach())))
        for layer in stack.network.modules()
        if not list(layer.children())
    ]
    images = torch.rand(batch, *IMAGE).contiguous(memory_format=torch.channels_last)
    stack.train()
    stack(images)
    for handle in handles:
        handle.remove()
    for place, (layer, x) in enumerate(seen):
        with_input = place > 0
        y = layer(x.requires_grad_(with_input))
        if not y.requires_grad:
            continue
        wanted = [*layer.parameters(), *([x] if with_input else [])]
        dy = torch.randn_like(y) / 10

        def back(layer: nn.Module = layer, x: Tensor = x, dy: Tensor = dy, wanted: list[Any] = wanted) -> None:
            torch.autograd.grad(layer(x), wanted, dy)

        with torch.no_grad():
            forward_s = seconds(lambda layer=layer, x=x: layer(x), repeats)  # type: ignore[misc]
        both_s = seconds(back, repeats)
        weights = [parameter for parameter in layer.parameters() if parameter.dim() > 1]
        work = 0
        if weights and "Norm" not in type(layer).__name__:
            places = y[0, 0].numel() if isinstance(y, Tensor) and y.dim() == 4 else 1
            work = sum(weight.numel() for weight in weights) * places * batch
        kind = type(layer).__name__.removeprefix("Stacked")
        size = sum(parameter.numel() for parameter in layer.parameters())
        what = f"{kind}, {'x'.join(map(str, x.shape[1:]))} to {'x'.join(map(str, y.shape[1:]))}"
        yield Row(what, work, 4 * (x.numel() + size + y.numel()), forward_s, max(both_s - forward_s, 0.0), with_input)


def together(rows: Sequence[Row]) -> list[Row]:
    """Layers of one kind and shape as one row."""
    alike: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.name, row.with_input), []).append(row)
    return [
        Row(
            f"{len(those)} of: {name}" if len(those) > 1 else name,
            sum(row.forward for row in those),
            sum(row.bytes for row in those),
            sum(row.forward_s for row in those),
            sum(row.backward_s for row in those),
            with_input,
        )
        for (name, with_input), those in alike.items()
    ]


def measured(name: str, model: dict[str, Any], batch: int, repeats: int) -> list[str]:
    """A network's section of the page."""
    experiment = parse_experiment({"name": "r", "num_members": 1, "method": {"name": "deep_ensemble"}, "model": model})
    stack = Stack.build(experiment.groups[0].model, IMAGE, CLASSES, [0])
    kernels = load()
    several = Stack.build(experiment.groups[0].model, IMAGE, CLASSES, [0, 1])
    native = kernels is not None and batch_last.suits(several.network)
    how = "kernels in C" if native else "PyTorch"
    if native and not batch_last.suits(stack.network):
        how = "kernels in C, a member alone by PyTorch"
    rate = matmul_rate()
    if native:
        assert kernels is not None
        rows = together(list(native_rows(stack.network, batch, kernels, repeats)))
    else:
        rows = together(list(torch_rows(stack, batch, repeats)))
    steps = {count: step_s(model, count, batch, repeats) for count in (1, STACK)}
    rate = max(rate, matmul_rate())
    floor = sum(row.arithmetic for row in rows) / rate
    layers = sum(row.forward_s + row.backward_s for row in rows)
    lines = [
        f"## {TITLES[name]}", "",
        f"{sum(parameter.numel() for parameter in stack.parameters()):,} parameters, batches of {batch}, {how}; one large product: {rate / 1e9:.1f} billion multiply-adds a second.",
        "",
        "| layer | million multiply-adds | MB | forward, us | backward, us | of the step's layers | share of the floor |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in rows:
        spent = row.forward_s + row.backward_s
        share = f"{row.arithmetic / rate / spent:.2f}" if row.arithmetic else "-"
        lines.append(
            f"| {row.name} | {row.arithmetic / 1e6:.1f} | {row.bytes / 1e6:.2f} | {row.forward_s * 1e6:.0f} | {row.backward_s * 1e6:.0f} | {spent / layers:.0%} | {share} |"
        )
    alone, each = steps[1], steps[STACK] / STACK
    lines += [
        "",
        f"The floor of a member's step is {floor * 1e6:.0f} us, its layers by themselves take {layers * 1e6:.0f} ({floor / layers:.2f}). In the loop a step takes {alone * 1e6:.0f} us alone ({floor / alone:.2f} of it the floor) and {each * 1e6:.0f} us per member of a stack of {STACK} ({floor / each:.2f}).",
        "",
        in_memory(name, batch, sum(parameter.numel() for parameter in stack.parameters())),
        "",
    ]
    return lines


def step_s(model: dict[str, Any], count: int, batch: int, repeats: int) -> float:
    """Seconds of a whole training step of a stack, a median."""
    step = stepper(model, count, batch, "cpu")
    for _ in range(5):
        step()
    return statistics.median(step() for _ in range(4 * repeats))


def in_memory(name: str, batch: int, parameters: int) -> str:
    """What members take in training, in words."""
    taken = {
        count: int(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.roofline", "--batch", str(batch), "--memory", name, str(count)],
                capture_output=True, text=True, check=True,
            ).stdout.splitlines()[-1]
        )
        for count in (1, 1 + STACK)
    }  # fmt: skip
    each = (taken[1 + STACK] - taken[1]) / STACK
    return f"In memory one member takes {taken[1] / 1e6:.1f} MB in training, and each one more in its stack {each / 1e6:.1f}; {16 * parameters / 1e6:.1f} of it are weights, gradients and Adam's means."


def taken_by(model: dict[str, Any], count: int, batch: int) -> int:
    """Bytes of this process's own that steps of a stack take at most, beyond what it held before."""
    load(), load_mnist()
    before = _held("RssAnon")
    Path("/proc/self/clear_refs").write_text("5")  # the most begins anew
    step = stepper(model, count, batch, "cpu")
    for _ in range(3):
        step()
    return _held("VmHWM") - _held("RssFile") - _held("RssShmem") - before


def _held(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """All networks in turn; prints the page and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(networks()))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        print(taken_by(networks()[given.memory[0]], int(given.memory[1]), given.batch))
        return
    torch.set_flush_denormal(True)
    facts: dict[str, Any] = describe_environment()
    lines = [
        "# Where a training step goes", "",
        f"`python -m benchmarks.roofline`: one thread, {facts['processor']}, Python {facts['python']}, torch {facts['packages']['torch']}; medians.", "",
        EXPLAINED, "",
    ]  # fmt: skip
    for name in given.networks.split(","):
        lines += measured(name, networks()[name], given.batch, given.repeats)
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
