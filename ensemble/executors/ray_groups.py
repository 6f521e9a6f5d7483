"""One stack over several GPUs: `compute.gpus_per_task` above 1 on a Ray cluster.

Each task is one Ray Train job: Ray places a group of workers, one per GPU, and joins them to a process group; inside,
Accelerate averages the gradients of the parts of every batch. What rank 0 yields travels back through a queue, so the
workers need no path in common with the driver. Several tasks train at a time where the cluster holds several groups.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ensemble import signals
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError, EnsembleError
from ensemble.events import Notice
from ensemble.executors.base import Arrays, Collector, Emit, Outcome, Train, Wanted, always, ended, tried_again
from ensemble.executors.diagnosis import finds_no_gpu, is_out_of_memory
from ensemble.executors.labels import task_label
from ensemble.executors.native_calls import answer_within
from ensemble.executors.ray_cards import unlike_nodes
from ensemble.executors.ray_cluster import connect, disconnect, is_own, wait_for_slots, wanted_type
from ensemble.executors.ray_stop import StopKey, stops_by
from ensemble.executors.ray_waiting import Need, WaitingLines, slots_now
from ensemble.executors.ray_worker import Broke, describe
from ensemble.types import FailureKind, Stopped, Task

_POLL_S = 0.2
_ANSWER_S = 15.0  # for the cluster to say what is free
# What a task's failure is called where its workers failed differently: one that finds no room takes the others along.
_GRAVEST_FIRST: tuple[FailureKind, ...] = ("out_of_memory", "lost_node", "crash")


class RayGroupExecutor:
    """Groups of `workers` processes, each group training one task at a time.

    workers: processes per group, by default one per GPU of compute.gpus_per_task. run: the name by which the cluster shows
    whose groups these are. Raises ComputeError when Ray Train is
    not installed or the cluster cannot hold one group.
    """

    name = "ray"

    def __init__(self, compute: ComputeConfig, device: str, workers: int | None = None, run: str = "") -> None:
        try:
            import ray.train  # noqa: F401 - needs packages that Ray alone does not
        except ImportError as error:
            raise ComputeError(
                f"compute.gpus_per_task is {compute.gpus_per_task:g} and needs Ray Train: pip install 'ray[train]', or set it to 1 ({error})"
            ) from error
        self._run_name = run
        self._workers = workers or int(compute.gpus_per_task)
        self._threads, self._on_gpu = compute.threads_per_task, device == "cuda"
        with signals.deferred():
            self._owns = connect(compute.ray_address)
            try:
                fits = wait_for_slots(compute, device, self._workers)
            except (ComputeError, KeyboardInterrupt):
                self.close()
                raise
        self.slots = min(fits, compute.slots or fits)
        self._type = wanted_type(compute, device)
        need = Need(self._threads, float(self._on_gpu), self._workers, self._type)
        self._waiting = WaitingLines(run or "this run", need)
        self._unlike = [] if is_own(compute, self._owns) else unlike_nodes(compute, device)  # to be said once

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        """See Executor.run. A group that breaks fails its task as a crash; the tries are the run's."""
        with signals.deferred(), tempfile.TemporaryDirectory(prefix="ensemble-train-") as storage:
            yield from self._run(tasks, train, arrays, emit, wanted, storage)

    def _run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted, storage: str
    ) -> Iterator[Outcome]:
        from ray.util.queue import Queue

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        mail = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})  # not on a machine that may go away
        names, shared, call = list(arrays), [ray.put(array) for array in arrays.values()], ray.put(train)
        running, stop_key, stopping = dict[str, _Group](), StopKey(), False
        waiting = deque(tasks)
        while self._unlike:
            emit(Notice(self._unlike.pop(0)))
        try:
            while True:
                if signals.requested():
                    if not stopping:
                        stop_key.post()
                    stopping = True
                    waiting.clear()
                    if not running or signals.waited_s() > signals.GRACE_S:
                        signals.check()
                if not stopping:
                    tried_again(tasks, waiting)
                while waiting and len(running) < self.slots:
                    if not wanted(task := waiting.popleft()):
                        continue
                    given = {
                        "mail": mail, "train": call, "task": ray.put(task), "names": names, "arrays": shared,
                        "stop_key": stop_key.name,
                    }  # fmt: skip
                    running[task.id] = _Group(
                        Collector(task, emit), self._trainer(given, task_label(self._run_name, task), storage)
                    )
                if not running:
                    return
                while not mail.empty():
                    name, item = mail.get()
                    if name in running:
                        self._begins(running[name])
                        running[name].collector.take(item)
                        if running[name].collector.stopped:
                            del running[name]
                for name in [name for name, group in running.items() if group.ended.is_set() and mail.empty()]:
                    yield running.pop(name).outcome()
                self._say_what_waits(running)
                time.sleep(_POLL_S)
        finally:
            if stopping:
                stop_key.remove()
            mail.shutdown(force=True)

    def _begins(self, group: _Group) -> None:
        if not group.heard:
            group.heard = True
            _say(self._waiting.begin(group.collector.task, time.monotonic()), group.collector)

    def _say_what_waits(self, running: dict[str, _Group]) -> None:
        """As in `ray_tasks`; a group whose processes are starting is no longer among what the cluster says that waits."""
        unheard = [group for group in running.values() if not group.heard]
        asked = [(group.collector.task, group.started) for group in unheard]
        now = time.monotonic()
        if not self._waiting.due([started for _, started in asked], now):
            return
        try:
            slots = answer_within(lambda: slots_now(self._waiting.need), _ANSWER_S)
        except (RayError, RuntimeError, TimeoutError):
            return
        _say(self._waiting.wait(asked, len(running) - len(unheard), slots, now), unheard[0].collector)

    def _trainer(self, given: dict[str, Any], label: str, storage: str) -> Any:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        return TorchTrainer(
            _train_in_group,
            train_loop_config=given,
            torch_config=TorchConfig(backend="nccl" if self._on_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=self._workers,
                use_gpu=self._on_gpu,
                accelerator_type=self._type,
                resources_per_worker={"CPU": self._threads, **({"GPU": 1} if self._on_gpu else {})},
            ),
            # Its tasks keep their own names, but its metrics and its page of the dashboard have that of the run. Under one
            # that it knows, Ray Train would go on with what it trained before.
            run_config=RunConfig(name=f"{label} {uuid.uuid4().hex[:8]}".replace(" ", "_"), storage_path=storage),
        )

    def close(self) -> None:
        """Stop the local cluster, or leave the one that was there."""
        if self._owns and ray.is_initialized():
            disconnect()


class _Group:
    """One task under way, watched by a thread, because Ray Train's `fit` blocks."""

    def __init__(self, collector: Collector, trainer: Any) -> None:
        self.collector, self._trainer = collector, trainer
        self.ended, self.heard = threading.Event(), False
        self._error: BaseException | None = None
        self.started = time.monotonic()
        signals.start_deaf(threading.Thread(target=self._fit, daemon=True))

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
            causes = list(getattr(self._error, "worker_failures", {}).values()) or [self._error]
            for cause in causes:
                root = getattr(cause, "cause", None) or cause.__cause__ or cause
                if isinstance(root, EnsembleError):
                    raise root
            worst = min(causes, key=lambda cause: _GRAVEST_FIRST.index(_kind(cause)))
            lost_s = time.monotonic() - self.started
            if isinstance(worst, WorkerBrokeError):
                self.collector.lose(_kind(worst), worst.broke.reason, worst.broke.details, lost_s)
            else:
                self.collector.fail(_kind(worst), worst, lost_s)
        return self.collector.outcome()


def _say(line: str | None, collector: Collector) -> None:
    if line is not None:
        collector.take(Notice(line))


def _kind(cause: BaseException) -> FailureKind:
    """What a worker's error means for its task; an error in the code counts as a crash, since a lost peer may look like it."""
    if isinstance(cause, WorkerBrokeError) and cause.broke.kind in _GRAVEST_FIRST:
        return cause.broke.kind
    return "out_of_memory" if is_out_of_memory(cause) else "crash"


class WorkerBrokeError(Exception):
    """What ended a worker, said by itself: an exception loses its causes when it is sent."""

    def __init__(self, broke: Broke) -> None:
        super().__init__(broke)
        self.broke = broke

    def __str__(self) -> str:
        return self.broke.reason


def _train_in_group(given: dict[str, Any]) -> None:
    """A worker of a group: trains its part; rank 0 alone says what comes of it."""
    import torch.distributed as dist

    arrays = dict(zip(given["names"], ray.get(given["arrays"]), strict=True))
    train, task = ray.get(given["train"]), ray.get(given["task"])
    first, gave_gpu = dist.get_rank() == 0, bool(ray.get_gpu_ids())
    try:
        with stops_by(given["stop_key"]), ended(train(task, arrays)) as items:
            for item in items:
                if first:
                    given["mail"].put((task.id, item))
                    if isinstance(item, Stopped):  # the others cannot go on without this rank
                        os._exit(0)
    except Exception as error:
        if isinstance(error, EnsembleError) and not (gave_gpu and finds_no_gpu(error)):
            raise
        raise WorkerBrokeError(describe(error, gave_gpu)) from error
    dist.barrier()  # nobody leaves, and no process group is taken down, before the last item is posted
