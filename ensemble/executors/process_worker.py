"""A process that trains the tasks its driver sends; `processes` starts it.

    python -P -m ensemble.executors.process_worker DESCRIPTOR RUN

The run's name is there for whoever looks at a list of processes. It imports torch at once, while its driver is still busy. A thread
reads what the driver sends, so that a request to stop is heard in mid-training, and so is the end of the driver, with which this process
ends.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from ensemble import signals
from ensemble.errors import ComputeError, EnsembleError
from ensemble.executors import pipes
from ensemble.executors.base import Arrays, Item, Train, ended
from ensemble.executors.diagnosis import explain
from ensemble.executors.inline import train_here
from ensemble.executors.serving import Ended
from ensemble.executors.shared_arrays import mapped
from ensemble.types import Pulse, Task

_LOOK_AGAIN_S = 0.5
_BEFORE_OTHERS = "500"  # of -1000 to 1000: where memory runs out, the system should end this process and not the driver


def main() -> None:
    """Serve until the driver has ended or closes the line, or somebody asks this process to stop."""
    signals.install()
    with suppress(OSError):  # not every system has it
        Path("/proc/self/oom_score_adj").write_text(_BEFORE_OTHERS)
    connection = Connection(int(sys.argv[1]))
    letters: queue.SimpleQueue[pipes.Letter | int] = queue.SimpleQueue()
    signals.start_deaf(threading.Thread(target=_listen, args=(connection, letters), daemon=True))
    with signals.deferred():
        _serve(connection, letters)
    signals.leave(0)


def _listen(connection: Connection, letters: queue.SimpleQueue[pipes.Letter | int]) -> None:
    """Pass on what comes; of arrays first the descriptor of their file. The end of the line is that of the process."""
    try:
        while True:
            letter = pipes.read(connection)
            if letter.kind == "stop":
                signals.ask()
                continue
            if letter.kind == "arrays":
                letters.put(pipes.read_file(connection))
            letters.put(letter)
    except (EOFError, OSError):
        os._exit(0)


def _serve(connection: Connection, letters: queue.SimpleQueue[pipes.Letter | int]) -> None:
    arrays: Arrays = {}
    prepared = False
    while not signals.requested():
        try:
            found = letters.get(timeout=_LOOK_AGAIN_S) if prepared else letters.get_nowait()
        except queue.Empty:
            if not prepared:
                _import_what_training_needs()
                prepared = True
            continue
        if isinstance(found, int):
            arrays = {}  # the old ones go before the new ones come
            described, others = _next_letter(letters).content()
            arrays = {**mapped(described, found), **others}
        elif found.kind == "paths":
            sys.path[:] = found.content()
        elif found.kind == "call":
            _answer(connection, *found.content())
        else:
            task, train = found.content()
            _train(connection, task, train, arrays)


def _next_letter(letters: queue.SimpleQueue[pipes.Letter | int]) -> pipes.Letter:
    letter = letters.get()
    assert isinstance(letter, pipes.Letter), letter
    return letter


def _import_what_training_needs() -> None:
    with suppress(Exception):  # a task that needs it says what is wrong
        import ensemble.training.loop  # noqa: F401
        from ensemble.native import kernels

        kernels.load()


def _answer(connection: Connection, function: Callable[..., object], arguments: Sequence[object]) -> None:
    """Send what a function gives; what it raises comes out at the driver as a ComputeError."""
    try:
        pipes.send(connection, "answer", function(*arguments))
    except Exception as error:
        pipes.send(connection, "error", error if isinstance(error, EnsembleError) else ComputeError(explain(error)))


def _train(connection: Connection, task: Task, train: Train, arrays: Arrays) -> None:
    """Train one task and send all it yields. An EnsembleError goes to the driver, which ends the run with it."""

    def send(item: object) -> None:
        pipes.send(connection, "item", item)

    def audible(task: Task, arrays: Arrays) -> Iterator[Item]:
        with ended(train(task, arrays)) as items:
            for item in items:
                if isinstance(item, Pulse):
                    send(item)
                yield item

    try:
        outcome = train_here(task, audible, arrays, send)
    except EnsembleError as error:
        pipes.send(connection, "error", error)
    else:
        left = None if outcome is None else Ended(outcome.results, outcome.failures, outcome.votes)
        pipes.send(connection, "ended", left)


if __name__ == "__main__":
    main()
