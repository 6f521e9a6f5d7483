"""What deformed images cost 64 LeNet-5: milliseconds per member-epoch beside the same training without."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.bench import LENET5, Bench
from benchmarks.gpu.cases import Cases

_SHARE = 0.25
_KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "rotation and shift": {"rotation_degrees": 10.0, "shift": 0.1},
    "rotation, shift and elastic": {"rotation_degrees": 10.0, "shift": 0.1, "elastic_alpha": 1.0},
}


def run(bench: Bench, cases: Cases) -> None:
    """With a CUDA graph; the affine kind eagerly too."""
    for name, augmentation in _KINDS.items():
        _case(bench, cases, f"{name}, graph", augmentation)
    _case(bench, cases, "rotation and shift, eager", _KINDS["rotation and shift"], cuda_graph=False)


def _case(bench: Bench, cases: Cases, name: str, augmentation: dict[str, Any], **how: Any) -> None:
    share = 1.0 if bench.small else _SHARE
    with cases.case(name) as values:
        training = {"augmentation": augmentation} if augmentation else {}
        trained = bench.train(bench.size(64, 3), LENET5, training, bench.share_of(share), **how)
        values.update(trained.values(share))
        bench.learned(trained)
