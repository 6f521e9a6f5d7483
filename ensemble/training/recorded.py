"""A training step recorded once and repeated: on a GPU a step of small networks is mostly the CPU's launching of kernels.

    step = RecordedStep(run.plain_step, run.tensors, record_on_gpu)
    for batch in batches:
        step(batch)         # plain at first, then recorded, compared with a plain step, and from then on repeated

A recording (a CUDA graph) has fixed addresses: inputs are copied to where it reads them, learning rates are tensors, and
nothing in it may depend on what the CPU counts. It is trusted only after it has done to the networks, the optimiser and
the sums what a plain step does with the same batch; otherwise training goes on step by step, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ensemble.config.recipe import PlateauConfig, TrainingConfig
from ensemble.training.batches import Batch
from ensemble.training.layers import StackedDropout
from ensemble.training.optimizers import FUSED
from ensemble.training.placement import Placement
from ensemble.training.stack import Stack

_PLAIN_AT_FIRST = 3  # steps in which libraries choose kernels and the optimiser makes its state
_ALIKE = 1e-2  # a recorded step may differ from a plain one by this share of what the step changes

Step = Callable[[], None]
Record = Callable[[Step], Step]  # makes of a step, without doing it, something that does it


def obstacle(recipe: TrainingConfig, stack: Stack, placement: Placement) -> str | None:
    """Why steps of this training cannot be recorded; None where they can."""
    dropout = any(isinstance(layer, StackedDropout) and layer.p > 0 for layer in stack.network.modules())
    reasons = {
        "its device is no GPU": placement.device.type != "cuda",
        "several processes share each batch": placement.ranks > 1,
        f"{recipe.optimizer} has no fused form; expected {', '.join(sorted(FUSED))}": recipe.optimizer not in FUSED,
        "its schedule gives every member a rate of its own": isinstance(recipe.schedule, PlateauConfig),
        "its averaged weights (ema_decay) count steps": recipe.ema_decay is not None,
        "dropout draws anew in every step": dropout,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def record_on_gpu(step: Step) -> Step:
    """A CUDA graph of the step. Raises RuntimeError where something in it cannot be recorded."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        step()
    replay: Step = graph.replay
    return replay


class RecordedStep:
    """Steps on batches, by a recording where one has proved right.

    step: one plain step. state: all tensors that it changes, whose places stay the same. rows: of a batch to record; the
    last one of an epoch may be smaller. refused: why there will be no recording, once that is known.
    """

    def __init__(
        self, step: Callable[[Batch], None], state: Callable[[], Sequence[Tensor]], rows: int, record: Record
    ) -> None:
        self._step, self._state, self._rows, self._record = step, state, rows, record
        self._plain_left = _PLAIN_AT_FIRST
        self._inputs: Batch | None = None
        self._replay: Step | None = None
        self.refused: str | None = None

    def __call__(self, batch: Batch) -> None:
        if self._plain_left:
            self._plain_left -= 1
            _beside(lambda: self._step(batch))
        elif self.refused is not None or batch.rows != self._rows:
            self._step(batch)
        elif self._replay is None:
            self._try(batch)
        else:
            self._put(batch)
            self._replay()

    def _put(self, batch: Batch) -> None:
        for place, given in zip(_tensors(self._inputs), _tensors(batch), strict=True):
            place.copy_(given)

    def _try(self, batch: Batch) -> None:
        """Take a step with this batch, by a new recording if it does what a plain step does."""
        inputs = self._inputs = Batch(
            batch.images.clone(), batch.labels_BK.clone(), _copied(batch.weights_BK), _copied(batch.targets_BKC),
            batch.rows, batch.batch_last,
        )  # fmt: skip
        before = [tensor.clone() for tensor in self._state()]
        self._step(batch)
        plain = [tensor.clone() for tensor in self._state()]
        try:
            replay = self._record(lambda: self._step(inputs))
            self._restore(before)
            replay()
            worst = max(map(_strayed, self._state(), plain, before))
        except RuntimeError as error:
            self.refused = f"the step cannot be recorded ({str(error).splitlines()[0]})"
        else:
            if worst <= _ALIKE:
                self._replay = replay
                return
            self.refused = f"a recorded step strays from a plain one by {worst:.1%} of what it changes"
        self._restore(plain)

    def _restore(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(self._state(), values, strict=True):
                tensor.copy_(value)


def _tensors(batch: Batch | None) -> list[Tensor]:
    assert batch is not None
    return [value for value in vars(batch).values() if isinstance(value, Tensor)]


def _copied(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


def _strayed(found: Tensor, wanted: Tensor, before: Tensor) -> float:
    """The distance between two results of a step as a share of what it changed; numbers that are none are as good as equal."""
    found, wanted, before = (torch.nan_to_num(t.detach().double(), 0.0, 0.0, 0.0) for t in (found, wanted, before))
    rounding = 1e-6 * wanted.norm()  # where a step changes next to nothing
    return float((found - wanted).norm() / ((wanted - before).norm() + rounding).clamp(min=1e-30))


def _beside(step: Step) -> None:
    """Do a step, on a GPU in a stream of its own as recordings want it of the steps before them."""
    if not torch.cuda.is_available():
        step()
        return
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
