"""Tasks in a world of processes that torchrun or `accelerate launch` started: the `accelerate` executor.

Rank 0 drives: it alone asks the method, writes the run folder and prints. The other ranks `serve`: they take tasks,
train them, and send back what comes of it. How they share the work is compute.parallel:

members  A queue: each rank takes the next task when it is done with one. Networks are not wrapped, or Accelerate would
         average the gradients of different members and make them all the same.
data     All ranks train each task together, each on its part of every batch, gradients averaged.

What they send each other is in `world`. A rank that says nothing for compute.hang_timeout_s while it has a task is given
up: its task has failed with its node, and the run's policy tries it elsewhere. A rank that is asked to stop hands in a
checkpoint and leaves.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ensemble import signals
from ensemble.errors import ComputeError, EnsembleError
from ensemble.events import Notice, TaskStarted
from ensemble.executors.base import (
    Arrays,
    Collector,
    Emit,
    Ended,
    Item,
    Outcome,
    Train,
    Wanted,
    always,
    ended,
)
from ensemble.executors.inline import record_failure, train_here
from ensemble.executors.labels import members_in_words
from ensemble.executors.said_again import SaidAgain
from ensemble.executors.serving import SILENCE_SAID_S, Left, Offer, claim_key, hears_all, stops_with, task_key
from ensemble.executors.world import POLL_S, World, lost_store
from ensemble.types import Pulse, Task

_FAREWELL_S = 3.0  # for the other ranks to read that there is no more to do
# What Gloo and NCCL say on a rank whose partner in a collective is gone or hangs.
_LOST_PEER = re.compile(
    r"Connection (closed|reset) by (peer|remote)|Broken pipe|Timed out waiting|NCCL .*(remote|timeout|timed out)|Connection refused",
    re.IGNORECASE,
)


class LaunchedExecutor:
    """Rank 0's side; see the module.

    hang_timeout_s: a rank that has a task and has been silent for so long is given up.
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
        with signals.deferred(), lost_store():
            yield from self._run(tasks, train, arrays, emit, wanted)

    def _run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted
    ) -> Iterator[Outcome]:
        number, self._number = self._number, self._number + 1
        if not self._data_parallel:
            tasks = [task for task in tasks if wanted(task)]
        readers = self._world.size - 1
        if readers and (self._arrays is None or self._arrays[0] is not arrays):
            self._world.post(f"arrays{number}", dict(arrays))
            self._arrays = arrays, number
        offer = Offer(len(tasks), train, self._arrays[1] if self._arrays else number, self._data_parallel)
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

        def silent(rank: int, seconds: float) -> None:
            emit(Notice(
                f"no sign of life from rank {rank} for {seconds:.0f} s, and all ranks train together; without one for {max(30.0, self._hang_timeout_s):g} s (compute.hang_timeout_s) the run ends"
            ))  # fmt: skip

        try:
            for task in tasks:
                if wanted(task):
                    self._world.post(f"task{number}/{sent}", task)
                    sent += 1
                    with hears_all(self._world, silent):
                        outcome = train_here(task, train, arrays, emit)
                    if outcome is None:
                        raise KeyboardInterrupt
                    _check_peers(outcome)
                    yield outcome
                    signals.check()
        finally:
            self._world.post(f"task{number}/{sent}", None)

    def close(self) -> None:
        """Send the other ranks home."""
        key = f"round{self._number}"
        self._world.post(key, None)
        # The store ends with this process where no launcher holds it; ranks that are gone never read.
        if self._world.size > 1 and not signals.requested():
            self._world.gone(key, _FAREWELL_S)


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
        self._silences = SaidAgain()  # of ranks by their numbers, and of those that took a task without a word
        self._since: dict[int, float] = {}  # when the first word on a position came
        self._mine: int | None = None  # the position that is trained here

    def run(self, train: Train, arrays: Arrays) -> Iterator[Outcome]:
        """Take part in the training, and pass on what the others say."""
        for position, task in enumerate(self._tasks):
            self._world.post(task_key(self._number, position), task)
        try:
            while self._waiting:
                if signals.requested():
                    yield from self._gather_checkpoints()
                    signals.check()
                mine = self._world.count(f"next{self._number}") if self._exhausted is None else len(self._tasks)
                if mine < len(self._tasks):
                    yield from self._own(mine, train, arrays)
                else:
                    self._exhausted = self._exhausted or time.monotonic()
                    time.sleep(POLL_S)
                    yield from self._listen()
        finally:
            self._stop()

    def _gather_checkpoints(self) -> Iterator[Outcome]:
        """Ask the other ranks to stop, and listen until each has handed in what its task has done, or takes too long."""
        self._stop()
        self._world.ask_to_stop()
        while self._ranks and signals.waited_s() < signals.GRACE_S:
            time.sleep(POLL_S)
            yield from self._listen()

    def _own(self, position: int, train: Train, arrays: Arrays) -> Iterator[Outcome]:
        """Train a task here. Between any two of its items the others are listened to."""
        task = self._waiting.get(position)
        if task is None:  # withdrawn earlier
            return
        self._taken.add(position)
        self._world.discard(task_key(self._number, position))
        if not self._wanted(task):
            del self._waiting[position]
            return
        collector, started, self._mine = Collector(task, self._emit), time.monotonic(), position
        with stops_with(self._world), ended(train(task, arrays)) as items:
            while _advance(items, collector, started):
                yield from self._listen()
        self._mine = None
        if collector.stopped:
            return
        del self._waiting[position]
        yield collector.outcome()
        self._withdraw()

    def _listen(self) -> Iterator[Outcome]:
        """Everything that came from the other ranks. Raises what one of them raised."""
        for rank, letter in self._world.letters():
            # Of a round that was left early, or of a rank that was given up and is back.
            if letter.round != self._number or letter.position not in self._waiting:
                continue
            self._ranks[letter.position] = rank
            self._since.setdefault(letter.position, time.monotonic())
            self._silences.over(rank)
            yield from self._hear(rank, letter.position, letter.content)
        yield from self._give_up_silent()

    def _hear(self, rank: int, position: int, content: Any) -> Iterator[Outcome]:
        """One thing that a rank says of the task that it has."""
        task, where = self._waiting[position], f"rank {rank}{self._places.get(rank, '')}"
        if isinstance(content, EnsembleError):
            raise content
        if isinstance(content, Ended):
            del self._ranks[position], self._waiting[position]
            yield Outcome(task, content.results, content.failures, content.votes)
            self._withdraw()
        elif isinstance(content, Left):
            if signals.requested():  # all of them leave
                del self._ranks[position], self._waiting[position]
                return
            self._emit(Notice(f"{where} was asked to stop and leaves; {task.id} is tried elsewhere"))
            yield self._lost(position, f"{where} was asked to stop")
        elif not isinstance(content, Pulse):
            if isinstance(content, TaskStarted):
                self._places[rank] = f" ({content.host}, process {content.pid})"
            self._emit(content)

    def _withdraw(self) -> None:
        """Leave out the tasks that are no longer wanted and that no rank has taken."""
        for position, task in list(self._waiting.items()):
            if position in self._taken or position in self._ranks or self._wanted(task):
                continue
            if self._world.count(claim_key(self._number, position)) > 0:
                self._taken.add(position)
            else:
                del self._waiting[position]
                self._world.discard(task_key(self._number, position))

    def _give_up_silent(self) -> Iterator[Outcome]:
        """Fail the tasks of ranks that have said nothing for too long; lines come well before and again and again."""
        now, patience = time.monotonic(), self._hang_timeout_s
        for position, rank in list(self._ranks.items()):
            where, silent = f"rank {rank}{self._places.get(rank, '')}", now - self._world.heard[rank]
            if silent > patience:
                reason = f"{where} has shown no sign of life for {patience:g} s (compute.hang_timeout_s); its process or machine may be gone"
                yield self._lost(position, reason)
            elif silent > SILENCE_SAID_S and self._silences.due(rank, SILENCE_SAID_S):
                self._emit(Notice(
                    f"no sign of life from {where} for {silent:.0f} s; after {patience:g} s (compute.hang_timeout_s) its task is tried elsewhere"
                ))  # fmt: skip
        unnamed = set(self._waiting) - set(self._ranks) - {self._mine}
        if self._exhausted is None or not unnamed:
            return
        silent = now - self._exhausted
        if silent > SILENCE_SAID_S and self._silences.due("unnamed", SILENCE_SAID_S):
            members = members_in_words(
                member.index for position in unnamed for member in self._waiting[position].members
            )
            self._emit(Notice(
                f"no word for {silent:.0f} s from who took {members}; after {patience:g} s (compute.hang_timeout_s) they are tried elsewhere"
            ))  # fmt: skip
        if silent > patience:
            for position in unnamed:
                reason = f"a rank took it and was not heard of for {patience:g} s (compute.hang_timeout_s); its process or machine may be gone"
                yield self._lost(position, reason)

    def _lost(self, position: int, reason: str) -> Outcome:
        """A task whose rank is gone: as with a lost node of a cluster, another try is the policy's decision."""
        task, started = self._waiting.pop(position), self._since.pop(position, time.monotonic())
        self._ranks.pop(position, None)
        collector = Collector(task, self._emit)
        collector.lose("lost_node", reason, "", time.monotonic() - started)
        return collector.outcome()

    def _stop(self) -> None:
        """Let no rank take another task of this round."""
        if not self._waiting:
            return
        first = self._world.count(f"next{self._number}", len(self._tasks))
        for position in range(first, len(self._tasks)):
            self._world.discard(task_key(self._number, position))


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


def _check_peers(outcome: Outcome) -> None:
    """Raises ComputeError where a task that all ranks train failed since one of them is gone: no further one can succeed."""
    for failure in outcome.failures:
        if failure.kind == "error" and _LOST_PEER.search(failure.reason):
            raise ComputeError(
                f"{outcome.task.id}: a rank that trains it too has ended or does not answer ({failure.reason}); finished members and checkpoints are kept: start the same command again"
            )
