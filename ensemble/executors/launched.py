"""Tasks in a world of processes that torchrun or `accelerate launch` started: the `accelerate` executor.

Rank 0 drives: it alone asks the method, writes the run folder and prints. The other ranks `serve`: they take tasks,
train them, and send back what comes of it. How they share the work is compute.parallel:

members  A queue: each rank takes the next task when it is done with one. Networks are not wrapped, or Accelerate would
         average the gradients of different members and make them all the same.
data     All ranks train each task together, each on its part of every batch, gradients averaged.

What they send each other is in `world`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble.errors import ComputeError, EnsembleError
from ensemble.events import Event, TaskStarted
from ensemble.executors.base import (
    Arrays,
    Collector,
    Emit,
    Item,
    Outcome,
    Train,
    Wanted,
    always,
)
from ensemble.executors.inline import record_failure, train_here
from ensemble.executors.world import POLL_S, World
from ensemble.types import Checkpoint, Failure, MemberResult, Pulse, Task


@dataclass(frozen=True, slots=True)
class _Offer:
    """A round of tasks, as rank 0 offers it. arrays: the number of the round whose arrays it uses."""

    tasks: int
    train: Train
    arrays: int
    data_parallel: bool


@dataclass(frozen=True, slots=True)
class _Ended:
    """What is left of a task besides the task itself, which rank 0 has."""

    results: tuple[MemberResult, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class _Letter:
    """What a rank says about the task at a position of a round. A Pulse is a sign of life."""

    round: int
    position: int
    content: Event | Checkpoint | Pulse | _Ended | EnsembleError


class LaunchedExecutor:
    """Rank 0's side; see the module.

    hang_timeout_s: the run ends with an error when a rank that has a task has been silent for so long.
    """

    name = "accelerate"

    def __init__(self, data_parallel: bool, hang_timeout_s: float, world: World | None = None) -> None:
        self._world, self._data_parallel = world or World.joined(), data_parallel
        self._hang_timeout_s = hang_timeout_s
        self.slots = 1 if data_parallel else self._world.size
        self._number = 0
        self._arrays: tuple[Arrays, int] | None = None  # those that the ranks have, and the round they came with

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        """See Executor.run. A rank may have taken a task just before it was found that it is no longer wanted."""
        number, self._number = self._number, self._number + 1
        if not self._data_parallel:
            tasks = [task for task in tasks if wanted(task)]
        readers = self._world.size - 1
        if readers and (self._arrays is None or self._arrays[0] is not arrays):
            self._world.post(f"arrays{number}", dict(arrays))
            self._arrays = arrays, number
        offer = _Offer(len(tasks), train, self._arrays[1] if self._arrays else number, self._data_parallel)
        self._world.post(f"round{number}", offer)
        if self._data_parallel:
            yield from self._together(number, tasks, train, arrays, emit, wanted)
        else:
            yield from _Round(self._world, number, tasks, emit, wanted, self._hang_timeout_s).run(train, arrays)

    def _together(
        self, number: int, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted
    ) -> Iterator[Outcome]:
        """Train each task with all ranks, which must train the same ones: each is sent when its turn comes."""
        sent = 0
        try:
            for task in tasks:
                if wanted(task):
                    self._world.post(f"task{number}/{sent}", task)
                    sent += 1
                    yield train_here(task, train, arrays, emit)
        finally:
            self._world.post(f"task{number}/{sent}", None)

    def close(self) -> None:
        """Send the other ranks home."""
        self._world.post(f"round{self._number}", None)


class _Round:
    """Rank 0's view of tasks that are shared out over the ranks.

    Ranks take positions from a counter. For each position they take they also count up its own counter, and so does
    rank 0 when the task is no longer wanted: whoever was first has it.
    """

    def __init__(
        self, world: World, number: int, tasks: Sequence[Task], emit: Emit, wanted: Wanted, hang_timeout_s: float
    ) -> None:
        self._world, self._number, self._tasks = world, number, tasks
        self._emit, self._wanted, self._hang_timeout_s = emit, wanted, hang_timeout_s
        self._waiting = dict(enumerate(tasks))  # without an outcome
        self._ranks: dict[int, int] = {}  # who trains what, by position
        self._taken: set[int] = set()  # positions whose own counter says that a rank has them
        self._places: dict[int, str] = {}
        self._exhausted: float | None = None  # since when all positions are taken

    def run(self, train: Train, arrays: Arrays) -> Iterator[Outcome]:
        """Take part in the training, and pass on what the others say."""
        for position, task in enumerate(self._tasks):
            self._world.post(_task_key(self._number, position), task)
        try:
            while self._waiting:
                mine = self._world.count(f"next{self._number}") if self._exhausted is None else len(self._tasks)
                if mine < len(self._tasks):
                    yield from self._own(mine, train, arrays)
                else:
                    self._exhausted = self._exhausted or time.monotonic()
                    time.sleep(POLL_S)
                    yield from self._listen()
        finally:
            self._stop()

    def _own(self, position: int, train: Train, arrays: Arrays) -> Iterator[Outcome]:
        """Train a task here. Between any two of its items the others are listened to."""
        task = self._waiting.get(position)
        if task is None:  # withdrawn earlier
            return
        self._taken.add(position)
        self._world.discard(_task_key(self._number, position))
        if not self._wanted(task):
            del self._waiting[position]
            return
        collector, started = Collector(task, self._emit), time.monotonic()
        items = train(task, arrays)
        while _advance(items, collector, started):
            yield from self._listen()
        del self._waiting[position]
        yield collector.outcome()
        self._withdraw()

    def _listen(self) -> Iterator[Outcome]:
        """Everything that came from the other ranks. Raises what one of them raised, or that one is silent."""
        for rank, letter in self._world.letters():
            if letter.round != self._number:  # a round that was left early
                continue
            content, position = letter.content, letter.position
            self._ranks[position] = rank
            if isinstance(content, EnsembleError):
                raise content
            if isinstance(content, _Ended):
                del self._ranks[position]
                yield Outcome(self._waiting.pop(position), content.results, content.failures)
                self._withdraw()
            elif not isinstance(content, Pulse):
                if isinstance(content, TaskStarted):
                    self._places[rank] = f" ({content.host}, process {content.pid})"
                self._emit(content)
        self._check_silence()

    def _withdraw(self) -> None:
        """Leave out the tasks that are no longer wanted and that no rank has taken."""
        for position, task in list(self._waiting.items()):
            if position in self._taken or position in self._ranks or self._wanted(task):
                continue
            if self._world.count(_claim_key(self._number, position)) > 0:
                self._taken.add(position)
            else:
                del self._waiting[position]
                self._world.discard(_task_key(self._number, position))

    def _check_silence(self) -> None:
        now, patience = time.monotonic(), self._hang_timeout_s
        for position, rank in self._ranks.items():
            if now - self._world.heard[rank] > patience:
                raise ComputeError(
                    f"rank {rank}{self._places.get(rank, '')} has shown no sign of life for {patience:g} s (compute.hang_timeout_s) while training {self._waiting[position].id}; its process or machine may be gone. Finished members are kept: look at that machine and start the same command again"
                )
        if self._exhausted is not None and now - self._exhausted > patience:
            for position in set(self._waiting) - set(self._ranks):
                raise ComputeError(
                    f"a rank took {self._waiting[position].id} and was not heard of for {patience:g} s (compute.hang_timeout_s); its process or machine may be gone. Finished members are kept: start the same command again"
                )

    def _stop(self) -> None:
        """Let no rank take another task of this round."""
        if not self._waiting:
            return
        first = self._world.count(f"next{self._number}", len(self._tasks))
        for position in range(first, len(self._tasks)):
            self._world.discard(_task_key(self._number, position))


def _advance(items: Iterator[Item], collector: Collector, started: float) -> bool:
    """Take the next item of a task; False when the task has ended, well or not. Raises an EnsembleError."""
    try:
        collector.take(next(items))
        return True
    except StopIteration:
        return False
    except Exception as error:
        record_failure(error, collector, started)
        return False


def serve(world: World | None = None) -> None:
    """The side of every rank but 0: train what rank 0 has to offer, until it has no more."""
    world = world or World.joined()
    readers = world.size - 1
    arrays: Arrays = {}
    have = -1
    for number in itertools.count():
        offer: _Offer | None = world.receive(f"round{number}", readers)
        if offer is None:
            return
        if have != offer.arrays:
            arrays = {}  # the old ones go before the new ones come
            arrays, have = world.receive(f"arrays{offer.arrays}", readers), offer.arrays
        if offer.data_parallel:
            for position in itertools.count():
                task = world.receive(f"task{number}/{position}", readers)
                if task is None:
                    break
                train_here(task, offer.train, arrays, lambda _item: None)
        else:
            while (position := world.count(f"next{number}")) < offer.tasks:
                if world.count(_claim_key(number, position)) == 0:  # else rank 0 has withdrawn it
                    _serve_task(world, number, position, offer.train, arrays)


def _serve_task(world: World, number: int, position: int, train: Train, arrays: Arrays) -> None:
    """Train one task and send all it yields. An EnsembleError goes to rank 0, which ends the run with it."""

    def send(content: Any) -> None:
        world.send(_Letter(number, position, content))

    def audible(task: Task, arrays: Arrays) -> Iterator[Item]:
        for item in train(task, arrays):
            if isinstance(item, Pulse):
                send(item)
            yield item

    send(Pulse(""))
    task = world.receive(_task_key(number, position))
    try:
        outcome = train_here(task, audible, arrays, send)
        send(_Ended(outcome.results, outcome.failures))
    except EnsembleError as error:
        send(error)


def _task_key(number: int, position: int) -> str:
    return f"task{number}/{position}"


def _claim_key(number: int, position: int) -> str:
    return f"claim{number}/{position}"
