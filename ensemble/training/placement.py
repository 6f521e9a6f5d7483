"""Where a stack trains: device, precision and data-parallel wrapping, all by Hugging Face Accelerate.

    placement = Placement.create(compute)          # one process, one device
    model = placement.prepare(model)
    with placement.autocast(): loss = ...
    placement.backward(loss)

In a launched world (torchrun, accelerate launch) members that are shared out over the ranks must not be wrapped, or
the gradients of different members would be averaged; `data_parallel=True` wraps, so that all ranks train one stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.outside.foreign_variables import ACCELERATE, LAUNCHER, set_variables, without_variables
from ensemble.training.job import NO_GPU
from ensemble.training.layers import StackedBatchNorm
from ensemble.training.memory import keep_freed_memory

with without_variables(*ACCELERATE):  # it reads some of them while it is imported
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState


@dataclass(frozen=True)
class Placement:
    """One accelerator and how this process shares it."""

    accelerator: Any
    device: torch.device  # kept, since the accelerator forgets its own as soon as there is a later one
    data_parallel: bool = False
    # Variables that would overrule the configuration, such as a number of accumulated steps, and those of a launcher whose
    # world this process has not entered.
    foreign: tuple[str, ...] = ()

    @classmethod
    def create(cls, compute: ComputeConfig, data_parallel: bool | None = None) -> Placement:
        """Set threads, precision and determinism for this process and take its device.

        data_parallel: instead of what compute.parallel and compute.gpus_per_task say. Raises ComputeError when a GPU is asked for and none is visible.
        """
        if data_parallel is None:
            data_parallel = compute.parallel == "data" or compute.gpus_per_task > 1
        cuda = torch.cuda.is_available()
        if compute.device == "cuda" and not cuda:
            raise ComputeError(NO_GPU)
        torch.set_num_threads(compute.threads_per_task)
        torch.set_flush_denormal(True)
        on_gpu = cuda and compute.device != "cpu"
        if not on_gpu:
            keep_freed_memory()
        tf32 = compute.precision == "tf32"
        if on_gpu:
            if tf32 and torch.cuda.get_device_capability() < (8, 0):
                raise ComputeError(
                    f"compute.precision is tf32, which {torch.cuda.get_device_name()} does not have (compute capability 8.0 or later does); use float32"
                )
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32
            torch.backends.cudnn.deterministic = compute.deterministic
            torch.backends.cudnn.benchmark = not compute.deterministic
        # A worker process trains one task after another; the singletons of the last one would refuse another precision.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        GradientState._reset_state()
        mixed = compute.precision if compute.precision == "bf16" else "no"
        hidden = () if torch.distributed.is_initialized() else LAUNCHER
        foreign = tuple(set_variables(*ACCELERATE, *hidden))
        with without_variables(*foreign):
            accelerator = Accelerator(cpu=not on_gpu, mixed_precision=mixed)
        return cls(accelerator, accelerator.device, data_parallel, foreign)

    @property
    def device_name(self) -> str:
        """The device as people know it: "cpu", or the number and the name of a GPU, "cuda:1 NVIDIA H100"."""
        device = self.device
        if device.type != "cuda":
            return str(device)
        index = torch.cuda.current_device() if device.index is None else device.index
        return f"cuda:{index} {torch.cuda.get_device_name(index)}"

    @property
    def memory_bytes(self) -> int:
        """All memory of the GPU."""
        return int(torch.cuda.get_device_properties(self.device).total_memory)

    @property
    def ranks(self) -> int:
        """Processes that share each batch; 1 unless data-parallel."""
        return int(self.accelerator.num_processes) if self.data_parallel else 1

    def prepare(self, model: torch.nn.Module) -> Any:
        """The model on the device, wrapped for precision and (only if data-parallel) gradient averaging.

        The optimiser needs no wrapper: Accelerate's is for gradient scaling and accumulation, and costs a LeNet-5 up
        to a tenth of its step. That the model is to be moved is said, since Accelerate would otherwise look for
        distributed tensors in it, which imports them and sympy: more than a second of every process that trains.
        """
        for layer in model.modules():
            if isinstance(layer, StackedBatchNorm):
                layer.synchronized = self.ranks > 1
        with self._configuration_alone():
            return self.accelerator.prepare_model(model, device_placement=True, evaluation_mode=self.ranks == 1)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        if self.foreign:
            return self._autocast_alone()
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    @contextmanager
    def _autocast_alone(self) -> Iterator[None]:
        with ExitStack() as inner:
            with self._configuration_alone():  # Accelerate reads the environment when its context is entered
                inner.enter_context(self.accelerator.autocast())
            yield

    def adding_up(self, model: Any, last: bool) -> AbstractContextManager[Any]:
        """The context of one of several passes whose gradients are added: ranks that share a batch average them in the last one."""
        if last or self.ranks == 1:
            return nullcontext()
        context: AbstractContextManager[Any] = self.accelerator.no_sync(model)
        return context

    def backward(self, loss: Tensor) -> None:
        """Backward pass of this rank's share of a loss: gradients become those of the sum over the ranks."""
        with self._configuration_alone():
            self.accelerator.backward(loss if self.ranks == 1 else loss * self.ranks)  # which takes their mean

    @property
    def part(self) -> slice:
        """Which samples of a batch are this rank's: every `ranks`-th one."""
        return slice(int(self.accelerator.process_index), None, self.ranks) if self.ranks > 1 else slice(None)

    def share(self, batch_KB: Tensor) -> Tensor:
        """This rank's part of a batch along its last axis."""
        return batch_KB[:, self.part]

    @property
    def writes(self) -> bool:
        """True for the one of several ranks that share each batch whose checkpoints count."""
        return self.ranks == 1 or bool(self.accelerator.is_main_process)

    def of_first_rank(self, values: list[float]) -> list[float]:
        """The first rank's numbers on every rank, so that decisions which rest on them cannot part the ranks."""
        if self.ranks == 1:
            return values
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(numbers, 0)
        return [float(number) for number in numbers.tolist()]

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks that share a batch."""
        if self.ranks == 1:
            return tensor
        with self._configuration_alone():
            summed: Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return summed

    def _configuration_alone(self) -> AbstractContextManager[None]:
        """Inside, Accelerate, which reads the environment at every call, sees nothing that overrules the configuration."""
        return without_variables(*self.foreign) if self.foreign else nullcontext()
