"""Every convolution variant, layer by layer: milliseconds forward and backward, and how far it is from the usual one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.cases import Cases
from benchmarks.gpu.timing import graphed, milliseconds
from ensemble.training.layers import CONVOLUTION_WAYS, StackedConv2d
from ensemble.training.stack import channels_last


@dataclass(frozen=True)
class Layer:
    """K convolutions of stride 1 on batches of square images. first: its input needs no gradient."""

    members: int
    batch: int
    inputs: int
    outputs: int
    side: int
    kernel: int
    padding: int
    first: bool = False

    @property
    def gflop(self) -> float:
        """Forward and backward, additions and multiplications."""
        after = self.side + 2 * self.padding - self.kernel + 1
        products = self.members * self.batch * after**2 * self.outputs * self.inputs * self.kernel**2
        return 2 * products * (2 if self.first else 3) / 1e9


# LeNet-5's come first: they decide the default for narrow networks.
LAYERS = {
    "lenet5 second K=64": Layer(64, 128, 6, 16, 14, 5, 0),
    "lenet5 first K=64": Layer(64, 128, 1, 6, 28, 5, 2, first=True),
    "7,753 parameters K=64": Layer(64, 64, 10, 10, 26, 3, 0),
    "cnn second K=16": Layer(16, 128, 32, 64, 14, 3, 1),
    "lenet5 second K=8": Layer(8, 128, 6, 16, 14, 5, 0),
    "record m3 fourth K=5": Layer(5, 120, 64, 80, 22, 3, 0),
    "resnet18 64 channels K=4": Layer(4, 128, 64, 64, 32, 3, 1),
    "resnet18 512 channels K=4": Layer(4, 128, 512, 512, 4, 3, 1),
    "resnet18 64 channels K=1": Layer(1, 128, 64, 64, 32, 3, 1),
}
SMALL = {"small K=3": Layer(3, 4, 2, 3, 8, 3, 1), "small first K=3": Layer(3, 4, 1, 2, 8, 5, 2, first=True)}
MOST_APART = 16  # members up to which one convolution after the other is worth a try


def run(bench: Bench, cases: Cases) -> None:
    """Per layer and precision one case: a variant's milliseconds, or why it does not work."""
    for precision in ("float32", "tf32", "bf16"):
        for name, layer in (SMALL if bench.small else LAYERS).items():
            with cases.case(f"{name} {precision}") as values:
                values["gflop"] = layer.gflop
                _measure(bench, layer, precision, values)


def _measure(bench: Bench, layer: Layer, precision: str, values: dict[str, Any]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.manual_seed(0)
    plain = [nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, padding=layer.padding) for _ in range(layer.members)]
    stacked = StackedConv2d(plain).to(bench.device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.randn(layer.batch, layer.members * layer.inputs, layer.side, layer.side, device=bench.device, dtype=dtype)
    x = channels_last(x).requires_grad_(not layer.first)
    wanted: list[Tensor] | None = None
    ms, errors = values.setdefault("ms", {}), values.setdefault("relative_error", {})
    for variant in stacked.possible_ways():
        if variant == "apart" and layer.members > MOST_APART:
            continue
        for deterministic in (False, True) if variant in CONVOLUTION_WAYS[:2] else (False,):
            name = f"{variant}, deterministic" if deterministic else variant
            stacked.way = variant
            try:
                with _cudnn(deterministic):
                    step = _step(stacked, x, dtype)
                    found = [step(), *(t.grad for t in (x, *stacked.parameters()) if t.grad is not None)]
                    found = [tensor.detach().float() for tensor in found]
                    wanted = found if wanted is None else wanted
                    errors[name] = max(float((f - w).norm() / w.norm()) for f, w in zip(found, wanted, strict=True))
                    ms[name] = milliseconds(graphed(step) if bench.on_gpu else step, bench.on_gpu)
            except RuntimeError as error:  # no kernel for this shape, out of memory: the others may still work
                ms[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    times = {name: value for name, value in ms.items() if isinstance(value, float)}
    quickest = min(times, key=lambda name: times[name])
    values.update(quickest=quickest, tflop_per_s=layer.gflop / times[quickest])


def _step(stacked: StackedConv2d, x: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    """A function that goes forward and backward, with the same gradient of the output whatever its layout."""

    def forward() -> Tensor:
        with torch.autocast(x.device.type, dtype) if dtype != torch.float32 else nullcontext():
            y: Tensor = stacked(x)
        return y

    like = forward().detach()
    draw = torch.Generator().manual_seed(1)
    dy = torch.empty_like(like).copy_(torch.randn(like.shape, generator=draw))

    def there_and_back() -> Tensor:
        x.grad = None
        stacked.zero_grad()
        y = forward()
        y.backward(dy)
        return y

    return there_and_back


@contextmanager
def _cudnn(deterministic: bool) -> Iterator[None]:
    """cuDNN's settings as `compute.deterministic` sets them."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, not deterministic
    yield
