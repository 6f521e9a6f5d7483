"""LeNet-5, batch 128: milliseconds per member-epoch of 54,000 images by stack size, precision and convolution variant.

Times are of whole epochs of the project's own loop, validation included, the median after the first. Everything but the
first two cases trains on a share of MNIST, scaled up: an epoch of the whole set would take minutes in all.
"""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.bench import LENET5, Bench
from benchmarks.gpu.cases import Cases
from benchmarks.gpu.convolutions import MOST_APART
from ensemble.models.lenet import LeNet5Config
from ensemble.training.layers import CONVOLUTION_WAYS, StackedConv2d
from ensemble.training.stack import Stack

_SHARE = 0.25


def run(bench: Bench, cases: Cases) -> None:
    """K=64 by a graph and eagerly; then the variants, which decide the default; then the planner's table."""
    many = bench.size(64, 3)
    _case(bench, cases, "K=64 graph", many, 1.0)
    _case(bench, cases, "K=64 eager", many, 1.0, cuda_graph=False)
    _case(bench, cases, "K=1 graph", 1)
    for variant, convolutions in _variants(many).items():
        _case(bench, cases, f"K=64 graph {variant}", many, convolutions=convolutions)
    for precision in ("tf32", "bf16") if bench.on_gpu else ():
        _case(bench, cases, f"K=64 {precision} graph", many, precision=precision)
    _case(bench, cases, "K=64 deterministic graph", many, deterministic=True)
    _case(bench, cases, "K=1 eager", 1, cuda_graph=False)
    for count in (8, 16, 32, 128, 256) if not bench.small else (2,):
        _case(bench, cases, f"K={count} graph", count)
    for count in (8, 32, 128) if not bench.small else ():
        _case(bench, cases, f"K={count} eager", count, cuda_graph=False)


def _case(bench: Bench, cases: Cases, name: str, count: int, share: float = _SHARE, **how: Any) -> None:
    with cases.case(name) as values:
        share = 1.0 if bench.small else share
        trained = bench.train(count, LENET5, arrays=bench.share_of(share), **how)
        values.update(trained.values(share))
        bench.learned(trained)


def _variants(count: int) -> dict[str, dict[str, str]]:
    """By variant, the layers that have it, for every variant but the usual one, with all layers that have it."""
    network = Stack.build(LeNet5Config(name="lenet5"), (1, 28, 28), 10, [0] * count).network
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, StackedConv2d)}
    found = {
        variant: {name: variant for name, layer in layers.items() if variant in layer.possible_ways()}
        for variant in CONVOLUTION_WAYS[1:]
    }
    if count > MOST_APART:
        found.pop("apart", None)
    return {variant: layers_with for variant, layers_with in found.items() if layers_with}
