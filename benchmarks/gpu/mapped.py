"""Networks whose layers have no K-fold form: one by one, and as one by torch.func."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.cases import Cases

_SHUFFLENET: dict[str, Any] = {"name": "torchvision", "architecture": "shufflenet_v2_x0_5"}


def run(bench: Bench, cases: Cases) -> None:
    """ShuffleNet of half the width on random images of 3x32x32: a member alone, and 8 and 32 as one."""
    arrays = bench.random_arrays(bench.size(20_000, 128), (3, 32, 32))
    for count in (1, 8, 32) if not bench.small else (1, 2):
        with cases.case(f"K={count}") as values:
            values.update(bench.train(count, _SHUFFLENET, {}, arrays).values())
