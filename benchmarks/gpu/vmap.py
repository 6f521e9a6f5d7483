"""The other way to train many networks at once in PyTorch: torch.func.vmap over stacked parameters, beside our stack.

The same networks, batches, losses and optimiser (fused Adam), images resident on the device; per step one gather, one
vmapped gradient and one optimiser step. It gets whatever helps it: a CUDA graph of the whole step, and torch.compile.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from benchmarks.gpu.bench import LENET5, RECIPE, Bench
from benchmarks.gpu.cases import Cases
from benchmarks.gpu.timing import graphed
from ensemble.models import build_model
from ensemble.models.lenet import LeNet5Config


def run(bench: Bench, cases: Cases) -> None:
    """Ours, then vmap eagerly, as a CUDA graph, and compiled (last, since compiling may take the rest of the time)."""
    count = bench.size(64, 3)
    with cases.case("ours") as values:
        trained = bench.train(count, LENET5)
        values.update(trained.values())
        bench.learned(trained)
    for name, compiled, graph in (("eager", False, False), ("graph", False, True), ("compiled, graph", True, True)):
        if bench.on_gpu or not (compiled or graph):
            with cases.case(f"vmap {name}") as values:
                values.update(_epoch(bench, count, compiled, graph))


class Vmapped:
    """K LeNet-5 trained by vmap. rows_KB: where a step reads which images are its batch."""

    def __init__(self, bench: Bench, count: int, compiled: bool) -> None:
        arrays, device = bench.arrays, bench.device
        self.images = torch.from_numpy(arrays["train_images"]).to(device)
        self.labels = torch.from_numpy(arrays["train_labels"]).long().to(device)
        self.rows = int(arrays["validation_rows"][0])
        shape = (self.images.shape[1], self.images.shape[2], self.images.shape[3])
        networks = [build_model(LeNet5Config(name="lenet5"), shape, 10).to(device) for _ in range(count)]
        self.parameters, _ = stack_module_state(networks)  # type: ignore[arg-type]
        skeleton = copy.deepcopy(networks[0]).to("meta")

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(skeleton, parameters, (x,)), y)

        gradients: Callable[..., Any] = vmap(grad_and_value(loss))
        self.gradients = torch.compile(gradients) if compiled else gradients
        self.optimizer = torch.optim.Adam(
            list(self.parameters.values()), RECIPE["lr"], fused=True, capturable=bench.on_gpu
        )  # fmt: skip
        self.rows_KB = torch.zeros((count, RECIPE["batch_size"]), dtype=torch.int64, device=device)
        self.losses_K = torch.zeros(count, device=device)

    def step(self) -> None:
        """One step of all members on the batch at rows_KB."""
        x = self.images[self.rows_KB].float().sub_(0.1307 * 255).div_(0.3081 * 255)
        values = {name: parameter.detach() for name, parameter in self.parameters.items()}
        found, losses_K = self.gradients(values, x, self.labels[self.rows_KB])
        for name, parameter in self.parameters.items():
            parameter.grad = found[name]
        self.optimizer.step()
        self.losses_K.copy_(losses_K)

    def order(self) -> Tensor:
        """A new order of the rows for every member, [K, steps * batch]; an incomplete last batch is left out."""
        count, batch = self.rows_KB.shape
        whole = self.rows // batch * batch
        keys = torch.rand((count, self.rows), device=self.images.device)
        return keys.argsort(1)[:, :whole]


def _epoch(bench: Bench, count: int, compiled: bool, graph: bool) -> dict[str, Any]:
    """Milliseconds per member of one epoch after some steps that do not count."""
    started = time.perf_counter()
    peer = Vmapped(bench, count, compiled)
    batches = peer.order().split(RECIPE["batch_size"], 1)
    peer.rows_KB.copy_(batches[0])
    for _ in range(bench.size(5, 1)):
        peer.step()
    step = graphed(peer.step) if graph else peer.step
    step()
    _wait(bench)
    ready_s, started = time.perf_counter() - started, time.perf_counter()
    for rows_KB in batches:
        peer.rows_KB.copy_(rows_KB)
        step()
    _wait(bench)
    seconds = time.perf_counter() - started
    scale = peer.rows / (len(batches) * RECIPE["batch_size"])
    return {
        "ms_per_member_epoch": 1000 * seconds * scale / count, "ready_s": ready_s,
        "last_batch_loss": float(peer.losses_K.mean()),
    }  # fmt: skip


def _wait(bench: Bench) -> None:
    if bench.on_gpu:
        torch.cuda.synchronize()
