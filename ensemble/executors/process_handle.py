"""A process that trains tasks, as its driver has it: the line to it, the task that it has, and how it ends; see `processes`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

from ensemble import signals
from ensemble.errors import ComputeError
from ensemble.executors import pipes
from ensemble.executors.base import Collector, Ended, Item
from ensemble.executors.shared_arrays import SharedArrays
from ensemble.types import FailureKind

LOOK_AGAIN_S = 0.5
_STARTS_S = 120.0  # for Python and torch to start, from a slow disk
_ENDS_S = 5.0  # for a process whose line has ended to be gone
_LAST_WORDS = 4000  # bytes of what a process has written before it ended
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(eq=False)
class Process:
    """A process, the driver's end of the line to it, and the task that it has."""

    popen: subprocess.Popen[bytes]
    connection: Connection
    output: IO[bytes]  # what it writes
    collector: Collector | None = None
    alive: bool = True  # not ended by us
    _heard: float = field(default_factory=time.monotonic)
    _has_spoken: bool = False
    _asked_to_stop: bool = False
    _began: float = 0.0
    _has: SharedArrays | None = None

    @classmethod
    def start(cls, threads: int, run: str) -> Process:
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

    def has_ended(self) -> bool:
        """Whether it is gone, though something that it has started may still hold its end of the line. Its exit code stays to be asked for."""
        if self.popen.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return self.popen.poll() is not None
        try:
            return os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def is_silent(self, patience_s: float) -> bool:
        """Whether it has said nothing for so long; before its first word it may take _STARTS_S.

        What nobody has listened to yet counts as said: whoever takes outcomes may take long.
        """
        patience_s = patience_s if self._has_spoken else max(patience_s, _STARTS_S)
        return time.monotonic() - self._heard > patience_s and not self.connection.poll()

    def begin(self, collector: Collector, train: bytes, arrays: SharedArrays) -> None:
        """Hand it a task. train: the function, pickled."""
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
        self._asked_to_stop = True
        self._say("stop")

    def hear(self) -> bool:
        """Take its next word; True where its task has ended, or it has. Raises what the user is to mend."""
        assert self.collector is not None
        try:
            letter = pipes.read(self.connection)
        except (EOFError, OSError):
            self.lost()
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
            self._stopped()
        return True

    def answer(self, function: Callable[..., Any], arguments: Sequence[object], within_s: float) -> pipes.Letter:
        """What a function gives there, or the error that it ends with. Raises ComputeError where it ends or says nothing for so long, KeyboardInterrupt at a signal."""
        with signals.deferred():
            self._heard = time.monotonic()
            self._say("call", (function, tuple(arguments)))
            while not wait([self.connection], LOOK_AGAIN_S):
                signals.check()
                if self.has_ended() or self.is_silent(within_s):
                    break
            try:
                if not self.connection.poll():
                    raise EOFError
                return pipes.read(self.connection)
            except (EOFError, OSError) as error:
                raise ComputeError(
                    f"process {self.popen.pid} has ended or does not answer; start the command again"
                ) from error

    def lost(self) -> None:
        """Its line has ended, and so has it, or will in a moment. One that was asked to stop may have had nothing to hand in."""
        deadline = time.monotonic() + _ENDS_S
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(0.01)
        if self._asked_to_stop:
            self._stopped()
            return
        words = self._last_words()
        self.end()
        self._lose(
            "crash", f"the process {self.popen.pid} that trained it {_end_in_words(self.popen.returncode)}", words
        )

    def kill(self, kind: FailureKind, reason: str) -> None:
        """End it; its task has failed for that reason."""
        self._lose(kind, reason, self._last_words())
        self.end()

    def end(self) -> None:
        """End it and all that it has started, whatever they do."""
        self.alive = False
        self.connection.close()
        self.output.close()
        if self.popen.returncode is None:  # its number is its own until it is asked for its exit code
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(_ENDS_S)

    def _stopped(self) -> None:
        assert self.collector is not None
        self.collector.stopped = True
        if not self._asked_to_stop:
            reason = f"the process {self.popen.pid} that trained it was asked to stop"
            self._lose("crash", reason, self._last_words())
        self.end()

    def _lose(self, kind: FailureKind, reason: str, words: str) -> None:
        assert self.collector is not None
        self.collector.lose(kind, reason, words, time.monotonic() - self._began)

    def _last_words(self) -> str:
        size = os.fstat(self.output.fileno()).st_size
        written = os.pread(self.output.fileno(), _LAST_WORDS, max(0, size - _LAST_WORDS))
        return written.decode(errors="replace").strip()

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
