"""Plant faults in captures, and in trainings with graphs: does the pretended runtime find each, and does all go on?

python tests/gpu/run.py --gpus 2 python tests/gpu/plant_faults.py '[["capture", "item"], ["training", "item"]]'
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from cases import answer
from gpu_log import faults, recorded
from recipes import Recipe
from small_training import train

from ensemble.events import Notice
from ensemble.types import MemberResult

CUDA = ctypes.CDLL(None)  # the runtime's own functions, for what torch never does
MIB = 1 << 20


def item(x: torch.Tensor) -> None:
    float(x.detach().sum())


def mask(x: torch.Tensor) -> None:
    _ = x.detach()[x.detach() > 0]


def upload(x: torch.Tensor) -> None:
    x.detach() + torch.tensor([1.0], device="cuda")


def generator(x: torch.Tensor) -> None:
    torch.rand(3, device="cuda", generator=torch.Generator("cuda").manual_seed(1))


def synchronize(x: torch.Tensor) -> None:
    torch.cuda.synchronize()


def outside(x: torch.Tensor) -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        x.detach().add_(1)


def unjoined(x: torch.Tensor) -> None:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        x.detach().add_(1)


def nothing(x: torch.Tensor) -> None:
    x.detach().add_(1)


def wrong_device(x: torch.Tensor) -> None:
    stream = ctypes.c_void_p(torch.cuda.Stream("cuda:1").cuda_stream)
    assert CUDA.cudaMemsetAsync(ctypes.c_void_p(x.data_ptr()), 0, ctypes.c_size_t(4), stream) != 0
    CUDA.cudaGetLastError()  # or torch would find the error later


def bad_launch(x: torch.Tensor) -> None:
    class Dim3(ctypes.Structure):
        _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]

    one, too_many = Dim3(1, 1, 1), Dim3(2048, 1, 1)
    assert CUDA.cudaLaunchKernel(ctypes.c_void_p(1), one, too_many, None, ctypes.c_size_t(0), None) != 0
    CUDA.cudaGetLastError()


def too_large(x: torch.Tensor) -> None:
    torch.empty(90_000 * MIB, dtype=torch.uint8, device="cuda")


PLANTS: dict[str, Callable[[torch.Tensor], None]] = {
    plant.__name__: plant
    for plant in (item, mask, upload, generator, synchronize, outside, unjoined, nothing, wrong_device, bad_launch, too_large)
}  # fmt: skip


def in_capture(plant: Callable[[torch.Tensor], None]) -> dict[str, Any]:
    """A capture with the fault in it; then another one without, which must go well again."""
    x, error = torch.zeros(4, device="cuda"), ""
    with recorded() as records:
        try:
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                x.add_(1)
                plant(x)
        except RuntimeError as raised:
            error = f"{raised.__context__ or ''} {raised}"
    with recorded() as later:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            x.add_(1)
        graph.replay()
    assert faults(later) == []
    return {"error": error, "faults": faults(records), "goes_on": any(r.kind == "graph launch" for r in later)}


def by_itself(plant: Callable[[torch.Tensor], None]) -> dict[str, Any]:
    """The fault outside any capture."""
    x, error = torch.zeros(4, device="cuda"), ""
    with recorded() as records:
        try:
            plant(x)
        except RuntimeError as raised:
            error = str(raised)
    return {"error": error, "faults": faults(records)}


def in_training(plant: Callable[[torch.Tensor], None]) -> dict[str, Any]:
    """The fault in the loss of a training with graphs."""
    usual = torch.nn.functional.cross_entropy

    def faulty(logits: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and logits.requires_grad:
            plant(logits)
        return usual(logits, *given, **options)

    torch.nn.functional.cross_entropy = faulty
    try:
        items = list(train(Recipe(), cuda_graph=True))
    finally:
        torch.nn.functional.cross_entropy = usual
    notices = [item.message for item in items if isinstance(item, Notice)]
    return {"notices": notices, "trained": sum(isinstance(item, MemberResult) for item in items)}


WHERE = {"capture": in_capture, "alone": by_itself, "training": in_training}


if __name__ == "__main__":
    answer(lambda where, plant: WHERE[where](PLANTS[plant]))
