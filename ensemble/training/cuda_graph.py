"""A training step as one CUDA graph: for small networks most of a step is the CPU's launching of kernels.

    graphed = GraphedStep(step, state, capture)
    for _ in range(steps):
        graphed()           # eager at first, then captured, compared with an eager step, and from then on replayed

A graph has fixed addresses and runs without the CPU. So a step that is captured takes nothing from it: the number of the
step, the learning rates, the order of the images and the keys of the random numbers lie in tensors on the GPU, and the
step counts itself on. A graph is used only after it has done to the networks, the optimiser and the sums what an eager
step does; otherwise training stays eager, and `refused` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ensemble.config.recipe import TrainingConfig
from ensemble.errors import first_line
from ensemble.training.optimizers import CAPTURABLE
from ensemble.training.placement import Placement

_EAGER_AT_FIRST = 3  # steps in which libraries choose kernels and the optimiser makes its state
_TOLERANCE = 1e-2  # a replayed step may differ from an eager one by this share of what the step changes

Step = Callable[[], None]
Capture = Callable[[Step], Step]  # makes of a step, without taking it, something that takes it


def obstacle(recipe: TrainingConfig, placement: Placement) -> str | None:
    """Why steps of this training cannot be captured; None where they can."""
    reasons = {
        "its device is no GPU": placement.device.type != "cuda",
        "several processes share each batch": placement.ranks > 1,
        f"{recipe.optimizer} has no capturable form in torch; expected {', '.join(sorted(CAPTURABLE))}": recipe.optimizer
        not in CAPTURABLE,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class StepTable:
    """What differs from step to step, where a CUDA graph can read it: one row per step of an epoch, and which is next.

    step: number of the coming step in its epoch, int64 [1]. rate, averaging: learning rate, and the share of the new
    weights in averaged ones, of the step that was read last; tensors of no axes.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        self._rows = torch.zeros((steps, 2), device=device)
        self._row = torch.zeros((1, 2), device=device)
        self.rate: Tensor = self._row[0, 0]
        self.averaging: Tensor = self._row[0, 1]
        self._multiples: dict[float, Tensor] = {}

    def rate_times(self, factor: float) -> Tensor:
        """The learning rate times a factor, as a tensor that follows it."""
        if factor == 1:
            return self.rate
        return self._multiples.setdefault(factor, torch.zeros_like(self.rate))

    def begin(self, step: int, rates: Sequence[float], averaging: Sequence[float]) -> None:
        """Take the values of an epoch, of which `step` steps are done."""
        self._rows.copy_(torch.tensor([rates, averaging]).T)
        self.step.fill_(step)

    def read(self) -> None:
        """Read the row of the coming step."""
        torch.index_select(self._rows, 0, self.step, out=self._row)
        for factor, multiple in self._multiples.items():
            torch.mul(self.rate, factor, out=multiple)


class GraphedStep:
    """Steps by a CUDA graph where one has proved right.

    step: one step, which takes all it needs from tensors that keep their places. state: all tensors that it changes.
    capture: `capture_on_gpu`, or what stands for it where there is no GPU. refused: why there will be no graph, once
    that is known.
    """

    def __init__(self, step: Step, state: Callable[[], Sequence[Tensor]], capture: Capture) -> None:
        self._step, self._state, self._capture = step, state, capture
        self._eager_left = _EAGER_AT_FIRST
        self._replay: Step | None = None
        self._stream: torch.cuda.Stream | None = None
        self.refused: str | None = None

    def __call__(self) -> None:
        """Take one step."""
        if self._replay is not None:
            self._replay()
        elif self.refused is not None:
            self._step()
        elif self._eager_left:
            self._eager_left -= 1
            self._aside(self._step)
        else:
            self._aside(self._try)

    def _try(self) -> None:
        """Take a step, by a new graph if that does what an eager step does."""
        before = [tensor.clone() for tensor in self._state()]
        self._step()
        eager = [tensor.clone() for tensor in self._state()]
        try:
            replay = self._capture(self._step)
            self._restore(before)
            replay()
            worst = max(map(_deviation, self._state(), eager, before))
        except RuntimeError as error:
            # A capture that is broken off raises once more when it ends; the first error says why.
            self.refused = f"the step cannot be captured ({first_line(error.__context__ or error)})"
        else:
            if worst <= _TOLERANCE:
                self._replay = replay
                return
            self.refused = f"a captured step strays from an eager one by {worst:.1%} of what it changes"
        self._restore(eager)

    def _restore(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(self._state(), values, strict=True):
                tensor.copy_(value)

    def _aside(self, step: Step) -> None:
        """Take a step in a stream of its own, as graphs want it of the steps before them; the same one each time."""
        if not torch.cuda.is_available():
            step()
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            step()
        torch.cuda.current_stream().wait_stream(self._stream)


def capture_on_gpu(step: Step) -> Step:
    """A CUDA graph of the step. Raises RuntimeError where something in it cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # the graph has memory of its own; what the eager steps have freed is of no use to it
    # A stream of the current device: torch keeps one for captures, on the first device that ever had one.
    with torch.cuda.graph(graph, stream=torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        step()
    replay: Step = graph.replay
    return replay


def _deviation(found: Tensor, wanted: Tensor, before: Tensor) -> float:
    """The distance between two results of a step as a share of what it changed; numbers that are none count as equal."""
    found, wanted, before = (torch.nan_to_num(t.detach().double(), 0.0, 0.0, 0.0) for t in (found, wanted, before))
    rounding = 1e-6 * wanted.norm()  # where a step changes next to nothing
    return float((found - wanted).norm() / ((wanted - before).norm() + rounding).clamp(min=1e-30))
