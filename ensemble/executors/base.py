"""What every executor offers (tests/contracts/executor_contract.py spells it out)."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
import numpy.typing as npt

from ensemble.events import Event, TaskStarted
from ensemble.executors.diagnosis import explain
from ensemble.types import Checkpoint, Failure, FailureKind, MemberResult, Pulse, SetVotes, Stopped, Task

Arrays = Mapping[str, npt.NDArray[np.generic]]
Item = Event | Pulse | Checkpoint | Stopped | MemberResult | SetVotes | Failure
Train = Callable[[Task, Arrays], Iterator[Item]]
Emit = Callable[[Event | Checkpoint], None]
Wanted = Callable[[Task], bool]
T = TypeVar("T")


def always(_task: Task) -> bool:
    """Every task is wanted."""
    return True


class Offered(Sequence[Task]):
    """The tasks of one `run`, and those among them that are to be tried again, which the driver puts back meanwhile.

    An executor that looks for them (`tried_again`) starts them before all that still wait; of another one they are left.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = tuple(tasks)
        self._again: list[Task] = []

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Task, ...]: ...
    def __getitem__(self, place: int | slice) -> Task | tuple[Task, ...]:
        return self._tasks[place]

    def __len__(self) -> int:
        return len(self._tasks)

    def put_first(self, task: Task) -> None:
        """Have a task that has ended tried again."""
        self._again.append(task)

    def take_again(self) -> list[Task]:
        """What was put back since the last time."""
        again, self._again = self._again, []
        return again


def tried_again(tasks: Sequence[Task], waiting: deque[Task]) -> None:
    """Put the tasks that are to be tried again before those that wait."""
    if isinstance(tasks, Offered):
        waiting.extendleft(reversed(tasks.take_again()))


@contextmanager
def ended(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """The items. A generator that is left early ends with the block, whatever still refers to it.

    An error keeps the frames that it came through, and so the generator, alive; what that holds (a GPU's memory, a mode
    of the process) would be given back at any later moment, such as in the middle of another training.
    """
    try:
        yield items
    finally:
        if isinstance(items, Generator):
            items.close()


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How a task ended: one result, vote or failure for each of its members."""

    task: Task
    results: tuple[MemberResult, ...]
    failures: tuple[Failure, ...]
    votes: tuple[SetVotes, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """What another process says is left of a task, besides the task itself, which whoever handed it out has."""

    results: tuple[MemberResult, ...]
    failures: tuple[Failure, ...]
    votes: tuple[SetVotes, ...] = ()

    @classmethod
    def of(cls, outcome: Outcome) -> Ended:
        """What there is to send of an outcome."""
        return cls(outcome.results, outcome.failures, outcome.votes)


def audible(train: Train, send: Callable[[Pulse], None]) -> Train:
    """The same function for another process, whose signs of life are sent as they come; a Collector passes them over."""

    def heard(task: Task, arrays: Arrays) -> Iterator[Item]:
        with ended(train(task, arrays)) as items:
            for item in items:
                if isinstance(item, Pulse):
                    send(item)
                yield item

    return heard


class Executor(Protocol):
    name: str
    slots: int

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        """Train all tasks; yields an Outcome as each ends. Events and checkpoints pass to `emit` as they come.

        `wanted` is asked, where `run` was called, just before a task starts. A task that is no longer wanted is left out,
        without an Outcome. Of `Offered` tasks those that are put back after their Outcome come first, on Ray.

        A failure inside a task becomes Failures in its Outcome. An EnsembleError is the user's to mend and is raised.
        Leaving the iteration early stops what still runs. A signal that asks the process to stop makes the tasks under
        way hand in a last checkpoint; what ends meanwhile is yielded, then KeyboardInterrupt is raised.
        """
        ...

    def close(self) -> None:
        """Give back what the executor holds."""
        ...


@runtime_checkable
class Calls(Protocol):
    """An executor that can compute something else where its tasks have trained, on this machine."""

    def call(self, within_s: float, function: Callable[..., Any], *arguments: object) -> Any:
        """What a function gives in a process that has torch already.

        Raises an EnsembleError where it or the process fails, or it takes longer.
        """
        ...

    def close(self) -> None:
        """See Executor.close."""
        ...


class KeptOpen:
    """An executor of several runs, one after the other: a run that closes it gives nothing back."""

    def __init__(self, executor: Executor) -> None:
        self._executor, self.name, self.slots = executor, executor.name, executor.slots

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        """See Executor.run."""
        return self._executor.run(tasks, train, arrays, emit, wanted)

    def close(self) -> None:
        """Whoever made the executor closes it."""


class Collector:
    """Sorts what one task yields into events, results and failures."""

    def __init__(self, task: Task, emit: Emit) -> None:
        self.task, self._emit = task, emit
        self.place: TaskStarted | None = None  # where it runs, once it has said so
        self.stopped = False  # it was asked to stop, and has
        self._results: list[MemberResult] = []
        self._votes: list[SetVotes] = []
        self._failures: list[Failure] = []

    def take(self, item: Item) -> None:
        """One thing the task yielded."""
        if isinstance(item, MemberResult):
            self._results.append(item)
        elif isinstance(item, SetVotes):
            self._votes.append(item)
        elif isinstance(item, Failure):
            self._failures.append(item)
        elif isinstance(item, Stopped):
            self.stopped = True
        elif not isinstance(item, Pulse):
            if isinstance(item, TaskStarted):
                self.place = item
            self._emit(item)

    def take_all(self, items: Iterator[Item]) -> None:
        """Everything the task yields."""
        with ended(items):
            for item in items:
                self.take(item)

    def fail(self, kind: FailureKind, error: BaseException, seconds: float) -> None:
        """The task broke: each member that has left nothing yet has failed, and shares the lost time."""
        self.lose(kind, explain(error), "".join(traceback.format_exception(error)), seconds)

    def lose(self, kind: FailureKind, reason: str, details: str, seconds: float) -> None:
        """As `fail`, with the error in words: what it was, and its traceback."""
        done = self._accounted_for()
        missing = [member.index for member in self.task.members if member.index not in done]
        for index in missing:
            self._failures.append(Failure(index, kind, reason, details, seconds_lost=seconds / len(missing)))

    def outcome(self) -> Outcome:
        """The finished task. Every member must be accounted for."""
        left = self._accounted_for()
        assert left == {member.index for member in self.task.members}, f"{self.task.id} lost a member: {left}"
        return Outcome(self.task, tuple(self._results), tuple(self._failures), tuple(self._votes))

    def _accounted_for(self) -> set[int]:
        return {item.index for items in (self._results, self._votes, self._failures) for item in items}
