"""A process that trains the tasks its driver sends; `process_handle` starts it.

    python -P -m ensemble.executors.process_worker DESCRIPTOR RUN

The run's name is there for whoever looks at a list of processes. It imports torch at once, while its driver is still busy. A thread
reads what the driver sends, so that a request to stop is heard in mid-training, and so is the end of the driver, with which this process
ends, and all that it has started.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from ensemble import signals
from ensemble.errors import ComputeError, EnsembleError
from ensemble.executors import pipes
from ensemble.executors.base import Arrays, Ended, Item, Train, audible, ended
from ensemble.executors.diagnosis import explain
from ensemble.executors.inline import train_here
from ensemble.executors.shared_arrays import mapped
from ensemble.training.trainer import cannot_start
from ensemble.types import Task

_LOOK_AGAIN_S = 0.5
_BEFORE_OTHERS = "500"  # of -1000 to 1000: where memory runs out, the system should end this process and not the driver
Letters = queue.SimpleQueue[pipes.Letter | int]


def main() -> None:
    """Serve until the driver has ended or closes the line, or somebody asks this process to stop."""
    signals.install()
    with suppress(OSError):  # not every system has it
        Path("/proc/self/oom_score_adj").write_text(_BEFORE_OTHERS)
    os.set_inheritable(int(sys.argv[1]), False)  # what this process starts is not to hold the line
    connection, letters = Connection(int(sys.argv[1])), Letters()
    signals.start_deaf(threading.Thread(target=_listen, args=(connection, letters), daemon=True))
    with suppress(KeyboardInterrupt), signals.deferred():
        _Worker(connection, letters).serve()
    signals.leave(0)


def _listen(connection: Connection, letters: Letters) -> None:
    """Pass on what comes; of arrays first the descriptor of their file. The end of the line is that of the process, as is whatever breaks it."""
    try:
        while True:
            letter = pipes.read(connection)
            if letter.kind == "stop":
                signals.ask()
                continue
            if letter.kind == "arrays":
                letters.put(pipes.read_file(connection))
            letters.put(letter)
    finally:
        os.killpg(0, signal.SIGKILL)  # a session of its own


class _Worker:
    """What is done with the letters."""

    def __init__(self, connection: Connection, letters: Letters) -> None:
        self._connection, self._letters = connection, letters
        self._arrays: Arrays = {}
        self._unprepared: Exception | None = None  # why what training needs cannot be imported

    def serve(self) -> None:
        """Do what the driver asks for until this process is asked to stop."""
        prepared = False
        while not signals.requested():
            try:
                found = self._letters.get(timeout=_LOOK_AGAIN_S) if prepared else self._letters.get_nowait()
            except queue.Empty:
                if not prepared:
                    self._import_what_training_needs()
                    prepared = True
                continue
            if isinstance(found, int):
                letter = self._letters.get()
                assert isinstance(letter, pipes.Letter), letter
                self._arrays = {}  # the old ones go before the new ones come
                described, others = letter.content()
                self._arrays = {**mapped(described, found), **others}
            elif found.kind == "paths":
                sys.path[:] = found.content()
            elif found.kind == "call":
                self._answer(*found.content())
            else:
                self._train(*found.content())

    def _import_what_training_needs(self) -> None:
        try:
            import ensemble.training.loop  # noqa: F401
            from ensemble.native import kernels

            kernels.load()
        except Exception as error:  # told by the first task that needs it: another try may end in other words
            self._unprepared = error

    def _answer(self, function: Callable[..., object], arguments: Sequence[object]) -> None:
        """Send what a function gives; what it raises comes out at the driver as a ComputeError."""
        try:
            self._say("answer", function(*arguments))
        except Exception as error:
            self._say("error", error if isinstance(error, EnsembleError) else ComputeError(explain(error)))

    def _train(self, task: Task, packed: bytes) -> None:
        """Train one task and send all it yields. An EnsembleError goes to the driver, which ends the run with it."""
        try:
            outcome = train_here(
                task, audible(self._telling_the_first_error(_unpacked(packed)), self._item), self._arrays, self._item
            )
        except EnsembleError as error:
            self._say("error", error)
        else:
            self._say("ended", None if outcome is None else Ended.of(outcome))

    def _telling_the_first_error(self, train: Train) -> Train:
        """The same function, which says why its libraries could not be imported at first: a second try fails in other words."""

        def telling(task: Task, arrays: Arrays) -> Iterator[Item]:
            try:
                with ended(train(task, arrays)) as items:
                    yield from items
            except (ImportError, ComputeError) as error:
                if self._unprepared is None:
                    raise
                first = self._unprepared
                raise cannot_start(first) if isinstance(first, ValueError) else first from error

        return telling

    def _item(self, item: object) -> None:
        self._say("item", item)

    def _say(self, kind: pipes.Kind, content: object) -> None:
        pipes.send(self._connection, kind, content)


def _unpacked(train: bytes) -> Train:
    """What trains. Raises ComputeError where this process cannot make it."""
    try:
        made: Train = pickle.loads(train)  # noqa: S301 - from the driver, through a line that nobody else has
    except Exception as error:  # whatever somebody's class may raise
        raise ComputeError(
            f"what is to be trained cannot be made in another process: {explain(error)}; put your own classes into a module that every process can import, or use compute.executor=inline"
        ) from error
    return made


if __name__ == "__main__":
    main()
