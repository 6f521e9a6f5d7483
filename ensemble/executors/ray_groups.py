"""One stack over several GPUs: `compute.gpus_per_task` above 1 on a Ray cluster.

Each task is one Ray Train job: Ray places a group of workers, one per GPU, and joins them to a process group; inside,
Accelerate averages the gradients of the parts of every batch. What rank 0 yields travels back through a queue, so the
workers need no path in common with the driver. Several tasks train at a time where the cluster holds several groups.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import ray

from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError, EnsembleError
from ensemble.executors import interruption
from ensemble.executors.base import Arrays, Collector, Emit, Outcome, Train, is_out_of_memory
from ensemble.executors.ray_tasks import connect, disconnect
from ensemble.types import FailureKind, Task

_POLL_S = 0.2


class RayGroupExecutor:
    """Groups of `workers` processes, each group training one task at a time.

    workers: processes per group, by default one per GPU of compute.gpus_per_task. Raises ComputeError when Ray Train is
    not installed or the cluster cannot hold one group.
    """

    name = "ray"

    def __init__(self, compute: ComputeConfig, device: str, workers: int | None = None) -> None:
        try:
            import ray.train
        except ImportError as error:
            raise ComputeError(
                f"compute.gpus_per_task is {compute.gpus_per_task:g} and needs Ray Train: pip install 'ray[train]', or set it to 1 ({error})"
            ) from error
        self._workers = workers or int(compute.gpus_per_task)
        self._threads, self._on_gpu = compute.threads_per_task, device == "cuda"
        self._owns = connect(compute.ray_address)
        resource, each = ("GPU", 1) if self._on_gpu else ("CPU", self._threads)
        there = ray.cluster_resources().get(resource, 0)
        # One CPU per group is Ray Train's own, where workers take CPUs.
        fits = int(there // (self._workers * each + (not self._on_gpu)))
        if fits == 0:
            self.close()
            raise ComputeError(
                f"no room for one task of {self._workers} workers with {each} {resource} each; the cluster has {there:g} {resource}s; lower compute.gpus_per_task"
            )
        self.slots = min(fits, compute.slots or fits)

    def run(self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit) -> Iterator[Outcome]:
        """See Executor.run. A group that breaks fails its task as a crash; the tries are the run's."""
        with interruption.deferred(), tempfile.TemporaryDirectory(prefix="ensemble-train-") as storage:
            yield from self._run(tasks, train, arrays, emit, storage)

    def _run(self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, storage: str) -> Iterator[Outcome]:
        from ray.util.queue import Queue

        mail = Queue(actor_options={"num_cpus": 0})
        names, shared, call = list(arrays), [ray.put(array) for array in arrays.values()], ray.put(train)
        waiting, running = deque(tasks), dict[str, _Group]()
        try:
            while waiting or running:
                interruption.check()
                while waiting and len(running) < self.slots:
                    task = waiting.popleft()
                    given = {"mail": mail, "train": call, "task": ray.put(task), "names": names, "arrays": shared}
                    running[task.id] = _Group(Collector(task, emit), self._trainer(given, storage))
                while not mail.empty():
                    name, item = mail.get()
                    if name in running:
                        running[name].collector.take(item)
                for name in [name for name, group in running.items() if group.ended.is_set() and mail.empty()]:
                    yield running.pop(name).outcome()
                time.sleep(_POLL_S)
        finally:
            mail.shutdown(force=True)

    def _trainer(self, given: dict[str, Any], storage: str) -> Any:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        return TorchTrainer(
            _train_in_group,
            train_loop_config=given,
            torch_config=TorchConfig(backend="nccl" if self._on_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=self._workers,
                use_gpu=self._on_gpu,
                resources_per_worker={"CPU": self._threads, **({"GPU": 1} if self._on_gpu else {})},
            ),
            run_config=RunConfig(storage_path=storage),
        )

    def close(self) -> None:
        """Stop the local cluster, or leave the one that was there."""
        if self._owns and ray.is_initialized():
            disconnect()


class _Group:
    """One task under way, watched by a thread, because Ray Train's `fit` blocks."""

    def __init__(self, collector: Collector, trainer: Any) -> None:
        self.collector, self._trainer = collector, trainer
        self.ended = threading.Event()
        self._error: BaseException | None = None
        self._started = time.monotonic()
        threading.Thread(target=self._fit, daemon=True).start()

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self._error = error
        finally:
            self.ended.set()

    def outcome(self) -> Outcome:
        """What the ended task came to. Raises an error of the user's that stopped it."""
        if self._error is not None:
            causes = [self._error, *getattr(self._error, "worker_failures", {}).values()]
            for cause in causes:
                root = getattr(cause, "cause", None) or cause.__cause__ or cause
                if isinstance(root, EnsembleError):
                    raise root
            memory = any(is_out_of_memory(cause) or "OutOfMemoryError" in str(cause) for cause in causes)
            kind: FailureKind = "out_of_memory" if memory else "crash"
            self.collector.fail(kind, causes[-1], time.monotonic() - self._started)
        return self.collector.outcome()


def _train_in_group(given: dict[str, Any]) -> None:
    """A worker of a group: trains its part; rank 0 alone says what comes of it."""
    import torch.distributed as dist

    arrays = dict(zip(given["names"], ray.get(given["arrays"]), strict=True))
    train, task = ray.get(given["train"]), ray.get(given["task"])
    first = dist.get_rank() == 0
    for item in train(task, arrays):
        if first:
            given["mail"].put((task.id, item))
    dist.barrier()  # nobody leaves, and no process group is taken down, before the last item is posted
