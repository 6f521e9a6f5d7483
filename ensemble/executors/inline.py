"""One slot in this process: the reference that every other executor must equal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

from ensemble import signals
from ensemble.errors import ComputeError, EnsembleError
from ensemble.executors.base import Arrays, Collector, Emit, Outcome, Train, Wanted, always
from ensemble.executors.diagnosis import breaks_process, explain, failure_kind, is_out_of_memory
from ensemble.outside import own_code
from ensemble.types import Task


class InlineExecutor:
    """Trains task after task."""

    name = "inline"
    slots = 1

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        """See Executor.run."""
        with signals.deferred():
            for task in filter(wanted, tasks):
                outcome = train_here(task, train, arrays, emit)
                if outcome is None:
                    break
                yield outcome
                signals.check()

    def close(self) -> None:
        """Nothing is held."""


def train_here(task: Task, train: Train, arrays: Arrays, emit: Emit) -> Outcome | None:
    """Train one task in this process; None where the process was asked to stop, and the task has.

    Raises an EnsembleError, which is the user's to mend, and ComputeError when this process can no longer use its GPU.
    """
    collector, started = Collector(task, emit), time.monotonic()
    try:
        with own_code.staying():
            collector.take_all(train(task, arrays))
    except Exception as error:
        record_failure(error, collector, started)
    return None if collector.stopped else collector.outcome()


def record_failure(error: Exception, collector: Collector, started: float) -> None:
    """Whatever a network may raise fails its task, not the run.

    Raises an EnsembleError, which is the user's to mend, again; ComputeError where the error leaves this process without
    torch or a working GPU, so that every further task would fail here.
    """
    if isinstance(error, EnsembleError):
        raise error
    if isinstance(error, ImportError) and "torch" not in sys.modules:
        remedy = (
            "raise the limit (ulimit -v, or that of the container)" if is_out_of_memory(error) else "install it anew"
        )
        raise ComputeError(f"torch cannot be loaded: {explain(error)}; {remedy}, then start the run again") from error
    if breaks_process(error):
        raise ComputeError(
            f"{collector.task.id}: the GPU does not work for this process any more: {explain(error)}; finished members are kept: start the run again, or use compute.executor=ray, which replaces such a process"
        ) from error
    collector.fail(failure_kind(error, gave_gpu=False), error, time.monotonic() - started)
