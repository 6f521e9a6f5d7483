"""One slot in this process: the reference that every other executor must equal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from ensemble.errors import EnsembleError
from ensemble.executors.base import Arrays, Collector, Emit, Outcome, Train, is_out_of_memory
from ensemble.types import FailureKind, Task


class InlineExecutor:
    """Trains task after task."""

    name = "inline"
    slots = 1

    def run(self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit) -> Iterator[Outcome]:
        """See Executor.run."""
        for task in tasks:
            yield train_here(task, train, arrays, emit)

    def close(self) -> None:
        """Nothing is held."""


def train_here(task: Task, train: Train, arrays: Arrays, emit: Emit) -> Outcome:
    """Train one task in this process. Raises an EnsembleError, which is the user's to mend."""
    collector, started = Collector(task, emit), time.monotonic()
    try:
        collector.take_all(train(task, arrays))
    except Exception as error:
        record_failure(error, collector, started)
    return collector.outcome()


def record_failure(error: Exception, collector: Collector, started: float) -> None:
    """Whatever a network may raise fails its task, not the run. An EnsembleError is the user's to mend: raised again."""
    if isinstance(error, EnsembleError):
        raise error
    kind: FailureKind = "out_of_memory" if is_out_of_memory(error) else "error"
    collector.fail(kind, error, time.monotonic() - started)
