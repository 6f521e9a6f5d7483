"""What it costs when images do not fit on a GPU and are sent batch by batch, beside the same training with all of them there."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.bench import LENET5, Bench
from benchmarks.gpu.cases import Cases
from ensemble.training import resident, stack_run

_RESNET = {"name": "resnet18", "stem": "small"}
# Share of the memory that images may take, and whether steps are graphs.
_WAYS: dict[str, tuple[float, bool]] = {
    "resident, graph": (resident.GPU_SHARE, True), "resident, eager": (resident.GPU_SHARE, False), "streamed": (0.0, False),
}  # fmt: skip


def run(bench: Bench, cases: Cases) -> None:
    """16 LeNet-5 on small images, one ResNet-18 on larger ones."""
    networks: tuple[tuple[str, dict[str, Any], int, tuple[int, int, int]], ...] = (
        ("LeNet-5 K=16", LENET5, 16, (1, 28, 28)), ("ResNet-18 K=1, 3x64x64", _RESNET, 1, (3, 64, 64)),
    )  # fmt: skip
    for name, model, count, shape in networks[:1] if bench.small else networks:
        arrays = bench.random_arrays(bench.size(20_000, 256), shape)
        for way, (share, graph) in _WAYS.items():
            with cases.case(f"{name}, {way}") as values:
                values.update(_trained(bench, bench.size(count, 2), model, arrays, share, graph))


def _trained(
    bench: Bench, count: int, model: dict[str, Any], arrays: dict[str, Any], share: float, graph: bool
) -> dict[str, Any]:
    before = stack_run.GPU_SHARE
    stack_run.GPU_SHARE = share
    try:
        return bench.train(count, model, {}, arrays, cuda_graph=graph).values()
    finally:
        stack_run.GPU_SHARE = before
