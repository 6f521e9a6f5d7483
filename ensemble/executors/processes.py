"""Tasks in processes of this machine, one for each slot: the `processes` executor, for CPUs.

Where one machine is all there is, this takes a second or two to start, where a local Ray takes ten. Every process is a new Python, so that
nothing of the driver's threads, handlers or libraries is in it. They are started before the first task is known, import torch beside
the driver's own work, and are kept for the next task. The images lie in memory once (`shared_arrays`). Nothing listens on any
port: driver and process have a pair of sockets to themselves (`pipes`).

A process that ends, or shows no sign of life for compute.hang_timeout_s, fails its task; the run's policy decides on another try, which a
new process makes. When the driver ends, however it does, the processes end too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

from ensemble import signals
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.executors import pipes
from ensemble.executors.base import Arrays, Collector, Emit, Item, Outcome, Train, Wanted, always, tried_again
from ensemble.executors.serving import Ended
from ensemble.executors.shared_arrays import SharedArrays
from ensemble.types import FailureKind, Task

_LOOK_AGAIN_S = 0.5
_ANSWERS_S = 600.0  # for a function that is called there
_STARTS_S = 120.0  # for Python and torch to start, from a slow disk
_ENDS_S = 5.0  # for a process whose line is closed to be gone
_LAST_WORDS = 4000  # bytes of what a process has written before it ended
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
        self._idle: list[_Process] = []
        try:
            for _ in range(min(tasks, self.slots)):
                self._idle.append(self._start())
        except BaseException:
            self.close()
            raise

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        """See Executor.run."""
        with signals.deferred():
            yield from self._run_all(tasks, train, self._share(arrays), emit, wanted)

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """See Calls.call: in a process that has trained."""
        process = self._idle.pop() if self._idle else self._start()
        try:
            answer = process.answer(function, arguments)
        except BaseException:
            process.end()
            raise
        self._idle.append(process)
        return answer

    def _run_all(
        self, tasks: Sequence[Task], train: Train, arrays: SharedArrays, emit: Emit, wanted: Wanted
    ) -> Iterator[Outcome]:
        waiting = deque(tasks)
        busy: dict[Connection, _Process] = {}
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
                        process = self._idle.pop() if self._idle else self._start()
                        busy[process.connection] = process
                        process.begin(Collector(task, emit), train, arrays)
                if not busy:
                    return
                for connection in wait(list(busy), _LOOK_AGAIN_S):
                    assert isinstance(connection, Connection)
                    process = busy[connection]
                    if process.hear(stopping):
                        yield from self._taken_from(busy, process, stopping)
                for process in [one for one in busy.values() if one.is_silent(self._patience_s)]:
                    reason = f"no sign of life for {self._patience_s:g} s (compute.hang_timeout_s)"
                    process.kill("hung", f"TimeoutError: {reason}")
                    yield from self._taken_from(busy, process, stopping)
        finally:
            for process in busy.values():
                process.end()

    def _taken_from(self, busy: dict[Connection, _Process], process: _Process, stopping: bool) -> Iterator[Outcome]:
        """The outcome of a process that has none to wait for any more."""
        del busy[process.connection]
        collector = process.collector
        assert collector is not None
        process.collector = None
        if process.alive:
            self._idle.append(process)
        if not (stopping and collector.stopped):
            yield collector.outcome()

    def _start(self) -> _Process:
        return _Process.start(self._threads, self._run)

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


@dataclass(eq=False)
class _Process:
    """A process, the driver's end of the line to it, and the task that it has."""

    popen: subprocess.Popen[bytes]
    connection: Connection
    output: IO[bytes]  # what it writes
    collector: Collector | None = None
    alive: bool = True
    _heard: float = field(default_factory=time.monotonic)
    _has_spoken: bool = False
    _began: float = 0.0
    _has: SharedArrays | None = None

    @classmethod
    def start(cls, threads: int, run: str) -> _Process:
        """Start one. Raises ComputeError where the system lets no further one be started."""
        connection, theirs = pipes.pair()
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        source = str(Path(__file__).parents[2])
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH")]))
        # -P: nothing that lies in the working directory is taken for a module of ours.
        words = [sys.executable, "-P", "-m", "ensemble.executors.process_worker", str(theirs), run]
        try:
            popen = subprocess.Popen(  # noqa: S603 - our own module
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=[theirs],
                start_new_session=True,  # Ctrl-C and `timeout` signal a whole group: the driver passes on what it gets
            )
        except OSError as error:
            connection.close()
            output.close()
            raise ComputeError(
                f"a process to train in cannot be started: {error.strerror or error}; use fewer (compute.slots), or compute.executor=inline"
            ) from error
        finally:
            os.close(theirs)
        process = cls(popen, connection, output)
        process._say("paths", sys.path)
        return process

    def is_silent(self, patience_s: float) -> bool:
        """Whether it has said nothing for so long; before its first word it may take _STARTS_S.

        What nobody has listened to yet counts as said: whoever takes outcomes may take long.
        """
        patience_s = patience_s if self._has_spoken else max(patience_s, _STARTS_S)
        return time.monotonic() - self._heard > patience_s and not self.connection.poll()

    def begin(self, collector: Collector, train: Train, arrays: SharedArrays) -> None:
        """Hand it a task."""
        self.collector, self._heard = collector, time.monotonic()
        self._began = self._heard
        if self._has is not arrays:
            self._say("arrays", (arrays.described, arrays.others))
            with suppress(OSError):
                pipes.send_file(self.connection, arrays.descriptor)
            self._has = arrays
        self._say("task", (collector.task, train))

    def ask_to_stop(self) -> None:
        """Have it hand in what its task has done."""
        self._say("stop")

    def hear(self, stopping: bool) -> bool:
        """Take its next word; True where its task has ended, or it has. Raises what the user is to mend.

        stopping: it was asked to stop.
        """
        assert self.collector is not None
        try:
            letter = pipes.read(self.connection)
        except (EOFError, OSError):
            self._lost()
            return True
        self._heard, self._has_spoken = time.monotonic(), True
        content = letter.content()
        if letter.kind == "error":
            raise content
        if letter.kind == "item":
            self.collector.take(content)
            return False
        if isinstance(content, Ended):
            items: tuple[Item, ...] = (*content.results, *content.votes, *content.failures)
            for item in items:
                self.collector.take(item)
        else:
            self.collector.stopped = True
            if not stopping:
                self._lose("crash", f"the process {self.popen.pid} that trained it was asked to stop")
            self.end()
        return True

    def answer(self, function: Callable[..., Any], arguments: Sequence[object]) -> Any:
        """What a function gives there. Raises ComputeError where the process ends or says nothing, KeyboardInterrupt at a signal."""
        with signals.deferred():
            self._heard = time.monotonic()
            self._say("call", (function, tuple(arguments)))
            while not wait([self.connection], _LOOK_AGAIN_S):
                signals.check()
                if self.is_silent(_ANSWERS_S):
                    raise ComputeError(
                        f"no answer from process {self.popen.pid} for {_ANSWERS_S:g} s; start the command again"
                    )
            try:
                letter = pipes.read(self.connection)
            except (EOFError, OSError) as error:
                raise ComputeError(f"process {self.popen.pid} has ended; start the command again") from error
        if letter.kind == "error":
            raise letter.content()
        return letter.content()

    def _lost(self) -> None:
        """Its line has ended, and so has it, or will in a moment."""
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(_ENDS_S)
        self.kill("crash", f"the process {self.popen.pid} that trained it {_end_in_words(self.popen.poll())}")

    def kill(self, kind: FailureKind, reason: str) -> None:
        """End it; its task has failed for that reason."""
        self._lose(kind, reason)
        self.end()

    def _lose(self, kind: FailureKind, reason: str) -> None:
        assert self.collector is not None
        self.collector.lose(kind, reason, self._last_words(), time.monotonic() - self._began)

    def _last_words(self) -> str:
        size = os.fstat(self.output.fileno()).st_size
        written = os.pread(self.output.fileno(), _LAST_WORDS, max(0, size - _LAST_WORDS))
        return written.decode(errors="replace").strip()

    def end(self) -> None:
        """End it, whatever it does."""
        self.alive = False
        self.connection.close()
        self.output.close()
        with suppress(ProcessLookupError):
            self.popen.send_signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(_ENDS_S)

    def _say(self, kind: pipes.Kind, content: Any = None) -> None:
        with suppress(OSError):  # it has ended, which is found when its word is waited for
            pipes.send(self.connection, kind, content)


def _end_in_words(code: int | None) -> str:
    if code is None:
        return "does not answer"
    if code >= 0:
        return f"ended by itself with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    advice = ", as the system does where memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{advice}"
