"""Tasks in processes of this machine, one for each slot: the `processes` executor, for CPUs.

Where one machine is all there is, this takes a second or two to start, where a local Ray takes ten. Every process is a new Python, so that
nothing of the driver's threads, handlers or libraries is in it. They are started before the first task is handed out, import torch beside
the driver's own work, and are kept for the next task. The images lie in memory once (`shared_arrays`). Nothing listens on any
port: driver and process have a pair of sockets to themselves (`pipes`).

A process that ends, or shows no sign of life for compute.hang_timeout_s, fails its task; the run's policy decides on another try, which a
new process makes. When the driver ends, however it does, the processes end too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle

from ensemble import signals
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.executors.base import Arrays, Collector, Emit, Outcome, Train, Wanted, always, tried_again
from ensemble.executors.diagnosis import explain
from ensemble.executors.process_handle import LOOK_AGAIN_S, Process
from ensemble.executors.shared_arrays import SharedArrays
from ensemble.types import Task


class ProcessExecutor:
    """Runs tasks in processes that it starts on this machine.

    slots: the most of them. tasks: how many there are; no more processes than that are started at once. run: the name that a list of
    processes shows.
    """

    name = "processes"

    def __init__(self, compute: ComputeConfig, slots: int, tasks: int, run: str = "") -> None:
        self.slots = slots
        self._threads, self._patience_s, self._run = compute.threads_per_task, compute.hang_timeout_s, run
        self._shared: tuple[Arrays, SharedArrays] | None = None
        self._idle: list[Process] = []
        try:
            for _ in range(min(tasks, self.slots)):
                self._idle.append(Process.start(self._threads, self._run))
        except BaseException:
            self.close()
            raise

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        """See Executor.run."""
        with signals.deferred():
            yield from self._run_all(tasks, _packed(train), self._share(arrays), emit, wanted)

    def call(self, within_s: float, function: Callable[..., Any], *arguments: object) -> Any:
        """See Calls.call: in a process that has trained."""
        process = self._free()
        try:
            letter = process.answer(function, arguments, within_s)
        except BaseException:
            process.end()
            raise
        self._idle.append(process)
        if letter.kind == "error":
            raise letter.content()
        return letter.content()

    def _run_all(
        self, tasks: Sequence[Task], train: bytes, arrays: SharedArrays, emit: Emit, wanted: Wanted
    ) -> Iterator[Outcome]:
        waiting = deque(tasks)
        busy: dict[Connection, Process] = {}
        stopping = False
        try:
            while True:
                if signals.requested():
                    if not stopping:
                        waiting.clear()
                        for process in busy.values():
                            process.ask_to_stop()
                    stopping = True
                    if not busy or signals.waited_s() > signals.GRACE_S:
                        signals.check()
                else:
                    tried_again(tasks, waiting)
                while waiting and len(busy) < self.slots:
                    if wanted(task := waiting.popleft()):
                        process = self._free()
                        busy[process.connection] = process
                        process.begin(Collector(task, emit), train, arrays)
                if not busy:
                    return
                for connection in wait(list(busy), LOOK_AGAIN_S):
                    assert isinstance(connection, Connection)
                    process = busy[connection]
                    if process.hear():
                        yield from self._taken_from(busy, process, stopping)
                for process in list(busy.values()):
                    if process.has_ended() and not process.connection.poll():
                        process.lost()
                    elif process.is_silent(self._patience_s):
                        reason = f"no sign of life for {self._patience_s:g} s (compute.hang_timeout_s)"
                        process.kill("hung", f"TimeoutError: {reason}")
                    else:
                        continue
                    yield from self._taken_from(busy, process, stopping)
        finally:
            for process in busy.values():
                process.end()

    def _taken_from(self, busy: dict[Connection, Process], process: Process, stopping: bool) -> Iterator[Outcome]:
        """The outcome of a process that has none to wait for any more."""
        del busy[process.connection]
        collector = process.collector
        assert collector is not None
        process.collector = None
        if process.alive:
            self._idle.append(process)
        if not (stopping and collector.stopped):
            yield collector.outcome()

    def _free(self) -> Process:
        """A process without a task: one that waits for some, or a new one."""
        while self._idle:
            process = self._idle.pop()
            if not process.has_ended():
                return process
            process.end()
        return Process.start(self._threads, self._run)

    def _share(self, arrays: Arrays) -> SharedArrays:
        """The arrays in shared memory. Those of an earlier run are let go."""
        if self._shared is None or self._shared[0] is not arrays:
            self._let_go()
            self._shared = arrays, SharedArrays.of(arrays)
        return self._shared[1]

    def _let_go(self) -> None:
        if self._shared is not None:
            self._shared[1].close()
            self._shared = None

    def close(self) -> None:
        """End all processes."""
        for process in self._idle:
            process.end()
        self._idle = []
        self._let_go()


def _packed(train: Train) -> bytes:
    """What trains, pickled with the classes of the user's script or notebook, which other processes do not have. Raises ComputeError."""
    try:
        return bytes(cloudpickle.dumps(train))
    except Exception as error:  # whatever the pickling of somebody's class may raise
        raise ComputeError(
            f"what is to be trained cannot be sent to another process: {explain(error)}; put your own classes into a module, or use compute.executor=inline"
        ) from error
