"""Tasks as Ray tasks: one per slot, on this machine or on a cluster.

The data set goes into the object store once and is read there without copies. Each task is a streaming generator, so
events reach the driver while the task runs. Worker processes are reused: importing torch costs more than a small task.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any, cast

import ray
from ray.exceptions import NodeDiedError, RayError, RayTaskError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ensemble import signals
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError, EnsembleError
from ensemble.events import Notice, TaskStarted
from ensemble.executors.base import Arrays, Collector, Emit, Outcome, Train, Wanted, always, tried_again
from ensemble.executors.diagnosis import is_out_of_memory
from ensemble.executors.labels import task_label
from ensemble.executors.native_calls import answer_within
from ensemble.executors.ray_cards import unlike_nodes
from ensemble.executors.ray_cluster import connect, disconnect, fitting, is_own, of_type, wait_for_slots, wanted_type
from ensemble.executors.ray_hosts import GIVEN_UP_S, GONE_S, HostWatch
from ensemble.executors.ray_late import (
    ARRIVES_S,
    UnderWay,
    allow_for_pause,
    cut_off,
    not_arrived,
    not_begun,
    not_heard,
    note_what_is_sent,
    overdue,
)
from ensemble.executors.ray_stop import StopKey
from ensemble.executors.ray_waiting import Need, WaitingLines, slots_now
from ensemble.executors.ray_worker import Broke, NeedsOwnProcess, kept_process, single_process, train_remotely
from ensemble.executors.said_again import SaidAgain
from ensemble.types import FailureKind, Task

_LOOK_AGAIN_S = 5.0  # between looks at which nodes there are
_ANSWER_S = 15.0  # for a node to kill a worker; it may have to start a process for it


class RayExecutor:
    """Runs tasks on a Ray cluster; starts a local one, on the loopback interface, when none is given.

    A cluster is given by `compute.ray_address` (`auto`: the one running on this machine) or by RAY_ADDRESS, which Ray
    sets in submitted jobs; one that merely happens to run is left alone.
    """

    name = "ray"

    def __init__(self, compute: ComputeConfig, device: str, run: str = "") -> None:
        """run: the name by which the cluster shows whose tasks these are."""
        self._run_name = run
        self._threads = compute.threads_per_task
        self._hang_timeout_s = compute.hang_timeout_s
        self._gpus = compute.gpus_per_task if device == "cuda" else 0.0
        self._type = wanted_type(compute, device)
        self._wanted = compute.slots
        self._avoided: set[str] = set()  # nodes with a GPU that does not work
        self._lost: set[str] = set()  # nodes that do not answer
        self._taken_back = -math.inf  # when tasks that had not begun were last taken back
        self._lateness = SaidAgain()  # of tasks under way
        self._pins: dict[str, str] = {}  # the node that a task is to have, by the task's identifier
        self._pinned: Counter[str] = Counter()  # how often each node was chosen so
        self._request = compute, device
        self._hosts = HostWatch()
        self._node_patience_s = compute.placement_timeout_s + 2 * _ANSWER_S
        self._shared: tuple[Arrays, list[Any]] | None = None
        self._keeps_processes = True
        self._remotes: dict[bool, Any] = {}  # the function that Ray calls, with and without kept processes
        with signals.deferred():
            self._owns = connect(compute.ray_address)
            try:
                fits = wait_for_slots(compute, device)
            except (ComputeError, KeyboardInterrupt):
                self.close()
                raise
        self.slots = self._wanted or fits
        self._hosts.start()
        own = is_own(compute, self._owns)
        self._waiting = (
            None if own else WaitingLines(run or "this run", Need(self._threads, self._gpus, gpu_type=self._type))
        )
        self._unlike = [] if own else unlike_nodes(compute, device)  # to be said once
        self._stop_key = StopKey()

    def _fitting_slots(self) -> int:
        avoided = self._avoided | self._unreachable()
        try:
            return answer_within(lambda: fitting(self._threads, self._gpus, avoided, self._type), _ANSWER_S)
        except TimeoutError:
            return self.slots  # the head hangs; what is under way goes on without it

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        """See Executor.run. At most `slots` tasks are under way at a time; without compute.slots, as many as fit now.

        With compute.slots above what fits, Ray queues the others, which makes an autoscaler add nodes.
        """
        with signals.deferred():
            yield from self._run(tasks, train, arrays, emit, wanted)

    def _run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted
    ) -> Iterator[Outcome]:
        given = (ray.put(train), list(arrays), self._share(arrays))
        waiting = deque(tasks)
        running: dict[Any, UnderWay] = {}
        looked, stopping, self._stop_key = time.monotonic(), False, StopKey()
        while self._unlike:
            emit(Notice(self._unlike.pop(0)))
        try:
            while True:
                if signals.requested():
                    if not stopping:
                        self._stop(waiting, running)
                    stopping = True
                    if not running or signals.waited_s() > signals.GRACE_S:
                        signals.check()
                for message in self._hosts.news():
                    emit(Notice(message))
                if time.monotonic() - looked > _LOOK_AGAIN_S:
                    looked = time.monotonic()
                    self._look_at_nodes(waiting, running)
                    self._look_at_late(waiting, running, emit)
                if not stopping:
                    tried_again(tasks, waiting)
                if waiting and not running:
                    self._wait_for_a_node()
                while waiting and len(running) < self.slots:
                    if wanted(task := waiting.popleft()):
                        running[self._start(task, *given)] = UnderWay(Collector(task, emit))
                if not running:
                    return
                # A short wait, so that signals are seen: Python handles none while Ray waits. What is ready is here: Ray
                # may take minutes to bring what a machine sent that was silent for a while.
                listened = time.monotonic()
                ready, _ = ray.wait(list(running), num_returns=1, timeout=0.5, fetch_local=True)
                for stream in ready:
                    work, now = running[stream], time.monotonic()
                    if work.heard is None and self._waiting is not None:
                        _say(self._waiting.begin(work.collector.task, now), emit)
                    work.heard, work.sent = now, None
                    if self._advance(stream, work):
                        del running[stream]
                        if work.refused and not stopping:
                            waiting.appendleft(work.collector.task)
                        elif not (work.refused or work.collector.stopped):
                            yield work.collector.outcome()
                allow_for_pause(running.values(), time.monotonic() - listened)  # whoever takes outcomes may take long
                for stream in [s for s, work in running.items() if self._is_given_up(work)]:
                    if ray.wait([stream], timeout=0, fetch_local=True)[0]:
                        continue  # it has spoken, and is listened to next
                    work = running.pop(stream)
                    self._end_silent(stream, work)
                    yield work.collector.outcome()
        finally:
            for stream in running:
                ray.cancel(stream, force=True)
            if stopping:
                self._stop_key.remove()

    def _look_at_nodes(self, waiting: deque[Task], running: dict[Any, UnderWay]) -> None:
        """Follow the number of nodes, and take back what waits at nodes that do not answer."""
        fits = self._fitting_slots()
        if self._wanted is None and waiting:
            self.slots = max(1, fits)
        unheard = [stream for stream, work in running.items() if work.heard is None]
        nobody = fits == 0 and len(unheard) == len(running)
        if nobody or self._hosts.changed > self._taken_back:
            self._taken_back = time.monotonic()
            self._take_back(unheard, waiting, running)

    def _take_back(self, streams: Sequence[Any], waiting: deque[Task], running: dict[Any, UnderWay]) -> None:
        """Ask Ray for these tasks again."""
        for stream in streams:
            waiting.appendleft(running.pop(stream).collector.task)
            ray.cancel(stream, force=True)
            if self._waiting is not None:
                self._waiting.drop(waiting[0])

    def _look_at_late(self, waiting: deque[Task], running: dict[Any, UnderWay], emit: Emit) -> None:
        """Now and then, lines on tasks that wait for slots that others hold, or that are late; the latter are asked for again."""
        lines = self._waiting
        if lines is None:  # no other machine, and nobody else's tasks
            return
        note_what_is_sent(running)
        for line in not_arrived(self._run_name, running.values(), self._lateness):
            emit(Notice(line))
        for line in not_heard(self._run_name, running.values(), self._hosts, self._lateness):
            emit(Notice(line))
        unheard = [(work.collector.task, work.started) for work in running.values() if work.heard is None]
        now = time.monotonic()
        if not lines.due([started for _, started in unheard], now):
            return
        avoided = self._avoided | self._unreachable()
        try:
            slots = answer_within(lambda: slots_now(lines.need, avoided), _ANSWER_S)
        except (RayError, RuntimeError, TimeoutError):  # a head that does not answer is told of by `_hosts`
            return
        _say(lines.wait(unheard, len(running) - len(unheard), slots, now), emit)
        for line in not_begun(self._run_name, running.values(), slots, self._lateness):
            emit(Notice(line))
        late = overdue(running, slots, self._hosts)
        for stream in late:
            node = min(slots.free_nodes, key=lambda node: self._pinned[node])
            self._pinned[node] += 1
            self._pins[running[stream].collector.task.id] = node
        self._take_back(late, waiting, running)

    def _wait_for_a_node(self) -> None:
        """Raises ComputeError where nothing is under way and no node that can hold a task is there in time."""
        if self._fitting_slots() > 0:
            return
        self._avoided.clear()  # better a broken GPU that may recover than none
        try:
            answer_within(lambda: wait_for_slots(*self._request, avoided=self._unreachable()), self._node_patience_s)
        except (ComputeError, TimeoutError) as error:
            raise ComputeError(
                f"no node of the Ray cluster that can hold a task answers any more ({error}); finished members and checkpoints are kept: start the same command again"
            ) from error

    def _unreachable(self) -> set[str]:
        return self._lost | self._hosts.silent

    def _stop(self, waiting: deque[Task], running: dict[Any, UnderWay]) -> None:
        """Start no further task, drop those that have not begun, and ask the others to hand in a checkpoint."""
        waiting.clear()
        for stream in [stream for stream, work in running.items() if work.heard is None]:
            del running[stream]
            ray.cancel(stream, force=True)
        if running:
            self._stop_key.post()

    def _start(self, task: Task, call: Any, names: Sequence[str], references: Sequence[Any]) -> Any:
        """Hand a task to Ray; returns the stream of what it yields. Tries are the run's policy, not Ray's."""
        keeps = self._keeps_processes
        if keeps not in self._remotes:
            options = task_options(self._threads, self._gpus, keeps, self._type)
            self._remotes[keeps] = ray.remote(max_retries=0, **options)(train_remotely)
        self._spare_the_last()  # nodes may have gone away meanwhile
        avoided = self._avoided | self._unreachable()
        more: dict[str, Any] = {"name": task_label(self._run_name, task)}
        pin = self._pins.pop(task.id, None)
        if pin is not None and pin not in avoided:
            more["scheduling_strategy"] = NodeAffinitySchedulingStrategy(pin, soft=True)
        elif avoided:
            more["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(avoided))})"}
        remote = self._remotes[keeps].options(**more)
        return remote.remote(call, task, self._gpus, self._stop_key.name, names, *references)

    def _advance(self, stream: Any, work: UnderWay) -> bool:
        """Take the next item of a task; True when the task has ended."""
        try:
            item = ray.get(next(stream))
        except StopIteration:
            return True
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, EnsembleError):
                raise cause from None
            work.collector.fail(_kind(cause), cause, time.monotonic() - work.started)
            return True
        if isinstance(item, NeedsOwnProcess):
            self._keeps_processes, work.refused = False, True
        elif isinstance(item, Broke):
            work.collector.lose(item.kind, item.reason, item.details, time.monotonic() - work.started)
            if item.kind == "lost_node":
                self._avoid(item.node)
        else:
            work.collector.take(item)
        return False

    def _avoid(self, node: str) -> None:
        """Place no more tasks on a node whose GPU does not work, unless no other is left."""
        self._avoided.add(node)
        self._spare_the_last()
        if self._wanted is None:
            self.slots = max(1, self._fitting_slots())

    def _spare_the_last(self) -> None:
        if self._avoided and self._fitting_slots() == 0:
            self._avoided.clear()

    def _is_given_up(self, work: UnderWay) -> bool:
        """Whether a task has said nothing for too long; less patience is had where its machine does not answer either."""
        patience_s, place = self._hang_timeout_s, work.collector.place
        if place is not None and self._hosts.silent_s(place.host) > GIVEN_UP_S:
            patience_s = min(patience_s, GIVEN_UP_S)
        if place is not None and self._hosts.gone_s(place.host) > GONE_S:
            patience_s = min(patience_s, GONE_S)
        if cut_off(work, self._hosts):
            patience_s = min(patience_s, ARRIVES_S)
        return work.silent_s > patience_s

    def _end_silent(self, stream: Any, work: UnderWay) -> None:
        """Give up a task that says nothing any more: its worker hangs and is killed, or its node does not answer."""
        place, silent = work.collector.place, f"no sign of life for {self._hang_timeout_s:g} s (compute.hang_timeout_s)"
        lost_s, kind = time.monotonic() - work.started, "hung"
        if place is not None and (away_s := self._hosts.silent_s(place.host)):
            # Not asked to kill its worker, which would be waited for, while the other machines wait for tasks.
            kind, silent = "lost_node", f"the node {place.host} has not answered for {away_s:.0f} s"
        elif place is not None and self._hosts.gone_s(place.host):
            kind, silent = "lost_node", f"the node {place.host} has left the cluster"
        elif place is not None and work.sent_s > ARRIVES_S:
            kind, silent = (
                "lost_node",
                f"what was sent from the node {place.host} has not arrived for {work.sent_s:.0f} s",
            )
        elif place is not None and cut_off(work, self._hosts) and work.silent_s <= self._hang_timeout_s:
            kind, silent = (
                "lost_node",
                f"nothing was heard from the node {place.host} for {work.silent_s:.0f} s, which had not answered for a while",
            )
        elif place is not None:
            try:
                self._kill_worker(place)
            except (TimeoutError, RayError):
                kind, silent = "lost_node", f"{silent}, and the node {place.host} does not answer"
        ray.cancel(stream, force=True)
        work.collector.fail(cast(FailureKind, kind), TimeoutError(silent), lost_s)

    def _kill_worker(self, place: TaskStarted) -> None:
        """Kill a worker that cannot be asked to end itself. Raises TimeoutError or RayError where its node does not answer."""
        nodes = answer_within(ray.nodes, _ANSWER_S)
        of_host = [n for n in nodes if n["NodeManagerHostname"] == place.host]
        node = next((n["NodeID"] for n in of_host if n["Alive"]), None)
        if node is None:
            raise TimeoutError(f"{place.host} is no longer a node of the cluster")
        if node in self._lost:
            raise TimeoutError(f"{place.host} does not answer")
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        name = f"{self._run_name} ends a worker that hangs".strip()
        kill = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here, name=name)(_kill_process)
        try:
            done = kill.remote(place.pid)
            answer_within(lambda: ray.get(done, timeout=_ANSWER_S), 2 * _ANSWER_S)
        except (TimeoutError, RayError):  # GetTimeoutError is a TimeoutError
            self._lost.add(node)
            raise

    def _share(self, arrays: Arrays) -> list[Any]:
        if self._shared is None or self._shared[0] is not arrays:
            self._shared = arrays, [ray.put(array) for array in arrays.values()]
        return self._shared[1]

    def close(self) -> None:
        """Stop the local cluster, or leave the one that was there."""
        self._shared = None
        self._hosts.stop()
        if self._owns and ray.is_initialized():
            disconnect()


def task_options(threads: int, gpus: float, keeps_process: bool = True, gpu_type: str | None = None) -> dict[str, Any]:
    """Options of a Ray task that trains on so many CPUs and GPUs, of a type where one is named."""
    if not gpus:
        return {"num_cpus": threads, "max_calls": 0}
    process = kept_process() if keeps_process else single_process()
    return {"num_cpus": threads, "num_gpus": gpus, **of_type(gpu_type), **process}


def _say(line: str | None, emit: Emit) -> None:
    if line is not None:
        emit(Notice(line))


def _kill_process(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _kind(cause: BaseException) -> FailureKind:
    if is_out_of_memory(cause):
        return "out_of_memory"
    if isinstance(cause, NodeDiedError):
        return "lost_node"
    return "crash" if isinstance(cause, WorkerCrashedError) else "error"
